"""Computes cases in this process, by the kernels that it has chosen."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from gossamer.selftest.cases import Case


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How a computed result compares with the exact one.

    Attributes:
        what: was computed.
        shape: of it, in words.
        relative_error: the largest, relative to the sizes of what the result sums; NaN where a
            result is NaN.
        allowed: the largest that roundings explain.
    """

    what: str
    shape: str
    relative_error: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether roundings explain the error."""
        return self.relative_error <= self.allowed


def compare(cases: Sequence[Case]) -> list[Comparison]:
    """Computes all cases on the CPU, in one program: compiling each would take most of the time.

    Raises:
        RuntimeError: a kernel is missing or refuses.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        results = jax.jit(lambda: [case.compute() for case in cases])()
    return [
        Comparison(
            what=case.what,
            shape=case.shape,
            relative_error=float(np.max(np.abs(np.asarray(got) - case.exact) / case.sizes)),
            allowed=case.allowed,
        )
        for case, got in zip(cases, results, strict=True)
    ]
