"""Text to token ids and back, and chats to text; a thin shell around Hugging Face `tokenizers`."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from gossamer.data import vocabularies, vocabulary_files
from gossamer.data.chat import render_chat
from gossamer.data.json_files import read_json

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
"""The files of a tokenizer that `Tokenizer.to_files` writes."""

_NAMED = ("bos", "eos", "unk", "pad")
"""Special tokens that a tokenizer_config.json and chat templates know by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A model's tokenizer.

    Attributes:
        backend: what does the work.
        config: the content of `tokenizer_config.json`: named tokens, chat template.
        bos_id: the token that starts a text, if the model has one.
        eos_ids: tokens after which a model has said everything.
    """

    backend: tokenizers.Tokenizer
    config: Mapping[str, Any]
    bos_id: int | None
    eos_ids: frozenset[int]

    @property
    def vocab_size(self) -> int:
        """Tokens, special ones included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, add_special: bool = False) -> list[int]:
        """Token ids of a text; text that spells a special token gives that token.

        Args:
            text: any Unicode text.
            add_special: puts around it what the model was trained with, most often a BOS token.
        """
        # The batched call notes no offsets: a third less time and memory for a long text.
        [encoding] = self.backend.encode_batch_fast([text], add_special_tokens=add_special)
        return encoding.ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, without what is put around one."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of token ids; special tokens are left out unless asked for."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """Writes a conversation as the text the model was trained on.

        Args:
            messages: each with `role` and `content`.
            add_generation_prompt: ends with what makes the model answer.

        Raises:
            ValueError: the tokenizer has no chat template, or the template refuses the messages.
        """
        template = self.config.get("chat_template")
        if isinstance(template, list):  # several, each {"name": ..., "template": ...}
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        if not isinstance(template, str):
            raise ValueError(
                "This tokenizer has no chat template; give the model plain text, or a model that "
                "was trained on chats."
            )
        named = {f"{name}_token": _token(self.config, name) for name in _NAMED}
        return render_chat(
            template,
            {
                **{name: token for name, token in named.items() if token is not None},
                "messages": list(messages),
                "add_generation_prompt": add_generation_prompt,
            },
        )

    def to_files(self) -> dict[str, bytes]:
        """The files that `from_folder` and `transformers.AutoTokenizer` read, by name."""
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.config}
        files = {
            "tokenizer.json": self.backend.to_str().encode(),
            "tokenizer_config.json": _json(config),
        }
        if self.eos_ids:
            # A tokenizer_config.json names one end token at most; this is where there are several.
            files["generation_config.json"] = _json({"eos_token_id": sorted(self.eos_ids)})
        return files

    @staticmethod
    def from_folder(folder: str | Path) -> "Tokenizer | None":
        """Reads a Hugging Face folder's tokenizer, or None where it has no `tokenizer.json`.

        Raises:
            ValueError: a file is not what its name says.
        """
        folder = Path(folder)
        if not (folder / "tokenizer.json").exists():
            return None
        try:
            backend = tokenizers.Tokenizer.from_buffer((folder / "tokenizer.json").read_bytes())
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{folder / 'tokenizer.json'} is no tokenizer: {error}.") from error
        config = _read_if_there(folder / "tokenizer_config.json")
        template = folder / "chat_template.jinja"
        if template.exists():
            config["chat_template"] = template.read_text(encoding="utf-8")
        ends = [
            _read_if_there(folder / name).get("eos_token_id")
            for name in ("generation_config.json", "config.json")
        ]
        return _named(backend, config, [*ends, _token(config, "eos")])

    @staticmethod
    def of_bytes() -> "Tokenizer":
        """The bytes of UTF-8 as tokens, a byte's value being its id; no special tokens.

        Example:
            >>> print(*Tokenizer.of_bytes().encode("né"))
            110 195 169
        """
        vocabulary = vocabularies.Vocabulary(tokens=vocabularies.byte_letters())
        backend = vocabularies.byte_level_bpe(vocabulary, [], "gpt-2")
        return _named(backend, {"clean_up_tokenization_spaces": False}, [])

    @staticmethod
    def trained(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learns a byte-level BPE from texts: `<pad>` is token 0, `</s>` token 1 ends a text.

        Equal texts give equal tokens. Every text can be encoded, those of other alphabets too.

        Args:
            texts: to count pairs of letters in.
            vocab_size: tokens at most, 258 or more: the two, and the bytes.

        Raises:
            ValueError: fewer are asked for.
        """
        names = ["<pad>", "</s>"]
        letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        if vocab_size < (least := len(names) + len(letters)):
            raise ValueError(
                f"A tokenizer needs {least} tokens or more, for all bytes; got {vocab_size}."
            )
        backend = tokenizers.Tokenizer(tokenizers.models.BPE())
        backend.normalizer = tokenizers.normalizers.NFC()
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        backend.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=names,
            initial_alphabet=sorted(letters),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
        config = {
            "pad_token": names[0],
            "eos_token": names[1],
            "clean_up_tokenization_spaces": False,
        }
        return _named(backend, config, [1])

    @staticmethod
    def from_gguf(metadata: Mapping[str, Any]) -> "Tokenizer":
        """Rebuilds the tokenizer from a GGUF file's keys `tokenizer.*`.

        Raises:
            ValueError: a key is missing, or describes a tokenizer that is not supported.
        """
        backend, vocabulary = vocabulary_files.from_gguf(metadata)
        keys = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
        config: dict[str, Any] = {"clean_up_tokenization_spaces": False}
        for name, key in keys.items():
            index = metadata.get(f"tokenizer.ggml.{key}_token_id")
            if isinstance(index, int) and 0 <= index < len(vocabulary.tokens):
                config[f"{name}_token"] = vocabulary.tokens[index]
        if template := metadata.get("tokenizer.chat_template"):
            config["chat_template"] = template
        ends = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
        return _named(backend, config, [[end for end in ends if end is not None]])

    @staticmethod
    def from_llama2c(path: str | Path) -> "Tokenizer":
        """Rebuilds the tokenizer from llama2.c's `tokenizer.bin`.

        The models of that project were trained with BOS between texts, so that BOS ends one too.
        """
        backend, vocabulary = vocabulary_files.from_llama2c(Path(path))
        unk, bos, eos = vocabulary.tokens[:3]
        config = {
            "bos_token": bos,
            "eos_token": eos,
            "unk_token": unk,
            "clean_up_tokenization_spaces": False,
        }
        return _named(backend, config, [[1, 2]])


def _named(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], ends: Sequence[object]
) -> Tokenizer:
    """Finds BOS by its name and EOS by the first of `ends` that says something."""
    bos = _token(config, "bos")
    end = next((end for end in ends if end not in (None, [])), [])
    ids = [
        backend.token_to_id(index) if isinstance(index, str) else index
        for index in (end if isinstance(end, list) else [end])
    ]
    return Tokenizer(
        backend=backend,
        config=config,
        bos_id=None if bos is None else backend.token_to_id(bos),
        eos_ids=frozenset(index for index in ids if isinstance(index, int)),
    )


def _token(config: Mapping[str, Any], name: str) -> str | None:
    """A special token's text; older files wrap it as {"content": text, ...}."""
    token = config.get(f"{name}_token")
    return token.get("content") if isinstance(token, dict) else token


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode()


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
