"""What every loader returns: a config, a tokenizer, and tensors that are read when asked for."""

import dataclasses
import difflib
import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from gossamer.data import ImageProcessing, Tokenizer
from gossamer.data.images import PREPROCESSOR
from gossamer.models import ModelConfig, OptConfig, ViTConfig
from gossamer.packing import Packed
from gossamer.quantization import Int
from gossamer.weights import Weight

Shape: TypeAlias = tuple[int, ...]

_BLOCK = re.compile(r"(\w+\.)?layers\.\d+\.")
_MOST_NAMED = 6
"""Faults of one kind that an error spells out before it counts the rest."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is not read yet.

    Attributes:
        shape: in our orientation, `[in, out]` for a kernel.
        dtype: of the values once read.
        read: gives a numpy array, or a compressed weight as the file has it.
        quantized: whether that weight has codes, which can be multiplied by quantized inputs.
    """

    shape: Shape
    dtype: np.dtype
    read: Callable[[], np.ndarray | Weight]
    quantized: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model on disk.

    Attributes:
        config: its sizes.
        tensors: our path -> tensor, for exactly the parameters of `config`.
        tokenizer: None where the source has none.
        source: where it comes from: `name`, `format`, and what identifies the files.
        hf_config: the `config.json` to save it with.
        recipe: what was done to the weights, as plain data; None leaves them as they came.
        image_processing: how images are prepared for a vision model; None where the source does
            not tell, and for other models.
    """

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer | None
    source: Mapping[str, str | int]
    hf_config: Mapping[str, Any]
    recipe: Mapping[str, Any] | None = None
    image_processing: ImageProcessing | None = None

    @property
    def paths(self) -> list[str]:
        """Names of all parameters, in the order of the model."""
        return list(self.tensors)

    def read(self, path: str) -> np.ndarray | Weight:
        """Reads one parameter.

        Raises:
            ValueError: there is none of this name.
        """
        if path not in self.tensors:
            near = difflib.get_close_matches(path, self.tensors, n=3, cutoff=0.0)
            raise ValueError(f"The model has no parameter {path!r}; near are {near}.")
        return self.tensors[path].read()

    def require_tokenizer(self) -> Tokenizer:
        """The tokenizer, for what cannot go without.

        Raises:
            ValueError: the source has none.
        """
        if self.tokenizer is None:
            raise ValueError(
                f"Model {self.source.get('name')!r} came without a tokenizer; put its "
                "tokenizer.json beside config.json (for llama2.c: tokenizer.bin beside the model)."
            )
        return self.tokenizer

    def require_image_processing(self) -> ImageProcessing:
        """How images are prepared, for what cannot go without.

        Raises:
            ValueError: the source does not tell.
        """
        if self.image_processing is None:
            raise ValueError(
                f"Model {self.source.get('name')!r} does not tell how its images are prepared; put "
                f"its {PREPROCESSOR}, with image_mean, image_std and size, beside config.json."
            )
        return self.image_processing

    def with_tensors(self, replaced: Mapping[str, np.ndarray | Weight]) -> "Checkpoint":
        """This checkpoint with some parameters replaced by weights in memory.

        Raises:
            ValueError: a name or a shape is not the model's.
        """
        for path, weight in replaced.items():
            if path not in self.tensors or tuple(weight.shape) != self.tensors[path].shape:
                known = self.tensors[path].shape if path in self.tensors else "no such parameter"
                raise ValueError(
                    f"{path!r} {tuple(weight.shape)} replaces nothing: the model has {known}."
                )
        return dataclasses.replace(
            self,
            tensors={
                path: _in_memory(replaced[path]) if path in replaced else tensor
                for path, tensor in self.tensors.items()
            },
        )

    def with_activations(self, format: Int | None) -> "Checkpoint":
        """This checkpoint with the inputs of its quantized kernels in another format.

        The stored weights stay as they are: a model compressed once can be run and evaluated with
        and without quantized activations.

        Args:
            format: each row of an input is quantized to it and integers are multiplied; None
                multiplies floats by the decoded weights.

        Raises:
            ValueError: no kernel is quantized, or kernels cannot multiply by this format.
        """
        if not any(tensor.quantized for tensor in self.tensors.values()):
            raise ValueError(
                f"Model {self.source.get('name')!r} has no quantized kernels whose inputs could be "
                "quantized; compress it with a format of weights, such as int4, first."
            )
        if format is not None and format != Int(format.bits):
            raise ValueError(
                f"Activations are quantized symmetrically, a float32 scale for each row, not as "
                f"{format}; take {Int(format.bits)}."
            )

        def changed(tensor: Tensor) -> Tensor:
            if not tensor.quantized:
                return tensor
            read = functools.partial(_with_activations, tensor, format)
            return dataclasses.replace(tensor, read=read)

        return dataclasses.replace(
            self, tensors={path: changed(tensor) for path, tensor in self.tensors.items()}
        )

    def side_files(self) -> dict[str, bytes]:
        """What stands beside the weights in a model's folder: `config.json`, and the tokenizer or
        how images are prepared.
        """
        files = {"config.json": _json(self.hf_config)}
        if self.image_processing is not None:
            files[PREPROCESSOR] = _json(self.image_processing.to_hf())
        return {**files, **(self.tokenizer.to_files() if self.tokenizer else {})}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True).encode()


def check_processing(
    where: str, config: ModelConfig, processing: ImageProcessing | None
) -> ImageProcessing | None:
    """What prepares images for a model; None for models of something else.

    Raises:
        ValueError: it makes images of another size or with other channels than the model's.
    """
    if processing is None or not isinstance(config, ViTConfig):
        return None
    made, taken = (*processing.size, len(processing.mean)), (*config.image_size, config.channels)
    if made != taken:
        raise ValueError(
            f"{where}: its {PREPROCESSOR} makes images of height, width and channels {made}, and "
            f"its config.json takes {taken}."
        )
    return processing


def parts(paths: Iterable[str]) -> list[list[str]]:
    """Groups parameters: first those outside the blocks, then each block's, in their order.

    Example:
        >>> parts(["embedding.kernel", "layers.0.mlp.up_proj.kernel", "norm.scale"])
        [['embedding.kernel', 'norm.scale'], ['layers.0.mlp.up_proj.kernel']]
    """
    groups: dict[str, list[str]] = {}
    for path in paths:
        block = _BLOCK.match(path)
        groups.setdefault(block[0] if block else "", []).append(path)
    return [groups.pop("", []), *groups.values()]


def _in_memory(weight: np.ndarray | Weight) -> Tensor:
    quantized = isinstance(weight, Packed) and weight.bits is not None
    return Tensor(tuple(weight.shape), np.dtype(weight.dtype), lambda: weight, quantized)


def _with_activations(tensor: Tensor, format: Int | None) -> Packed:
    weight = tensor.read()
    assert isinstance(weight, Packed)
    return dataclasses.replace(weight, activations=format)


def check_tensors(where: str, wanted: Mapping[str, Shape], stored: Mapping[str, Shape]) -> None:
    """Holds the tensors of a file against those of its config, in the file's names and shapes.

    Raises:
        ValueError: names all tensors that are missing, unknown or of another shape.
    """
    missing = [f"{name} {wanted[name]}" for name in wanted if name not in stored]
    unknown = [f"{name} {stored[name]}" for name in stored if name not in wanted]
    misshapen = [
        f"{name} {stored[name]} instead of {wanted[name]}"
        for name in wanted
        if name in stored and tuple(stored[name]) != tuple(wanted[name])
    ]
    faults = [
        f"{len(names)} {kind} ({_some(names)})"
        for kind, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", misshapen),
        )
        if names
    ]
    if faults:
        raise ValueError(f"{where}: the tensors are not those of its config: {'; '.join(faults)}.")


def _some(names: list[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def check_sizes(where: str, config: ModelConfig, stored: Iterable[Shape]) -> None:
    """Refuses a config that claims more than the tensors hold, before anything is made of it.

    Raises:
        ValueError: a kernel of this config has more elements than all tensors have.
    """
    shapes = list(stored)
    total = sum(math.prod(shape) for shape in shapes)
    hidden = config.hidden_size
    claims = {"blocks": config.num_blocks}
    if isinstance(config, ViTConfig):
        claims["patch_embedding"] = config.channels * math.prod(config.patch_size) * hidden
        claims["positions"] = config.num_patches * hidden
        claims["head"] = config.num_classes * hidden
    else:
        claims["embedding"] = config.vocab_size * hidden
    if isinstance(config, OptConfig):
        claims["positions"] = config.max_positions * hidden
    if config.num_blocks:
        claims["mlp"] = hidden * config.intermediate_size
        claims["attention"] = hidden * config.num_heads * config.head_dim
    limits = {"blocks": len(shapes)}
    for name, size in claims.items():
        if size > (limit := limits.get(name, total)):
            raise ValueError(
                f"{where}: its config claims {size} for {name}, but its tensors are {len(shapes)} "
                f"with {total} elements: {limit} at most; the config belongs to another model, or "
                "the file is damaged."
            )
