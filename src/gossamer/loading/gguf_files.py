"""GGUF files of the Llama family: llama.cpp's format, most often with quantized weights."""

import functools
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from gossamer.data import Tokenizer
from gossamer.loading.checkpoint import Checkpoint, Tensor, check_sizes, check_tensors
from gossamer.loading.gguf_config import config_to_hf
from gossamer.loading.gguf_header import Header, TensorInfo, read_header
from gossamer.loading.identity import sample_sha256
from gossamer.loading.orientation import from_neighbour_pairs
from gossamer.models import LlamaConfig, parameter_shapes

_MODULES = {
    "embedding": "token_embd",
    "norm": "output_norm",
    "output": "output",
    "attention_norm": "attn_norm",
    "attention.q_proj": "attn_q",
    "attention.k_proj": "attn_k",
    "attention.v_proj": "attn_v",
    "attention.o_proj": "attn_output",
    "mlp_norm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ROTARY_FACTORS = "rope_freqs.weight"  # what config_to_hf makes Llama 3's rotary scaling of


def load_gguf(path: str | Path) -> Checkpoint:
    """Opens a GGUF file; only its header is read, and each tensor is decoded when it is asked for.

    Rows of the query and key projections, which GGUF keeps for rotary pairs (2i, 2i+1), come in
    the order for pairs (i, i + H/2), as everywhere in gossamer.

    Raises:
        ValueError: the file is missing, cut short or damaged, or its architecture, a tensor's type
            or its tokenizer is not supported.
    """
    path = Path(path)
    try:
        data = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise ValueError(f"GGUF file {path} cannot be read: {error}.") from error
    header = read_header(data, path)
    _refuse_what_is_not_supported(path, header)
    hf_config = config_to_hf(path, header, functools.partial(_decode, data))
    config = LlamaConfig.from_hf(hf_config)
    stored = {name: info.shape for name, info in header.tensors.items() if name != _ROTARY_FACTORS}
    check_sizes(f"GGUF file {path}", config, stored.values())
    shapes = parameter_shapes(config)
    wanted = {gguf_key(name): shape[::-1] for name, shape in shapes.items()}
    check_tensors(f"GGUF file {path}", wanted, stored)
    return Checkpoint(
        config=config,
        tensors={
            name: Tensor(
                tuple(shape),
                np.dtype(np.float32),
                functools.partial(_read, data, header.tensors[gguf_key(name)], name, config),
            )
            for name, shape in shapes.items()
        },
        tokenizer=Tokenizer.from_gguf(header.metadata),
        source={
            "name": path.stem,
            "format": "gguf",
            "file": path.name,
            "bytes": len(data),
            "sample_sha256": sample_sha256([path]),
        },
        hf_config=hf_config,
    )


def gguf_key(path: str) -> str:
    """The name that GGUF gives to a parameter of ours.

    Example:
        >>> gguf_key("layers.3.mlp.up_proj.kernel")
        'blk.3.ffn_up.weight'
    """
    module, _, leaf = path.rpartition(".")
    suffix = "bias" if leaf == "bias" else "weight"
    if not module.startswith("layers."):
        return f"{_MODULES[module]}.{suffix}"
    _, index, local = module.split(".", 2)
    return f"blk.{index}.{_MODULES[local]}.{suffix}"


def _refuse_what_is_not_supported(path: Path, header: Header) -> None:
    parts = header.metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise ValueError(
            f"GGUF file {path} is one of {parts} parts; join them first: `llama-gguf-split --merge "
            f"{path.name} WHOLE.gguf`."
        )
    odd = sorted({info.kind.name for info in header.tensors.values() if not _can_decode(info.kind)})
    if odd:
        raise ValueError(
            f"GGUF file {path} has tensors of type {', '.join(odd)}, which the gguf package cannot "
            "dequantize; convert the model to another type first."
        )


@functools.cache
def _can_decode(kind: GGMLQuantizationType) -> bool:
    """Whether `gguf` dequantizes this type: it says so only when asked to."""
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _decode(data: np.ndarray, info: TensorInfo) -> np.ndarray:
    """A tensor's values in float32, in the file's order."""
    raw = np.asarray(data[info.start : info.start + info.size])
    rows = raw.reshape(*info.shape[:-1], -1)
    return dequantize(rows, info.kind).astype(np.float32, copy=False).reshape(info.shape)


def _read(data: np.ndarray, info: TensorInfo, path: str, config: LlamaConfig) -> np.ndarray:
    return from_neighbour_pairs(path, _decode(data, info), config)
