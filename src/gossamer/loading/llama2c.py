"""llama2.c's `.bin` files, version 0: float32 weights of small Llamas such as stories260K.

Layout, little-endian: seven int32 (D, F, blocks, N, K, V, positions; V negative where the output
has a kernel of its own), then float32, matrices as [out, in], each kind stacked over the blocks:
token embedding; attention norms, wq, wk, wv, wo; feed-forward norms, w1, w2, w3; last norm; two
rotary tables [positions, H/2], which nothing reads; the output's kernel.

Source: `export.py` (`legacy_export`) and `run.c` of karpathy/llama2.c.
"""

import functools
import itertools
import math
import struct
from pathlib import Path

import numpy as np

from gossamer.data import Tokenizer
from gossamer.loading.checkpoint import Checkpoint, Tensor
from gossamer.loading.identity import sample_sha256
from gossamer.loading.orientation import from_neighbour_pairs
from gossamer.models import LlamaConfig, parameter_shapes
from gossamer.nn.rotary import Rotary

_HEADER = struct.Struct("<7i")
_LATER_MAGIC = 0x616B3432  # "ak42": version 1 and later


def load_llama2c(path: str | Path, tokenizer: str | Path | None = None) -> Checkpoint:
    """Opens a llama2.c model; only the header is read, and each tensor when it is asked for.

    Args:
        path: the model.
        tokenizer: its `tokenizer.bin`; None looks beside the model for `tok<V>.bin`, then for
            `tokenizer.bin`, and goes without where there is neither.

    Raises:
        ValueError: a file is missing, or is not as long as its header says, or the tokenizer has
            another number of tokens than the model.
    """
    path = Path(path)
    config = _read_config(path)
    size = _file_size(config)
    if (found := path.stat().st_size) != size:
        raise ValueError(
            f"llama2.c file {path} has {found} bytes, its header ({config}) asks for {size}; it is "
            "cut short, or no version 0 file of llama2.c."
        )
    data = np.memmap(path, np.uint8, mode="r")
    starts = _starts(config)
    ends = {"bos_token_id": 1, "eos_token_id": [1, 2]}
    return Checkpoint(
        config=config,
        tensors={
            name: Tensor(
                tuple(shape),
                np.dtype(np.float32),
                functools.partial(_read, data, starts[name], name, tuple(shape), config),
            )
            for name, shape in parameter_shapes(config).items()
        },
        tokenizer=_tokenizer(path, tokenizer, config.vocab_size),
        source={
            "name": path.stem,
            "format": "llama2.c",
            "file": path.name,
            "bytes": size,
            "sample_sha256": sample_sha256([path]),
        },
        hf_config={**config.to_hf(), **ends},
    )


def _read_config(path: Path) -> LlamaConfig:
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except OSError as error:
        raise ValueError(f"llama2.c file {path} cannot be read: {error}.") from error
    if len(head) < _HEADER.size:
        raise ValueError(
            f"llama2.c file {path} is cut short: its header has {_HEADER.size} bytes, the file "
            f"{len(head)}."
        )
    hidden, wide, blocks, heads, kv_heads, vocabulary, positions = numbers = _HEADER.unpack(head)
    if hidden == _LATER_MAGIC:
        raise ValueError(
            f"llama2.c file {path} has version {wide}; only version 0 is supported: export the "
            "model with `--version 0`."
        )
    sizes = (hidden, wide, blocks, heads, kv_heads, positions)
    if min(sizes) < 1 or not vocabulary or hidden % heads or heads % kv_heads:
        raise ValueError(
            f"{path} is no llama2.c file: a header of {numbers} (D, F, blocks, N, K, V, positions) "
            "describes no model."
        )
    return LlamaConfig(
        vocab_size=abs(vocabulary),
        hidden_size=hidden,
        intermediate_size=wide,
        num_layers=blocks,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=hidden // heads,
        max_positions=positions,
        norm_epsilon=1e-5,
        rotary=Rotary(theta=10000.0),
        tied=vocabulary > 0,
    )


def _block_sizes(config: LlamaConfig) -> dict[str, int]:
    """Elements of each kind in one block, in the order of the file."""
    hidden, wide = config.hidden_size, config.intermediate_size
    keys = config.num_kv_heads * config.head_dim
    return {
        "attention_norm.scale": hidden,
        "attention.q_proj.kernel": hidden * hidden,
        "attention.k_proj.kernel": hidden * keys,
        "attention.v_proj.kernel": hidden * keys,
        "attention.o_proj.kernel": hidden * hidden,
        "mlp_norm.scale": hidden,
        "mlp.gate_proj.kernel": hidden * wide,
        "mlp.down_proj.kernel": hidden * wide,
        "mlp.up_proj.kernel": hidden * wide,
    }


def _file_size(config: LlamaConfig) -> int:
    """Bytes of the whole file."""
    embedding = config.vocab_size * config.hidden_size
    blocks = config.num_layers * sum(_block_sizes(config).values())
    tables = config.max_positions * config.head_dim
    outputs = 0 if config.tied else embedding
    return _HEADER.size + 4 * (embedding + blocks + config.hidden_size + tables + outputs)


def _starts(config: LlamaConfig) -> dict[str, int]:
    """Where each parameter's bytes start."""
    embedding = config.vocab_size * config.hidden_size
    sizes = {"embedding.kernel": embedding}
    for kind, size in _block_sizes(config).items():
        sizes |= {f"layers.{index}.{kind}": size for index in range(config.num_layers)}
    sizes["norm.scale"] = config.hidden_size
    sizes["rotary tables"] = config.max_positions * config.head_dim
    sizes["output.kernel"] = embedding
    stops = itertools.accumulate(sizes.values(), initial=0)
    return {path: _HEADER.size + 4 * stop for path, stop in zip(sizes, stops, strict=False)}


def _read(
    data: np.ndarray, start: int, path: str, shape: tuple[int, ...], config: LlamaConfig
) -> np.ndarray:
    raw = np.asarray(data[start : start + 4 * math.prod(shape)])
    return from_neighbour_pairs(path, raw.view("<f4").reshape(shape[::-1]), config)


def _tokenizer(path: Path, given: str | Path | None, vocab_size: int) -> Tokenizer | None:
    beside = [path.with_name(f"tok{vocab_size}.bin"), path.with_name("tokenizer.bin")]
    candidates = [Path(given)] if given else [file for file in beside if file.exists()]
    if not candidates:
        return None
    tokenizer = Tokenizer.from_llama2c(candidates[0])
    if tokenizer.vocab_size != vocab_size:
        raise ValueError(
            f"Tokenizer {candidates[0]} has {tokenizer.vocab_size} tokens, the model {path} has "
            f"{vocab_size}; name the one that belongs to it."
        )
    return tokenizer
