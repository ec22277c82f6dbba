"""Cases of a product, and calls that make it with our packed kernel."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gossamer.kernels.pages import use_huge_pages
from gossamer.packing import Packed, pack
from gossamer.quantization import Codes, Int
from gossamer.sparsity import NM

MEMORY_BYTES = 256e6
ROWS_IN_A_CALL = 16  # at least, so that calling costs little


@dataclasses.dataclass(frozen=True)
class Case:
    """One kernel and how it is read."""

    size: int  # in
    out: int
    group: int
    rows: int
    bits: int
    pattern: NM | None
    activations: Int | None
    from_memory: bool

    def __str__(self) -> str:
        return f"{self.kernel} x {self.inputs}, {self.shape}"

    @property
    def kernel(self) -> str:
        """What its weights are."""
        return f"{'dense' if self.pattern is None else self.pattern} int{self.bits}"

    @property
    def inputs(self) -> str:
        """What the activations become."""
        return "floats" if self.activations is None else f"int{self.activations.bits}"

    @property
    def shape(self) -> str:
        """What does not depend on the numbers' formats."""
        place = "memory" if self.from_memory else "cache"
        rows = f"{self.rows} {'row' if self.rows == 1 else 'rows'}"
        return f"[{self.size}, {self.out}], groups of {self.group}, {rows}, from {place}"


@dataclasses.dataclass(frozen=True)
class Timed:
    """A call that makes several products, and gives them: the first is that of `x` as it is."""

    name: str
    call: Callable[[], Sequence]
    products: int


Peers = Iterator[Timed]
"""What one library makes of a case, of rows and a float kernel [in, out]."""


def random_packed(case: Case, seed: int) -> Packed:
    """Codes as a trained kernel's would be, small ones more often."""
    random = np.random.default_rng(seed)
    format = Int(case.bits, group=case.group, scale="bfloat16")
    shape = (case.size, case.out)
    draws = random.integers(1, format.qmax + 1, shape, dtype=np.int8)
    codes = draws * random.choice(np.array([-1, 1], np.int8), shape)
    mask = None
    if case.pattern is not None:
        order = random.random((case.size // case.pattern.m, case.pattern.m, case.out))
        rank = np.argsort(np.argsort(order, axis=1), axis=1)
        mask = (rank < case.pattern.n).reshape(shape)
        codes = codes * mask
    scales = jnp.full((case.size // case.group, case.out), 2.0**-7)
    mask = None if mask is None else jnp.asarray(mask)
    return pack(Codes(jnp.asarray(codes), scales), format, case.pattern, mask, case.activations)


def check(kernel: Packed, x: jax.Array) -> None:
    """Against float64 on the kernel's values; int8 activations are allowed their rounding."""
    want = np.asarray(x, np.float64) @ np.asarray(kernel.materialize(), np.float64)
    got = np.asarray(kernel.dot(x))
    tolerance = 1e-4 if kernel.activations is None else 2e-2
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want), str(kernel.shape)


def rotation(case: Case, nbytes: float) -> int:
    """How many kernels of so many bytes are taken in turns."""
    return max(1, int(np.ceil(MEMORY_BYTES / nbytes))) if case.from_memory else 1


def in_a_call(case: Case, kernels: int = 1) -> int:
    """How many products a call is: with every kernel one, and more of few rows."""
    return max(kernels, -(-ROWS_IN_A_CALL // case.rows))


def several(x: jax.Array, count: int) -> list[jax.Array]:
    """Inputs that differ, so that no compiler makes one product of many."""
    return [x * (1 + index / 64) for index in range(count)]


def int4_codes(values: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `values` [in, out]: codes [out, in / group, group], of which 8 is zero, and scales."""
    groups = values.T.reshape(values.shape[1], -1, group)
    scales = np.abs(groups).max(-1) / 7
    codes = np.rint(groups / scales[..., None]) + 8
    return codes.astype(np.uint8), scales


def ours(case: Case, x: jax.Array) -> tuple[Timed, int]:
    """Products with kernels in turns, and a kernel's bytes."""
    first = random_packed(case, 0)
    check(first, x)
    # A stack of copies in huge pages, as a model's layers lie: the same numbers in other memory.
    count = rotation(case, first.nbytes)
    kernels = jax.tree.map(lambda plane: jnp.stack([plane] * count), first)
    use_huge_pages(jax.tree.leaves(kernels))
    inputs = several(x, in_a_call(case, count))

    @jax.jit
    def multiply(inputs: list[jax.Array], kernels: Packed) -> list[jax.Array]:
        return [kernels.at(jnp.int32(i % count)).dot(x) for i, x in enumerate(inputs)]

    timed = Timed("ours", lambda: jax.block_until_ready(multiply(inputs, kernels)), len(inputs))
    return timed, first.nbytes
