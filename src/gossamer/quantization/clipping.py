"""Grids that end before the largest element, where the error of all the others is less so."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Num

Groups: TypeAlias = Float[Array, "groups group out"]
Grid: TypeAlias = tuple[Float[Array, "groups out"], Int8[Array, "groups out"] | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSearch:
    """Tries shares of the largest element, and keeps the one whose group has the least error.

    Attributes:
        lowest: the smallest share, above 0; the largest is 1.
        candidates: how many shares, evenly spaced, 2 or more.
        norm: the power p of the error, sum of |x - q(x)|^p.

    Source: the search of GPTQ's released code (`mse=True`: shares 1 to 0.2 by 0.01, p = 2.4) and of
    praxis (`clip_optimization`: p = 1) with other numbers; OBR uses GPTQ's.
    """

    lowest: float = 0.2
    candidates: int = 41
    norm: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.lowest < 1 or self.candidates < 2 or self.norm <= 0:
            raise ValueError(
                "ClipSearch needs 0 < lowest < 1, candidates >= 2 and norm > 0, got "
                f"{self.lowest}, {self.candidates} and {self.norm}."
            )

    def choose(
        self,
        groups: Groups,
        reaching: Callable[[Groups, Float[Array, ""]], Grid],
        round_to: Callable[[Groups, Array, Array | None], Num[Array, "groups group out"]],
    ) -> Grid:
        """The grid of the best share, a group at a time; of equal ones, the largest.

        Args:
            groups: the elements.
            reaching: makes the grids for a share.
            round_to: codes of the elements for scales and zero points.
        """

        def error(grid: Grid) -> Float[Array, "groups out"]:
            scales, zeros = (None if part is None else part[:, None, :] for part in grid)
            assert scales is not None
            codes = round_to(groups, scales, zeros).astype(jnp.float32)
            values = (codes if zeros is None else codes - zeros) * scales
            return jnp.sum(jnp.abs(groups - values) ** self.norm, axis=1)

        def step(
            best: tuple[Array, Grid], share: Float[Array, ""]
        ) -> tuple[tuple[Array, Grid], None]:
            least, kept = best
            grid = reaching(groups, share)
            now = error(grid)
            better = now < least
            chosen = jax.tree.map(lambda new, old: jnp.where(better, new, old), grid, kept)
            return (jnp.minimum(now, least), chosen), None

        shares = np.linspace(1, self.lowest, self.candidates, dtype=np.float32)
        widest = reaching(groups, jnp.float32(1))
        (_, grid), _ = jax.lax.scan(step, (error(widest), widest), jnp.asarray(shares[1:]))
        return grid
