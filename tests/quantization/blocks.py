"""One block as a kernel of one output, and codes as the bits that they are stored in."""

import jax.numpy as jnp
import numpy as np

from gossamer.packing.books import fields_of
from gossamer.quantization import Codes, Format


def block(values: list[float], size: int) -> jnp.ndarray:
    """The values, then zeros, as a kernel `[size, 1]`."""
    return jnp.zeros((size, 1)).at[: len(values), 0].set(jnp.array(values))


def fields(codes: Codes, format: Format) -> np.ndarray:
    """What is stored for each element."""
    octets = np.asarray(codes.codes).view(np.uint8)
    return octets if format.book is None else fields_of(format.book)[octets]
