"""STEP: learning masks with a second moment that was learned without them."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from gossamer.parameters import leaves_by_path, replace_leaves
from gossamer.sparsity.distributions import density
from gossamer.sparsity.methods._dense import DenseStorage
from gossamer.sparsity.methods.method import SparseOptimizer, SparseState
from gossamer.sparsity.patterns import Pattern
from gossamer.sparsity.schedules import Periodic, Schedule, Step


class AutoSwitchMemory(NamedTuple):
    """What AutoSwitch remembers.

    Attributes:
        changes: the last samples of the second moment's change, float32, a ring of 1 / (1 - b2).
        switched_at: steps done when masks began, int32; -1 before.
        settled: whether the test chose that step, and not the latest step allowed.
    """

    changes: Any
    switched_at: Any
    settled: Any


class FreezingAdamState(NamedTuple):
    """Adam's state, the step at which second moments froze, and how much they changed last."""

    count: Any  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any
    nu: Any
    frozen_at: Any
    change: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class STEP(DenseStorage):
    r"""Adam on the dense model first; then masks, with the second moment of their weights frozen.

    From the switch on gradients at the masked weights go straight through, and the step of a
    selected weight is :math:`\hat m / \sqrt{\hat v_{t_0} + \epsilon}`, with the bias of v corrected
    where it froze. All other weights go on with Adam. AutoSwitch takes the first step after
    `earliest` at which the change of v, averaged over its weights and the last 1 / (1 - b2) steps,
    is below `eps`, and `latest` if none comes.

        method = STEP(recipe=recipe, earliest=1000, latest=5000)
        optimizer = method.wrap(optax.chain(method.scale_by_adam(), optax.scale(-1e-3)))

    Attributes:
        earliest: T_min in steps; the paper has 10 % of the run.
        latest: T_max in steps; the paper has 50 % of the run.
        change_mean: how the change is averaged over weights. A single one whose v did not change
            at all makes the geometric mean 0.
        b1: of Adam.
        b2: of Adam.
        eps: of Adam, and the threshold.

    Source: Lu et al. 2023, arXiv 2302.01172, with details from huyz2023/2by4-pretrain: whether the
    authors freeze v for all weights is not known here. From the switch on eps is inside the root as
    in the paper: a weight whose v was 0 could take any step otherwise.
    """

    earliest: int
    latest: int
    change_mean: Literal["arithmetic", "geometric"] = "arithmetic"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    schedule: Schedule = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.earliest <= self.latest:
            raise ValueError(
                f"STEP switches between earliest and latest, got earliest={self.earliest}, "
                f"latest={self.latest}."
            )
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1 and self.eps > 0):
            raise ValueError(
                f"STEP needs b1 and b2 in [0, 1) and eps > 0, got {self.b1}, {self.b2}, {self.eps}."
            )
        object.__setattr__(self, "schedule", Periodic())

    def scale_by_adam(self) -> optax.GradientTransformationExtraArgs:
        """Adam whose second moments can be frozen: for the chain inside `wrap`."""
        return _freezing_adam(self.b1, self.b2, self.eps)

    def wrap(self, inner: optax.GradientTransformation) -> SparseOptimizer:
        """`inner` inside this method; it must hold `scale_by_adam()` of this method.

        Raises:
            ValueError: when it is initialised, if it does not.
        """
        wrapped = super().wrap(inner)

        def init(params: Any) -> Any:
            state: Any = wrapped.init(params)
            if _adam(state.inner) is None:
                raise ValueError(
                    "STEP freezes Adam's second moment, and there is none of its kind inside: use "
                    "method.scale_by_adam() in the place of optax.scale_by_adam(), such as "
                    "method.wrap(optax.chain(method.scale_by_adam(), optax.scale(-1e-3)))."
                )
            return state

        return SparseOptimizer(init, wrapped.update, wrapped.refresh)

    def density(self, pattern: Pattern, step: Step) -> Float[Array, ""]:
        """All of it to the latest step of the switch, which may come earlier."""
        return jnp.where(step <= self.latest, 1.0, density(pattern))

    def switched(self, at: int) -> "STEP":
        """The same with a switch whose first masks are in the forward pass of step `at`."""
        return dataclasses.replace(self, earliest=min(self.earliest, at - 1), latest=at - 1)

    def first_masks(self, params: Any) -> dict[str, Bool[Array, "*dims"]]:
        """All of every weight."""
        return {
            path: jnp.ones_like(weight, jnp.bool_) for path, weight in self.selected(params).items()
        }

    def first_memory(self, params: Any) -> AutoSwitchMemory:
        """An empty window."""
        del params
        return AutoSwitchMemory(
            jnp.zeros(max(int(1 / (1 - self.b2) + 0.5), 1)),
            jnp.full((), -1, jnp.int32),
            jnp.zeros((), jnp.bool_),
        )

    def extra(self, state: SparseState, params: Any) -> dict[str, Any]:
        """Which second moments are frozen at this step."""
        del params
        return {"freeze": dict.fromkeys(state.masks, state.memory.switched_at >= 0)}

    def after(
        self, updates: Any, inner: Any, state: SparseState, params: Any
    ) -> tuple[Any, Any, SparseState]:
        """Tests for the switch, and renews the masks once it is there."""
        adam = _adam(inner)
        assert adam is not None
        memory = self._test(state, leaves_by_path(adam.change), self.selected(params))
        state = dataclasses.replace(state, memory=memory)
        learned = super().after(updates, inner, state, params)[2]
        # Chosen, not branched: a branch would cost more than the comparison of pairs that it saves.
        on = memory.switched_at >= 0
        return updates, inner, jax.tree.map(lambda a, b: jnp.where(on, a, b), learned, state)

    def _test(
        self, state: SparseState, changes: dict[str, Array], weights: dict[str, Array]
    ) -> AutoSwitchMemory:
        """AutoSwitch, after the optimizer's step number `state.step`, counted from 1."""
        memory, step = state.memory, state.step
        size = sum(weight.size for weight in weights.values())
        row = 0 if self.change_mean == "arithmetic" else 1
        mean = sum(changes[path][row] for path in weights) / size
        sample = mean if row == 0 else jnp.exp(mean)
        window = memory.changes.at[(step - 1) % memory.changes.size].set(sample)
        average = window.sum() / jnp.minimum(step, window.size)
        settled = (step > self.earliest) & (average < self.eps)
        now = (memory.switched_at < 0) & (settled | (step > self.latest))
        return AutoSwitchMemory(
            window,
            jnp.where(now, step, memory.switched_at),
            jnp.where(now, settled, memory.settled),
        )


def _adam(state: Any) -> FreezingAdamState | None:
    """The state of the Adam that can freeze; None if there is none."""
    is_adam = lambda leaf: isinstance(leaf, FreezingAdamState)  # noqa: E731
    found = [leaf for leaf in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(leaf)]
    return found[0] if found else None


def _freezing_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformationExtraArgs:
    """Adam as optax has it, until some second moments are frozen."""

    def init(params: Any) -> FreezingAdamState:
        nothing = jnp.zeros((), jnp.int32)
        mu, nu = (optax.tree_utils.tree_zeros_like(params) for _ in range(2))
        return FreezingAdamState(
            nothing, mu, nu, nothing, jax.tree.map(lambda _: jnp.zeros(2), params)
        )

    def update(
        updates: Any, state: Any, params: Any = None, *, freeze: Any = None, **extra: Any
    ) -> tuple[Any, FreezingAdamState]:
        del params, extra
        flags: dict[str, Array] = freeze or {}
        never = jnp.zeros((), jnp.bool_)
        count = jnp.asarray(optax.safe_increment(state.count))
        frozen_at = jnp.where(next(iter(flags.values()), never), state.frozen_at, count)
        mu = optax.tree_utils.tree_update_moment(updates, state.mu, b1, 1)
        free = optax.tree_utils.tree_update_moment_per_elem_norm(updates, state.nu, b2, 2)
        old, new = leaves_by_path(state.nu), leaves_by_path(free)
        nu = replace_leaves(free, {p: jnp.where(on, old[p], new[p]) for p, on in flags.items()})
        means = leaves_by_path(optax.tree_utils.tree_bias_correction(mu, b1, count))
        steps = {}
        for path, square in leaves_by_path(nu).items():
            on = flags.get(path, never)
            since = jnp.where(on, frozen_at, count)
            unbiased = optax.tree_utils.tree_bias_correction(square, b2, since)
            steps[path] = _step(means[path], unbiased, on, eps)
        change = jax.tree.map(_change, nu, state.nu)
        return replace_leaves(mu, steps), FreezingAdamState(count, mu, nu, frozen_at, change)

    return optax.GradientTransformationExtraArgs(init, update)


def _step(mean: Array, square: Array, on: Array, eps: float) -> Array:
    """Adam's step of moments without bias; eps is inside the root where v is frozen."""
    size = jnp.where(on, jnp.sqrt(square + eps), jnp.sqrt(square) + eps)
    return (mean / size).astype(mean.dtype)


def _change(new: Array, old: Array) -> Float[Array, " 2"]:
    """Sums of the change and of its logarithm."""
    change = jnp.abs(new.astype(jnp.float32) - old.astype(jnp.float32))
    return jnp.stack([change.sum(), jnp.log(change).sum()])
