"""`gossamer generate`: a model continues a text, or writes another for it."""

import dataclasses
import sys
from typing import Annotated, Any, Literal

import tyro

from gossamer.cli.console import Command, Console, WrongUseError, arguments
from gossamer.cli.models import Activations, open_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(Command):
    """Continue a text, greedily unless a temperature is given. An encoder-decoder does not continue
    the text: it writes another for it, such as its translation.

    Example: gossamer generate small --prompt "The capital of France is" --max-tokens 64
    """

    model: tyro.conf.Positional[str]
    """A saved model, a Hugging Face folder or hub id, a .gguf or llama2.c .bin file, or the word
    smollm2."""
    prompt: str
    """The text to continue, or with --chat the message to answer; for an encoder-decoder the text
    to read."""
    max_tokens: int = 64
    """New tokens at most."""
    temperature: float = 0.0
    """0 is greedy; higher draws more evenly."""
    top_k: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Draw from the k likeliest tokens."""
    top_p: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Draw from the likeliest tokens whose probabilities sum to this."""
    seed: int = 0
    """The same seed gives the same text."""
    stop: tuple[str, ...] = ()
    """End the text before this string."""
    chat: bool = False
    """Wrap the prompt in the model's chat template."""
    activations: Annotated[Activations | None, tyro.conf.arg(metavar="{float32,int8,int4}")] = None
    """How inputs of quantized kernels are multiplied: as floats, or quantized row by row. Without
    it, as the model was compressed for."""
    cache: Literal["float32", "bfloat16", "int8"] = "float32"
    """How keys and values of past tokens are kept."""

    def run(self, console: Console) -> dict[str, Any]:
        """Generates, showing the text as it comes unless JSON is asked for."""
        if self.max_tokens < 1:
            raise WrongUseError(f"--max-tokens needs 1 or more, got {self.max_tokens}.")
        if "" in self.stop:
            raise WrongUseError("--stop needs at least one character.")
        from gossamer.inference import Sampling, generate

        with arguments():
            Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
        stream = _Stream(console, self)
        result = generate(
            open_model(self.model, self.activations),
            self.prompt,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stop,
            chat=self.chat,
            cache=self.cache,
            on_text=stream.write,
        )
        return dataclasses.asdict(result)

    def show(self, result: dict[str, Any], console: Console) -> None:
        """The text is out already; how fast it came goes to standard error."""
        console.out.print()
        decode = result["decode_tokens_per_second"]
        console.note(
            f"prefill {result['prefill_tokens_per_second']:.1f} tokens/s"
            + (f", decode {decode:.1f} tokens/s" if decode else "")
            + f", stopped by {result['stopped_by']}"
        )


class _Stream:
    """Shows pieces of text as they come, below the progress of what comes before the first."""

    def __init__(self, console: Console, command: Generate) -> None:
        self._console = console
        self._silent = command.json
        self._first = console.stage(f"reading {command.model}, first text", 1)
        self._begun = False

    def write(self, text: str) -> None:
        """Takes a piece."""
        if not self._begun:
            self._begun = True
            self._first()
            self._console.close()
        if not self._silent:
            sys.stdout.write(text)
            sys.stdout.flush()
