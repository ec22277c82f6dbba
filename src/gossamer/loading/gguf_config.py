"""Translates what GGUF files say of Llama models to a Hugging Face `config.json`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.loading.gguf_header import Header, TensorInfo
from gossamer.models import LlamaConfig
from gossamer.nn.rotary import Llama3Scaling, Rotary

_LLAMA3_POSITIONS, _LLAMA3_LOW, _LLAMA3_HIGH = 8192, 1.0, 4.0
"""Constants of every published model with this scaling; GGUF keeps only what follows from them."""


def config_to_hf(
    path: Path, header: Header, decode: Callable[[TensorInfo], np.ndarray]
) -> dict[str, Any]:
    """Builds the `config.json` of the model in a GGUF file.

    Args:
        path: the file's name, for errors.
        header: what the file says.
        decode: reads a tensor; used for the table of rotary factors, where there is one.

    Raises:
        ValueError: the architecture is not Llama, keys are missing or malformed, or they ask for
            what is not supported; all are named.
    """
    keys = _Keys(path, header)
    keys.check_architecture()
    hidden, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", hidden // max(heads, 1))
    keys.only("attention.value_length", head_dim)
    keys.only("rope.dimension_count", head_dim)
    keys.only("expert_count", 0)
    keys.only("rope.scaling.type", "none")
    tensors = header.tensors
    embedding = tensors.get("token_embd.weight")
    theta = keys.number("rope.freq_base", 10000.0)
    sizes = {
        "vocab_size": embedding.shape[0] if embedding and embedding.shape else 1,
        "hidden_size": hidden,
        "intermediate_size": keys.integer("feed_forward_length"),
        "num_layers": keys.integer("block_count"),
        "num_heads": heads,
        "num_kv_heads": keys.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_positions": keys.integer("context_length"),
        "norm_epsilon": keys.number("attention.layer_norm_rms_epsilon"),
        "tied": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in tensors,
    }
    keys.check()
    scaling = None
    if (factors := tensors.get("rope_freqs.weight")) is not None:
        scaling = _llama3_scaling(path, decode(factors), theta, head_dim)
    config = LlamaConfig(**sizes, rotary=Rotary(theta=theta, scaling=scaling))
    ends = {
        f"{name}_token_id": index
        for name in ("bos", "eos")
        if isinstance(index := header.metadata.get(f"tokenizer.ggml.{name}_token_id"), int)
    }
    return {**config.to_hf(), **ends}


class _Keys:
    """The keys of one architecture; faults are gathered until `check`."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.metadata = header.metadata
        self.faults: list[str] = []

    def check_architecture(self) -> None:
        architecture = self.metadata.get("general.architecture")
        if architecture != "llama":
            raise ValueError(
                f"GGUF file {self.path} has general.architecture {architecture!r}; only 'llama' is "
                "supported."
            )

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.metadata.get(f"llama.{name}", default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.faults.append(f"llama.{name} must be a whole number of at least 1, got {value!r}")
            return 1
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.metadata.get(f"llama.{name}", default)
        if not isinstance(value, float) or not value > 0:
            self.faults.append(f"llama.{name} must be a positive number, got {value!r}")
            return 1.0
        # Written as float32: 9.99999974e-06 was 1e-05.
        return float(str(np.float32(value)))

    def only(self, name: str, accepted: int | str) -> None:
        value = self.metadata.get(f"llama.{name}", accepted)
        if value != accepted:
            self.faults.append(f"llama.{name} must be {accepted!r}, got {value!r}")

    def check(self) -> None:
        if self.faults:
            raise ValueError(f"GGUF file {self.path} cannot be used: {'; '.join(self.faults)}.")


def _llama3_scaling(
    path: Path, divisors: np.ndarray, theta: float, head_dim: int
) -> Llama3Scaling | None:
    """The scaling that divides the rotary frequencies by `divisors`, one for each pair.

    Raises:
        ValueError: no scaling with the constants of the published models does.
    """
    factor = float(np.max(divisors, initial=1.0))
    if np.all(divisors == 1):
        return None
    if divisors.shape == (head_dim // 2,) and np.isfinite(divisors).all():
        scaling = Llama3Scaling(
            factor=factor,
            low_frequency_factor=_LLAMA3_LOW,
            high_frequency_factor=_LLAMA3_HIGH,
            original_positions=_LLAMA3_POSITIONS,
        )
        plain = Rotary(theta=theta).frequencies(head_dim)
        if np.allclose(divisors, plain / scaling.apply(plain), rtol=1e-4):
            return scaling
    raise ValueError(
        f"GGUF file {path}: rope_freqs.weight {divisors.shape} is not the scaling of Llama 3 with "
        f"factor {factor} that its largest number suggests; other scalings are not supported."
    )
