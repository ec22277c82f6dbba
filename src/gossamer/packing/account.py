"""Where the bits of a stored tensor go, to the byte."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from gossamer.packing.layout import LANES
from gossamer.packing.packed import Packed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """Bits of a tensor, plane by plane; together they are its bytes on disk times 8.

    Attributes:
        weights: elements that the tensor stands for, zeros included.
        values: codes, or floats.
        indices: which weights are kept.
        scales: scales of codes, that of the tensor included.
        zeros: zero points.
        padding: all that the unused lanes of the last tile hold, of every plane.
    """

    weights: int
    values: int
    indices: int = 0
    scales: int = 0
    zeros: int = 0
    padding: int = 0

    @property
    def bits(self) -> int:
        """Bits in all."""
        return self.values + self.indices + self.scales + self.zeros + self.padding

    @property
    def nbytes(self) -> int:
        """Bytes in all: what the planes take on disk."""
        return self.bits // 8

    @property
    def bits_per_weight(self) -> float:
        """Bits in all for each element that the tensor stands for."""
        return self.bits / self.weights if self.weights else 0.0


def account(weight: Packed | jax.Array | np.ndarray) -> Account:
    """Counts the bits of a tensor.

    Example:
        >>> account(np.zeros((2, 3), np.float32)).bits
        192
    """
    if not isinstance(weight, Packed):
        return Account(weights=weight.size, values=8 * weight.nbytes)
    planes = {
        "values": weight.values,
        "indices": weight.indices,
        "scales": weight.scales,
        "zeros": weight.zeros,
        "tensor_scale": weight.tensor_scale,
    }
    sizes = {name: plane.nbytes for name, plane in planes.items() if plane is not None}
    return account_planes(weight.shape, sizes)


def account_planes(shape: tuple[int, ...], sizes: Mapping[str, int]) -> Account:
    """Counts the bits of the packed kernel `[in, out]` whose planes have these sizes in bytes."""
    size, out = shape[-2:]
    lanes = out + -out % LANES
    # Every plane has the same number of bytes for each lane.
    sizes = dict(sizes)
    whole = 8 * sizes.pop("tensor_scale", 0)  # of all lanes together
    used = {name: 8 * nbytes // lanes * out if lanes else 0 for name, nbytes in sizes.items()}
    padding = 8 * sum(sizes.values()) - sum(used.values())
    used["scales"] = used.get("scales", 0) + whole
    return Account(weights=size * out, padding=padding, **used)
