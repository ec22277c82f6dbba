"""What one kernel becomes: pruned, quantized, stored, and its error measured."""

import dataclasses
import zlib
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gossamer.compression.prune import magnitude_mask, random_mask, wanda_mask
from gossamer.compression.sparsegpt import sparsegpt
from gossamer.packing import Packed, pack, pack_floats, why_dense
from gossamer.quantization import Codes
from gossamer.recipe import Rule
from gossamer.sparsity import NM

Method: TypeAlias = Literal["rtn", "magnitude", "random", "wanda", "sparsegpt"]
METHODS: tuple[Method, ...] = get_args(Method)
CALIBRATED: tuple[Method, ...] = ("wanda", "sparsegpt")
"""Methods that need the inputs of each kernel."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelReport:
    """What became of one kernel.

    Attributes:
        path: its name.
        shape: (in, out).
        rule: what the recipe asked for, in words.
        method: how it was done, `rtn` and `magnitude` for kernels whose inputs are not measured.
        stored: how it lies in the file, and why dense where a pattern is not stored as such.
        bits_per_weight: bits stored, scales and indices included, over in x out.
        sparsity: fraction of exact zeros among the values.
        weight_error: Frobenius norm of the change over that of the kernel.
        output_error: the same of the kernel's output on the calibration text; None without one.
    """

    path: str
    shape: tuple[int, ...]
    rule: str
    method: Method
    stored: str
    bits_per_weight: float
    sparsity: float
    weight_error: float
    output_error: float | None


def compress_kernel(
    path: str,
    kernel: Float[np.ndarray, "in out"],
    rule: Rule,
    *,
    method: Method,
    gram: Float[Array, "in in"] | None,
    seed: int,
) -> tuple[Packed | np.ndarray, KernelReport]:
    """Prunes, then quantizes, then packs one kernel as `rule` says.

    Args:
        path: the kernel's name; `random` draws from a key made of it and `seed`.
        kernel: the dense values, finite.
        rule: what to do.
        method: how; without a `gram`, Wanda and SparseGPT fall back to what needs no data, and
            the report says so.
        gram: sum of the outer products of the kernel's inputs.
        seed: for `random`.

    Raises:
        ValueError: NaN or Inf in the kernel's inputs or in the result.
    """
    if gram is not None and not bool(jnp.isfinite(gram).all()):
        raise ValueError(
            f"The inputs of {path} {kernel.shape} hold NaN or Inf on the calibration text; an "
            "earlier block overflows."
        )
    if gram is None and method in CALIBRATED:
        method = "magnitude" if rule.pattern is not None else "rtn"
    dense = jnp.asarray(kernel)
    values, mask, codes = solve(path, dense, rule, method, gram, seed)
    if not bool(jnp.isfinite(values).all()):
        raise ValueError(
            f"Compressing {path} {kernel.shape} by {method} overflows: its weights reach "
            f"{np.abs(kernel).max():.3g}; mend the source model, or leave this kernel out."
        )
    weight, stored = _store(values, mask, codes, rule)
    return weight, KernelReport(
        path=path,
        shape=kernel.shape,
        rule=rule.describe(),
        method=method,
        stored=stored,
        bits_per_weight=8 * weight.nbytes / kernel.size,
        sparsity=float(jnp.mean(values == 0)),
        weight_error=float(_relative_norm(values - dense, dense)),
        output_error=None if gram is None else float(_relative_output(values, dense, gram)),
    )


def solve(
    path: str,
    dense: Float[Array, "in out"],
    rule: Rule,
    method: Method,
    gram: Float[Array, "in in"] | None,
    seed: int,
) -> tuple[Float[Array, "in out"], Bool[Array, "in out"] | None, Codes | None]:
    """The compressed values, what stays (None: all), and the codes where there is a format."""
    if method == "sparsegpt":
        assert gram is not None
        solved = sparsegpt(dense, gram, pattern=rule.pattern, format=rule.weights)
        mask = None if rule.pattern is None else solved.mask
        return solved.values, mask, solved.codes
    mask = None
    if rule.pattern is not None:
        if method == "wanda":
            assert gram is not None
            mask = wanda_mask(dense, jnp.sqrt(jnp.diag(gram)), rule.pattern)
        elif method == "random":
            key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()))
            mask = random_mask(dense, key, rule.pattern)
        else:
            mask = magnitude_mask(dense, rule.pattern)
    pruned = dense if mask is None else jnp.where(mask, dense, 0)
    if rule.weights is None:
        return pruned, mask, None
    codes = rule.weights.encode(pruned)
    return codes.decode(), mask, codes


def _store(
    values: Float[Array, "in out"],
    mask: Bool[Array, "in out"] | None,
    codes: Codes | None,
    rule: Rule,
) -> tuple[Packed | np.ndarray, str]:
    """Packs what can be packed; says in words how the kernel lies in the file."""
    reason = None if rule.pattern is None else why_dense(rule.pattern, rule.weights)
    sparse = isinstance(rule.pattern, NM) and reason is None
    note = f" (dense: {reason})" if reason else ""
    if codes is not None:
        assert rule.weights is not None
        pattern = rule.pattern if sparse and isinstance(rule.pattern, NM) else None
        weight = pack(
            codes,
            rule.weights,
            pattern=pattern,
            mask=mask if sparse else None,
            activations=rule.activations,
        )
        return weight, f"{pattern or 'dense'} int{rule.weights.bits}{note}"
    if sparse and isinstance(rule.pattern, NM) and mask is not None:
        return pack_floats(values, rule.pattern, mask), f"{rule.pattern} float32"
    return np.asarray(values), f"dense float32{note}"


@jax.jit
def _relative_norm(change: Float[Array, "in out"], base: Float[Array, "in out"]) -> Array:
    return jnp.sqrt(jnp.sum(change**2) / jnp.maximum(jnp.sum(base**2), 1e-30))


@jax.jit
def _relative_output(
    values: Float[Array, "in out"], dense: Float[Array, "in out"], gram: Float[Array, "in in"]
) -> Array:
    """||X (W' - W)|| / ||X W|| from the Gram matrix: ||X A||^2 is the trace of A^T G A."""
    change = values - dense

    def squared(a: Float[Array, "in out"]) -> Array:
        return jnp.maximum(jnp.sum(a * jnp.matmul(gram, a)), 0)

    return jnp.sqrt(squared(change) / jnp.maximum(squared(dense), 1e-30))
