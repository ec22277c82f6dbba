"""The compiled training step: a pure function of state and batch, with randomness from the seed."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from gossamer.models import model_class
from gossamer.parameters import leaves_by_path
from gossamer.recipe import Recipe
from gossamer.sparsity.summary import TOTAL, summary
from gossamer.training.aware import quantize_aware
from gossamer.training.config import DataConfig, ImagesConfig, PairsConfig, TrainingConfig
from gossamer.training.losses import Losses, label_losses, next_token_losses, translation_losses
from gossamer.training.optimizers import chain
from gossamer.training.sharding import state_shardings

Params = dict[str, Array]
Metrics = dict[str, Array]

LOSSES: dict[type, Callable[[Any, Any], Losses]] = {
    DataConfig: next_token_losses,
    PairsConfig: translation_losses,
    ImagesConfig: label_losses,
}
"""By the kind of data: of a model's predictions on a batch."""


class TrainState(NamedTuple):
    """Everything that a run is, but for its place in the data.

    Attributes:
        step: steps done, those included that changed nothing.
        skipped: steps that changed nothing, since their gradients were not finite.
        params: what is trained, by path.
        optimizer: moments, counters and masks.
    """

    step: Int[Array, ""]
    skipped: Int[Array, ""]
    params: Params
    optimizer: Any


class Step:
    """The functions of a run, compiled for its mesh.

    Args:
        config: of the run.
        mesh: where it runs.
    """

    def __init__(self, config: TrainingConfig, mesh: Mesh) -> None:
        self.config, self.mesh = config, mesh
        self.optimizer = chain(config.optimizer, config.method, config.steps)
        # Noted while the model is made without values: how its leaves become a model again.
        self._graph: Any = None
        self._structure: Any = None
        self._order: list[str] = []
        self.shapes = jax.eval_shape(self._init)
        self.shardings = state_shardings(mesh, self.shapes)
        self._compiled = jax.jit(self._step, donate_argnums=0, out_shardings=(self.shardings, None))
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._losses = jax.jit(self._evaluate, out_shardings=everywhere)
        self._gathered = jax.jit(self.weights, out_shardings=everywhere)

    def init(self, params: Mapping[str, Any] | None = None) -> TrainState:
        """The state before the first step, of fresh weights or of these.

        Raises:
            ValueError: names or shapes are not the model's.
        """
        if params is None:
            return jax.jit(self._init, out_shardings=self.shardings)()
        wanted = {path: leaf.shape for path, leaf in self.shapes.params.items()}
        given = {path: tuple(leaf.shape) for path, leaf in params.items()}
        if given != wanted:
            wrong = sorted(
                path for path in {*given, *wanted} if given.get(path) != wanted.get(path)
            )
            raise ValueError(f"Parameters are not those of the model: {wrong[:6]} differ or lack.")
        floats = {path: np.asarray(leaf, np.float32) for path, leaf in params.items()}
        return jax.jit(self._with_params, out_shardings=self.shardings)(floats)

    def abstract(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self.shapes,
            self.shardings,
        )

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """The state after one more batch, whose memory is that of the one before, and scalars."""
        return self._compiled(state, batch)

    def losses(self, state: TrainState, batch: Any) -> Losses:
        """The losses of each example, with what is trained as it runs."""
        return self._losses(state, batch)

    def weights(self, state: TrainState) -> Params:
        """What the forward pass sees of the parameters: with zeros where a method prunes."""
        if self.config.method is None:
            return state.params
        return self.config.method.weights(state.params, state.optimizer)

    def gathered(self, state: TrainState) -> Params:
        """The same, whole on every device and in every process: for saving."""
        return self._gathered(state)

    def _init(self) -> TrainState:
        config = self.config
        model = model_class(config.model)(config.model, nnx.Rngs(config.seed))
        self._graph, state = nnx.split(model)
        self._structure = jax.tree.structure(state)
        params = leaves_by_path(state)
        self._order = list(params)
        return self._with_params({path: jnp.asarray(leaf) for path, leaf in params.items()})

    def _with_params(self, params: Params) -> TrainState:
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, zero, params, self.optimizer.init(params))

    def _step(self, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        weights = self.weights(state)
        key = jax.random.fold_in(jax.random.key(self.config.seed), state.step)
        loss, grads = self._gradients(weights, batch, key)
        finite = jnp.isfinite(loss)
        for grad in grads.values():
            finite &= jnp.isfinite(grad).all()
        seen = {} if self.config.method is None else {"weights": weights}
        updates, optimizer = self.optimizer.update(grads, state.optimizer, state.params, **seen)
        params: Any = optax.apply_updates(state.params, updates)
        after = TrainState(state.step, state.skipped, params, optimizer)
        # All of it: masks and counters too, so that the next step is as if this one had not been.
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
        metrics = {
            "loss": loss,
            "gradient_norm": optax.tree.norm(grads),
            "learning_rate": self.config.optimizer.rate(
                state.step - state.skipped, self.config.steps
            ),
            "finite": finite,
            **self._mask_metrics(state, after, grads),
        }
        skipped = state.skipped + jnp.where(finite, 0, 1)
        return after._replace(step=state.step + 1, skipped=skipped), metrics

    def _mask_metrics(self, before: TrainState, after: TrainState, grads: Params) -> Metrics:
        """What masks do and what gradients the method lets through; nothing for dense training."""
        method = self.config.method
        if method is None:
            return {}
        passed, _ = method.update(grads, method.find(before.optimizer), before.params)
        numbers = summary(after.optimizer, after.params, passed)
        return {name: by_path[TOTAL] for name, by_path in numbers.items()}

    def _gradients(
        self, weights: Params, batch: Any, key: jax.Array
    ) -> tuple[Float[Array, ""], Params]:
        """Loss and gradients at the forward weights, as means over the predictions of the batch."""
        count = self.config.accumulate
        if count == 1:
            return jax.value_and_grad(self._mean_loss)(weights, batch, key)
        # Part k has the rows k, k + count, ...: each device cuts its own rows.
        parts = jax.tree.map(
            lambda rows: rows.reshape(-1, count, *rows.shape[1:]).swapaxes(0, 1), batch
        )

        def add(total: Any, part: tuple[Any, Array]) -> tuple[Any, None]:
            part_batch, number = part
            part_key = jax.random.fold_in(key, number)
            # Parts may have unequal numbers of predictions: sums are added, and divided once.
            new, grads = jax.value_and_grad(self._summed_loss, has_aux=True)(
                weights, part_batch, part_key
            )
            return jax.tree.map(jnp.add, total, (new, grads)), None

        zeros = (jnp.zeros(()), jnp.zeros(())), jax.tree.map(jnp.zeros_like, weights)
        ((loss, predictions), grads), _ = jax.lax.scan(add, zeros, (parts, jnp.arange(count)))
        return jax.tree.map(lambda sum_: sum_ / predictions, (loss, grads))

    def _mean_loss(self, weights: Params, batch: Any, key: jax.Array) -> Float[Array, ""]:
        total, predictions = self._summed_loss(weights, batch, key)
        return total / predictions

    def _summed_loss(
        self, weights: Params, batch: Any, key: jax.Array
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The sum over all predictions, and how many there are."""
        losses = self._example_losses(weights, batch, key)
        return losses.sums.sum(), losses.counts.sum()

    def _evaluate(self, state: TrainState, batch: Any) -> Losses:
        return self._example_losses(self.weights(state), batch)

    def model(self, weights: Params, key: jax.Array | None = None) -> Any:
        """The model as it is trained: quantized, or in bfloat16. Call it inside what is compiled.

        Args:
            weights: what the forward pass sees, by path: `weights(state)`.
            key: for stochastic rounding of gradients; None where none are taken.
        """
        computed = self._computed(weights, jax.random.key(0) if key is None else key)
        state = jax.tree.unflatten(self._structure, [computed[path] for path in self._order])
        return nnx.merge(self._graph, state)

    def _example_losses(self, weights: Params, batch: Any, key: jax.Array | None = None) -> Losses:
        return LOSSES[type(self.config.data)](self.model(weights, key), batch)

    def _computed(self, weights: Params, key: jax.Array) -> dict[str, Any]:
        """The weights as products take them: quantized, or in bfloat16."""
        config = self.config
        if config.quantization is not None:
            recipe = config.quantization.recipe
            return quantize_aware(
                weights,
                recipe if config.method is None else recipe_without_patterns(recipe),
                multiply=config.quantization.multiply,
                activation_scale=config.quantization.activation_scale,
                key=key,
            )
        if config.precision == "float32":
            return weights
        # Norms compute in float32 whatever comes in.
        return {
            path: weight if "norm" in path else weight.astype(jnp.bfloat16)
            for path, weight in weights.items()
        }


def recipe_without_patterns(recipe: Recipe) -> Recipe:
    """A recipe whose formats alone are left, for weights that a method prunes.

    Example:
        >>> recipe_without_patterns(Recipe.load("2:4-int8")).rules[0].describe()
        'int8, per channel, float32 scales'
    """
    rules = tuple(dataclasses.replace(rule, pattern=None) for rule in recipe.rules)
    return dataclasses.replace(recipe, rules=rules)
