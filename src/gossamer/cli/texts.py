"""The perplexity windows that `compress`, `eval` and `demo` cut from a text."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gossamer.compression import Evaluation
    from gossamer.loading import Checkpoint


def evaluation_windows(
    checkpoint: "Checkpoint", text: str | None, context: int, count: int
) -> "Evaluation":
    """Tokenizes a text and cuts its first windows.

    Args:
        checkpoint: the model, for its tokenizer.
        text: a file; None is the evaluation part of the text that every Python has.
        context: tokens of a window.
        count: how many windows.

    Raises:
        ValueError: the text cannot be read or is too short, or the model is no language model or
            has no tokenizer.
    """
    from pathlib import Path

    from gossamer.compression import Evaluation
    from gossamer.data import builtin_text, read_text, windows
    from gossamer.models import decoder_config

    decoder_config(checkpoint.config)  # a model of something else has no use for a tokenizer
    name = Path(text).name if text else "pydoc_data.topics (evaluation part)"
    words = read_text(text) if text else builtin_text("evaluation")
    ids = checkpoint.require_tokenizer().encode(words)
    return Evaluation(text=name, tokens=windows(ids, length=context, count=count))
