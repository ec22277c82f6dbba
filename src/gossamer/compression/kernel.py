"""What one kernel becomes: pruned, quantized, stored, and its error measured."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gossamer.compression.methods import RTN, Magnitude, Method
from gossamer.compression.methods.method import Task
from gossamer.packing import Packed, pack, pack_floats, why_dense
from gossamer.packing.books import code_name
from gossamer.quantization import Codes
from gossamer.recipe import Rule
from gossamer.sparsity import NM


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelReport:
    """What became of one kernel.

    Attributes:
        path: its name.
        shape: (in, out).
        rule: what the recipe asked for, in words.
        method: how it was done, `rtn` and `magnitude` for kernels whose inputs are not measured.
        damping: what a solve added to the diagonal of the Hessian, as a share of its mean: more
            than asked for where it was not positive definite with that. None without a solve.
        stored: how it lies in the file, and why dense where a pattern is not stored as such.
        bits_per_weight: bits stored, scales and indices included, over in x out.
        sparsity: fraction of exact zeros among the values.
        weight_error: Frobenius norm of the change over that of the kernel, both as rescaled where
            the method rescales inputs.
        output_error: the same of the kernel's output on the calibration text; None without one.
    """

    path: str
    shape: tuple[int, ...]
    rule: str
    method: str
    damping: float | None
    stored: str
    bits_per_weight: float
    sparsity: float
    weight_error: float
    output_error: float | None


def kernel_method(method: Method, calibrated: bool, rule: Rule) -> Method:
    """The method of a kernel: one that needs no inputs where they are not measured."""
    if calibrated or not method.calibrated:
        return method
    return RTN() if rule.pattern is None else Magnitude()


def compress_kernel(task: Task, method: Method) -> tuple[Packed | np.ndarray, KernelReport]:
    """Prunes, then quantizes, then packs one kernel as its rule says.

    Args:
        task: the kernel, its rule and what is known of its inputs.
        method: how; one that needs inputs has them in `task`.

    Raises:
        ValueError: NaN or Inf in the kernel's inputs or in the result; a Hessian that no damping
            makes positive definite.
    """
    dense, rule = task.kernel, task.rule
    where = f"{task.path} {dense.shape}"
    if task.gram is not None and not bool(jnp.isfinite(task.gram).all()):
        raise ValueError(
            f"The inputs of {where} hold NaN or Inf on the calibration text; an earlier block "
            "overflows."
        )
    try:
        solved = method.compress(task)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    values = solved.values
    if not bool(jnp.isfinite(values).all()):
        raise ValueError(
            f"Compressing {where} by {method.name} overflows: its weights reach "
            f"{np.abs(dense).max():.3g}; mend the source model, or leave this kernel out."
        )
    weight, stored = _store(values, solved.mask, solved.codes, rule)
    output_error = None
    if task.gram is not None:
        output_error = float(_relative_output(values, dense, task.gram))
    return weight, KernelReport(
        path=task.path,
        shape=dense.shape,
        rule=rule.describe(),
        method=method.name,
        damping=solved.damping,
        stored=stored,
        bits_per_weight=8 * weight.nbytes / dense.size,
        sparsity=float(jnp.mean(values == 0)),
        weight_error=float(_relative_norm(values - dense, dense)),
        output_error=output_error,
    )


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
        name = code_name(rule.weights.bits, rule.weights.book)
        return weight, f"{pattern or 'dense'} {name}{note}"
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
