"""What every sparse-training method is: four pure functions around an optax optimizer."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from gossamer.parameters import array_leaves, leaves_by_path, replace_leaves
from gossamer.sparsity.distributions import Distribution, density, distribute
from gossamer.sparsity.masks import Mask
from gossamer.sparsity.methods._selection import Selection, check_selected
from gossamer.sparsity.patterns import Pattern
from gossamer.sparsity.schedules import Step

Params = TypeVar("Params")
Weights = dict[str, Array]


@struct.dataclass
class SparseState:
    """What a method keeps between steps; part of the optimizer's state, and a pytree.

    Attributes:
        step: optimizer steps done, int32.
        masks: what is kept of each selected weight, by its path.
        flips: how many weights the last step kept or pruned anew, int32, by path.
        memory: what the method needs beyond that.
        method: whose state it is.
    """

    # Not typed further: a tree of shapes or of shardings has the same class.
    step: Any
    masks: dict[str, Mask]
    flips: dict[str, Any]
    memory: Any
    method: "Method" = struct.field(pytree_node=False)


class WrappedState(NamedTuple):
    """The state of an optimizer that a method wraps."""

    sparse: SparseState
    inner: optax.OptState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A sparse-training method: hyper-parameters, and what happens around an optimizer's step.

        optimizer = method.wrap(optax.adamw(1e-3))
        state = optimizer.init(params)
        # every step:
        weights = method.weights(params, state)
        gradients = jax.grad(loss)(weights, batch)
        updates, state = optimizer.update(gradients, state, params, weights=weights)
        params = optax.apply_updates(params, updates)

    Gradients are those at the weights that the forward pass sees. What becomes of them at a weight
    that is pruned, the gradient flow, is the method's, in `update`, and nowhere else.

    Attributes:
        recipe: which weights have which pattern; rules without a pattern select nothing here.
        axis: the axis that products sum over: -2 is `in` of a kernel `[in, out]`, of stacked
            kernels `[layers, in, out]` and of a convolution's `[height, width, in, out]`.
        distribution: how the sparsity of a rule is shared among the weights that it selects.
        packed: masks take a bit a weight instead of a byte.
        seed: for what is drawn; a weight's draws depend on its path and the step alone.
    """

    recipe: Selection
    axis: int = -2
    distribution: Distribution = "uniform"
    packed: bool = False
    seed: int = 0

    def init(self, params: Any) -> SparseState:
        """Masks and counters for the weights that the recipe selects.

        Raises:
            ValueError: nothing is selected, or what is selected cannot have its pattern.
        """
        step = jnp.zeros((), jnp.int32)
        if not any(True for _ in array_leaves(params)):
            # optax asks with a placeholder which parts of the state are like parameters: none.
            nothing: Any = 0
            return SparseState(step, masks=nothing, flips=nothing, memory=nothing, method=self)
        self._check(params)
        first = self.first_masks(params)
        return SparseState(
            step=step,
            masks={path: Mask.of(keep, self.packed) for path, keep in first.items()},
            flips=no_flips(first),
            memory=self.first_memory(params),
            method=self,
        )

    def weights(self, params: Params, state: Any) -> Params:
        """What the forward pass sees, in training and evaluation.

        Args:
            params: what is trained.
            state: the optimizer's state, or the part that `find` gives.

        Returns:
            `params` with other values for what is selected, and the same objects elsewhere.

        Raises:
            ValueError: the state holds none of this method's, or several.
        """
        return replace_leaves(params, self.forward(self.selected(params), self.find(state)))

    def update(
        self, grads: Params, state: SparseState, params: Params
    ) -> tuple[Params, SparseState]:
        """What the optimizer sees of gradients at the forward weights; masks may change here."""
        del params
        return grads, state

    def after(
        self, updates: Params, inner: Any, state: SparseState, params: Params
    ) -> tuple[Params, Any, SparseState]:
        """What becomes of the optimizer's updates and of its state; masks may change here too."""
        del params
        return updates, inner, state

    def first_masks(self, params: Any) -> dict[str, Bool[Array, "*dims"]]:
        """The masks before the first step: all of every weight."""
        return {
            path: jnp.ones_like(weight, jnp.bool_) for path, weight in self.selected(params).items()
        }

    def first_memory(self, params: Any) -> Any:
        """What the method remembers before the first step."""
        del params
        return ()

    def forward(self, weights: Weights, state: SparseState) -> Weights:
        """What the forward pass sees of the selected weights."""
        return {path: mask.apply(weights[path]) for path, mask in state.masks.items()}

    def density(self, pattern: Pattern, step: Step) -> float | Float[Array, ""]:
        """The fraction of a weight of this pattern that the forward pass of a step multiplies by.

        What is scaled down but not 0 counts; where weights share a target, it is their mean.
        """
        del step
        return density(pattern)

    def masks_gradients(self, step: Step) -> bool | Bool[Array, ""]:
        """Whether this step needs no gradient of what is pruned, so that none is computed."""
        del step
        return False

    def settled(self, pattern: Pattern, step: Step) -> bool:
        """Whether the forward pass of this step and of all later ones has the pattern in full."""
        # Shares are equal within float32's rounding.
        return bool(self.density(pattern, step) <= density(pattern) + 1e-6)

    def switched(self, at: int) -> "Method":
        """The method as it turned out, with the first masks in the forward pass of step `at`.

        Raises:
            ValueError: when its masks begin is no outcome of training.
        """
        raise ValueError(
            f"{type(self).__name__} does not find by itself when its masks begin, so it cannot "
            f"have switched at step {at}: STEP does."
        )

    def skips(self, state: SparseState) -> Bool[Array, ""] | None:
        """Whether this step is the masks' alone; None for methods that always run the optimizer."""
        del state
        return None

    def refresh(
        self,
        grads: Any,
        inner_state: Any,
        state: SparseState,
        params: Any,
        inner: optax.GradientTransformation,
    ) -> tuple[Any, SparseState]:
        """The optimizer's state and this method's with the masks that are due at its step."""
        del grads, params, inner
        return inner_state, state

    def extra(self, state: SparseState, params: Any) -> dict[str, Any]:
        """Further arguments for the inner optimizer."""
        del state, params
        return {}

    def wrap(self, inner: optax.GradientTransformation) -> "SparseOptimizer":
        """`inner` inside this method: an ordinary optax optimizer whose state carries the masks.

        Further keyword arguments of `update` go to `inner`. Transformations before it in a chain
        see the gradients at the forward weights; those inside it what `update` makes of them.
        """
        inner = optax.with_extra_args_support(inner)

        def init(params: Any) -> WrappedState:
            return WrappedState(self.init(params), inner.init(params))

        def update(
            grads: Any,
            state: WrappedState,
            params: Any = None,
            *,
            weights: Any = None,
            **extra: Any,
        ) -> tuple[Any, WrappedState]:
            self._check_forward(params, weights)

            def run(grads: Any, inner_state: Any, sparse: SparseState) -> tuple[Any, ...]:
                grads, sparse = self.update(grads, sparse, params)
                more = extra | self.extra(sparse, params)
                return *inner.update(grads, inner_state, params, **more), sparse

            def masks_alone(grads: Any, inner_state: Any, sparse: SparseState) -> tuple[Any, ...]:
                shapes = jax.eval_shape(run, grads, inner_state, sparse)[0]
                nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
                return nothing, *self.refresh(grads, inner_state, sparse, params, inner)

            skip, parts = self.skips(state.sparse), (grads, state.inner, state.sparse)
            if skip is None:
                updates, inner_state, sparse = run(*parts)
            else:
                updates, inner_state, sparse = jax.lax.cond(skip, masks_alone, run, *parts)
            sparse = dataclasses.replace(sparse, step=optax.safe_increment(sparse.step))
            updates, inner_state, sparse = self.after(updates, inner_state, sparse, params)
            return updates, WrappedState(sparse, inner_state)

        def refresh(grads: Any, state: Any, params: Any) -> Any:
            mine = self.find(state)

            def one(leaf: Any) -> Any:
                if not isinstance(leaf, WrappedState) or leaf.sparse is not mine:
                    return leaf
                inner_state, sparse = self.refresh(grads, leaf.inner, mine, params, inner)
                return WrappedState(sparse, inner_state)

            return jax.tree.map(one, state, is_leaf=lambda leaf: isinstance(leaf, WrappedState))

        return SparseOptimizer(init, update, refresh)

    def find(self, state: Any) -> SparseState:
        """This method's part of an optimizer's state.

        Raises:
            ValueError: there is none, or more than one.
        """
        leaves = jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, SparseState))
        found = [leaf for leaf in leaves if isinstance(leaf, SparseState)]
        mine = [leaf for leaf in found if leaf.method == self]
        if len(mine) != 1:
            others = sorted({type(leaf.method).__name__ for leaf in found})
            raise ValueError(
                f"{type(self).__name__} finds {len(mine)} states of its own in this optimizer "
                f"state, which holds states of {others}; give the state that "
                "`method.wrap(optimizer).init(params)` made, with the same method."
            )
        return mine[0]

    def masks(self, params: Any, state: Any) -> dict[str, Bool[Array, "*dims"]]:
        """True where a weight is kept, by path: to look at, to save, to give to another method."""
        found, weights = self.find(state).masks, self.selected(params)
        return {path: mask.keep(weights[path].shape) for path, mask in found.items()}

    def with_masks(self, state: Any, masks: Mapping[str, Bool[Array | np.ndarray, "*dims"]]) -> Any:
        """The optimizer's state with these masks instead.

        Raises:
            ValueError: a path is not selected, or a mask has another shape than its weight.
        """
        mine = self.find(state)
        new = {path: Mask.of(jnp.asarray(keep), self.packed) for path, keep in masks.items()}
        if unknown := sorted(set(new) - set(mine.masks)):
            raise ValueError(f"No mask is kept for {unknown}; masks are for {sorted(mine.masks)}.")
        for path, mask in new.items():
            if mask.stored.shape != (want := mine.masks[path].stored.shape):
                raise ValueError(
                    f"The mask of {path} has shape {masks[path].shape}; {want} is needed"
                    f"{', after packing' if self.packed else ''}."
                )
        changed = dataclasses.replace(mine, masks={**mine.masks, **new})
        is_sparse = lambda leaf: isinstance(leaf, SparseState)  # noqa: E731
        return jax.tree.map(
            lambda leaf: changed if leaf is mine else leaf, state, is_leaf=is_sparse
        )

    def patterns(self, params: Any) -> dict[str, Pattern]:
        """The pattern of every weight that is selected, its sparsity as the distribution says."""
        arrays = leaves_by_path(params)
        rules = self.recipe.match(arrays)
        return distribute(
            {
                path: (rule.path, rule.pattern, arrays[path].shape)
                for path, rule in rules.items()
                if rule.pattern is not None
            },
            self.distribution,
        )

    def selected(self, params: Any) -> Weights:
        """The weights that have a pattern, by path."""
        arrays = leaves_by_path(params)
        rules = self.recipe.match(arrays)
        return {path: arrays[path] for path, rule in rules.items() if rule.pattern is not None}  # pyright: ignore

    def key(self, path: str, step: Int[Array, ""] | int) -> jax.Array:
        """A random key for one weight at one step, whatever other weights there are."""
        name = zlib.crc32(path.encode()) & 0x7FFFFFFF
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), name), step)

    def change(self, state: SparseState, keep: Mapping[str, Bool[Array, "*dims"]]) -> SparseState:
        """The state with these masks, and how many places of each differ."""
        masks = {path: Mask.of(keep[path], self.packed) for path in state.masks}
        flips = {path: masks[path].flips(old) for path, old in state.masks.items()}
        return dataclasses.replace(state, masks=masks, flips=flips)

    def _check(self, params: Any) -> None:
        """Raises ValueError for all that cannot be pruned; warns of embeddings."""
        arrays = leaves_by_path(params)
        rules = self.recipe.match(arrays)
        check_selected(type(self).__name__, rules, arrays, self.axis)

    def _check_forward(self, params: Any, weights: Any) -> None:
        """Raises ValueError where the forward pass cannot have seen this method's weights."""
        name = type(self).__name__
        if params is None:
            raise ValueError(
                f"{name} needs the parameters: call update(grads, state, params, ...)."
            )
        advice = (
            "take gradients at `weights = method.weights(params, state)` and give them to "
            "`update(grads, state, params, weights=weights)`"
        )
        if weights is None:
            raise ValueError(f"{name} was not told what the forward pass saw; {advice}.")
        seen, mine = leaves_by_path(weights), self.selected(params)
        if same := [path for path, weight in mine.items() if seen.get(path) is weight]:
            raise ValueError(
                f"{name}: the forward pass saw {same[0]} as it is stored, not sparse; {advice}."
            )


class SparseOptimizer(optax.GradientTransformationExtraArgs):
    """An optax optimizer inside a method, with what the host calls if it drives the masks.

    `refresh(grads, state, params)` gives the state with the masks that are due at its step.
    """

    refresh: Callable[[Any, Any, Any], Any]

    def __new__(cls, init: Any, update: Any, refresh: Any) -> "SparseOptimizer":
        """Three functions, of which optax knows the first two."""
        optimizer = super().__new__(cls, init, update)
        optimizer.refresh = refresh
        return optimizer


def no_flips(masks: Mapping[str, Any]) -> dict[str, Int[Array, ""]]:
    """No change in any mask."""
    return {path: jnp.zeros((), jnp.int32) for path in masks}


def mask_gradients(grads: Params, masks: Mapping[str, Mask]) -> Params:
    """Gradients with zeros for what is pruned."""
    values = leaves_by_path(grads)
    return replace_leaves(grads, {path: mask.apply(values[path]) for path, mask in masks.items()})


def zero_pruned(updates: Params, params: Params, masks: Mapping[str, Mask]) -> Params:
    """Updates that leave exactly 0 where a mask keeps nothing."""
    stored, changes = leaves_by_path(params), leaves_by_path(updates)
    new = {
        path: jnp.where(mask.keep(stored[path].shape), changes[path], -stored[path])
        for path, mask in masks.items()
    }
    return replace_leaves(updates, new)
