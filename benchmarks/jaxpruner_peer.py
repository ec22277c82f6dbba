"""JaxPruner as the peer of our sparse training, mended where today's JAX has left it behind.

It is no dependency: install it from its repository into a scratch environment, beside gossamer.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax


@functools.cache
def load() -> Any:
    """JaxPruner, with the alias that JAX has removed; weights without a mask are told by None."""
    if not hasattr(jax, "tree_map"):
        jax.tree_map = functools.partial(jax.tree.map, is_leaf=lambda leaf: leaf is None)
    import jaxpruner
    from jaxpruner.algorithms import sparse_trainers

    update = sparse_trainers.SET._update_masks

    def update_masks(self: Any, mask: Any, *scores: Any, **given: Any) -> Any:
        return None if mask is None else update(self, mask, *scores, **given)

    sparse_trainers.SET._update_masks = update_masks
    return jaxpruner


def updater(
    algorithm: str,
    sparsity: float,
    kind: str | None,
    frequency: int,
    stop: int,
    drop: float,
    is_pruned: Callable[[tuple[str, ...], Any], bool] | None = None,
) -> Any:
    """One of its algorithms, by default sparse in the weights of two axes or more.

    `kind` is its name for a pattern, or `nm` for 2:4 along the axis that products sum over.
    """
    import ml_collections

    config = ml_collections.ConfigDict()
    config.algorithm, config.sparsity, config.dist_type = algorithm, sparsity, "uniform"
    if kind is not None and kind != "nm":
        config.sparsity_type = kind
    if is_pruned is not None:
        config.filter_fn = is_pruned
    config.update_freq, config.update_start_step, config.update_end_step = frequency, 0, stop
    config.drop_fraction = drop
    made = load().create_updater_from_config(config)
    if kind == "nm":
        # The axis of N:M can be set in code alone; by default groups run along the outputs.
        from jaxpruner import mask_calculator, sparsity_types

        made.sparsity_type = sparsity_types.NByM(2, 4, axis=0)
        made.topk_fn = mask_calculator.get_topk_fn(made.sparsity_type)
    return made


def random_scores(params: Any, key: jax.Array) -> Any:
    """What it draws for every leaf, so that ours can be given the same numbers."""
    from jaxpruner.algorithms import pruners

    return pruners.generate_random_scores(params, key)


def step(updater: Any, inner: optax.GradientTransformation, loss: Any) -> Any:
    """A training step with its two hooks."""
    wrapped = updater.wrap_optax(inner)

    def run(params: Any, state: Any, *batch: jax.Array) -> tuple[Any, Any, Any]:
        seen = updater.pre_forward_update(params, state)
        grads = jax.grad(loss)(seen, *batch)
        updates, state = wrapped.update(grads, state, params)
        return (
            updater.post_gradient_update(optax.apply_updates(params, updates), state),
            state,
            seen,
        )

    return wrapped.init, run
