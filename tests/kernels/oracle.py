"""Packed kernels, and their products in exact arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np

from gossamer.packing import Packed, pack
from gossamer.quantization import Codes, Format, Int
from gossamer.sparsity import NM

UNIT = 2.0**-24  # of float32: what a rounding changes at most, relatively


def made(
    shape: tuple[int, int],
    format: Format,
    pattern: NM | None,
    activations: Int | None,
    seed: int = 0,
) -> tuple[Packed, Codes]:
    """A packed kernel of full-range codes, and the codes."""
    values = jax.random.normal(jax.random.key(seed), shape)
    mask = None
    if pattern is not None:
        mask = pattern.mask(jnp.abs(values), 0)
        values = jnp.where(mask, values, 0)
    codes = format.encode(values)
    return pack(codes, format, pattern, mask, activations), codes


def exact(x: jax.Array, codes: Codes, activations: Int | None) -> tuple[np.ndarray, np.ndarray]:
    """The product in float64, and the sum of the sizes of what float32 rounds on the way."""
    groups, out = codes.scales.shape
    weights = np.asarray(codes.codes, np.float64).reshape(groups, -1, out)  # exact, as are sums
    if codes.zeros is not None:
        weights = weights - np.asarray(codes.zeros, np.float64)[:, None, :]
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    if activations is None:
        inputs, scale = np.asarray(rows, np.float64), np.ones((len(rows), 1))
    else:
        quantized = activations.encode(rows.T)
        inputs = np.asarray(quantized.codes.T, np.float64)
        scale = np.asarray(quantized.scales, np.float64).T
    inputs = inputs.reshape(len(rows), groups, -1)
    scales = np.asarray(codes.scales, np.float64)
    if codes.tensor_scale is not None:
        scales = scales * np.asarray(codes.tensor_scale, np.float64)
    shares = np.einsum("bgi,gio->bgo", inputs, weights) * scales
    if activations is None:
        sizes = np.einsum("bgi,gio->bgo", np.abs(inputs), np.abs(weights)) * scales
    else:
        sizes = np.abs(shares)  # sums of integers are exact
    return shares.sum(1) * scale, sizes.sum(1) * scale
