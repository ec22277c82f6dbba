"""XLA's own products: float32 with the kernel in either orientation, bfloat16 and int8."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from products import Case, Peers, Timed, in_a_call, rotation, several


def xla_peers(case: Case, x: jax.Array, values: np.ndarray) -> Peers:
    """Products with `values` [in, out] in every format."""
    for name, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16), ("int8", jnp.int8)):
        kernel = jnp.asarray(values * (20 if name == "int8" else 1)).astype(dtype)
        count = rotation(case, kernel.nbytes)
        inputs = [row.astype(dtype) for row in several(20 * x, in_a_call(case, count))]
        result = jnp.int32 if name == "int8" else jnp.float32
        for form in ("ri,io->ro", "ri,oi->ro") if name == "float32" else ("ri,io->ro",):
            laid = kernel.T if form == "ri,oi->ro" else kernel
            copies = [jnp.copy(laid) for _ in range(count)]
            label = f"XLA {name} [out, in]" if form == "ri,oi->ro" else f"XLA {name}"
            yield Timed(label, _call(form, inputs, copies, result), len(inputs))


def _call(
    form: str, inputs: list[jax.Array], kernels: list[jax.Array], result: type
) -> Callable[[], Sequence[jax.Array]]:
    """A call that multiplies every input by the kernels in turns."""

    @jax.jit
    def multiply(inputs: list[jax.Array], kernels: list[jax.Array]) -> list[jax.Array]:
        return [
            jnp.einsum(form, x, kernels[i % len(kernels)], preferred_element_type=result)
            for i, x in enumerate(inputs)
        ]

    return lambda: jax.block_until_ready(multiply(inputs, kernels))
