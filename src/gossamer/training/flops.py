"""Arithmetic of a model: its forward pass, training under each method, and runs of equal cost.

A multiplication with its addition is two FLOPs. Products with weights and with keys and values
count; norms, softmax, biases and lookups do not. Attention counts as if it were not causal, as
papers have it. A training step is three products a weight: forwards, the gradient of the input, the
gradient of the weight; each costs what the forward one does times its density. Quantization changes
what an operation costs, not how many there are.

Source: the conventions of Bambhaniya et al. 2024, arXiv 2402.04744, whose table for ViT-Base they
reproduce; its formula for training was not found, and this one is ours.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gossamer.models import ModelConfig, T5Config, ViTConfig, parameter_shapes
from gossamer.sparsity import Pattern
from gossamer.sparsity.methods import Method

Densities = Mapping[str, float]
"""The fraction of a weight that is not zero, by path; 1 for those that are not there."""

_BLOCK = 1024  # steps looked at in one go, so that runs of all lengths share what is compiled


def products_flops(shapes: Mapping[str, tuple[int, int]], densities: Densities) -> float:
    """FLOPs of one vector through kernels `[in, out]`.

    Example:
        >>> products_flops({"a": (4, 8), "b": (8, 4)}, {"a": 0.5})
        96.0
    """
    return math.fsum(
        2 * rows * columns * densities.get(path, 1.0) for path, (rows, columns) in shapes.items()
    )


def attention_flops(*, layers: int, width: int, sequence: int) -> float:
    """FLOPs of a sequence's scores and mixtures, all heads together `width` wide."""
    return 4.0 * layers * width * sequence**2


def kernels(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """The kernels `[in, out]` that a token is multiplied by; an embedding only if it is tied.

    In an encoder-decoder some by those of the source, others by those of the target.
    """
    tied = isinstance(config, ViTConfig) or config.tied
    return {
        path: (shape[0], shape[1])
        for path, shape in parameter_shapes(config).items()
        if path.endswith(".kernel") and (path != "embedding.kernel" or tied)
    }


def model_flops(config: ModelConfig, sequence: int, densities: Densities | None = None) -> float:
    """FLOPs of a forward pass over one sequence.

    Args:
        config: the model's sizes.
        sequence: tokens; of an encoder-decoder, those of source and target each. Of images it says
            nothing: they have as many as patches, and the class token.
        densities: of weights that are sparse.
    """
    width = config.num_heads * config.head_dim
    layers = config.num_blocks
    if isinstance(config, T5Config):
        layers += config.num_decoder_layers  # they look at both sides
    multiplied = kernels(config)
    once: dict[str, int] = {}  # kernels that other vectors than the sequence's go through
    if isinstance(config, ViTConfig):
        sequence = config.num_patches + 1
        once = {"patch_embedding.kernel": config.num_patches, "head.kernel": 1}
    rest = {path: shape for path, shape in multiplied.items() if path not in once}
    return (
        sequence * products_flops(rest, densities or {})
        + math.fsum(
            count * products_flops({path: multiplied[path]}, densities or {})
            for path, count in once.items()
        )
        + attention_flops(layers=layers, width=width, sequence=sequence)
    )


@dataclasses.dataclass(frozen=True)
class StepDensities:
    """Densities of the three products with one weight, step by step.

    Attributes:
        forward: of the forward pass.
        backward_input: of the gradient of the input. It takes a format that is read transposed as
            well; without one it is dense.
        backward_weight: of the gradient of the weight.
    """

    forward: Float[np.ndarray, " steps"]
    backward_input: Float[np.ndarray, " steps"]
    backward_weight: Float[np.ndarray, " steps"]

    @property
    def mean(self) -> float:
        """What the run costs with this weight, as a share of a dense run."""
        return float((self.forward + self.backward_input + self.backward_weight).mean() / 3)


def step_densities(
    method: Method | None,
    pattern: Pattern | None,
    steps: int,
    *,
    transposable: bool = True,
    switched_at: int | None = None,
) -> StepDensities:
    """Densities of the products with a weight that has this pattern.

    Args:
        method: None is dense.
        pattern: of the weight; None is dense.
        steps: of the run.
        transposable: whether the gradient of the input gains by zeros too.
        switched_at: for STEP, the step at which masks began; None takes the latest it allows.

    Example:
        >>> from gossamer.recipe import Recipe
        >>> from gossamer.sparsity import NM
        >>> from gossamer.sparsity.methods import STE
        >>> print(round(step_densities(STE(recipe=Recipe.load("2:4")), NM(2, 4), 10).mean, 4))
        0.6667
    """
    ones = np.ones(steps)
    if method is None or pattern is None:
        return StepDensities(ones, ones, ones)
    method = method if switched_at is None else method.switched(switched_at)
    blocks = np.arange(-(-steps // _BLOCK) * _BLOCK, dtype=np.int32).reshape(-1, _BLOCK)
    shares = [np.asarray(_shares(method, pattern, block), np.float64) for block in blocks]
    forward, gradient = np.concatenate(shares, axis=1)[:, :steps]
    return StepDensities(forward, forward if transposable else ones, gradient)


@functools.partial(jax.jit, static_argnames=("method", "pattern"))
def _shares(
    method: Method, pattern: Pattern, numbers: Int[Array, " steps"]
) -> Float[Array, "2 steps"]:
    """Densities of the forward pass and of the gradient of the weight, at these steps."""

    def share(step: Int[Array, ""]) -> Float[Array, " 2"]:
        forward = jnp.asarray(method.density(pattern, step))
        return jnp.stack([forward, jnp.where(method.masks_gradients(step), forward, 1.0)])

    return jax.vmap(share, out_axes=1)(numbers)


def training_flops(
    config: ModelConfig,
    *,
    sequence: int,
    batch: int,
    steps: int,
    method: Method | None = None,
    transposable: bool = True,
    switched_at: int | None = None,
) -> float:
    """FLOPs of a whole run; what finds masks is not counted.

    Args:
        config: the model's sizes.
        sequence: tokens of a sequence.
        batch: sequences of a step.
        steps: of the run.
        method: with its recipe; None is dense.
        transposable: whether the gradient of the input gains by zeros too.
        switched_at: for STEP, the step at which masks began.
    """
    patterns = {} if method is None else patterns_of(method, config)
    shares = {
        pattern: step_densities(
            method, pattern, steps, transposable=transposable, switched_at=switched_at
        ).mean
        for pattern in set(patterns.values())
    }
    densities = {path: shares[pattern] for path, pattern in patterns.items()}
    return 3 * steps * batch * model_flops(config, sequence, densities)


def patterns_of(method: Method, config: ModelConfig) -> dict[str, Pattern]:
    """The pattern that a method gives to each parameter of a model."""
    shapes = {
        path: jax.ShapeDtypeStruct(shape, jnp.float32)
        for path, shape in parameter_shapes(config).items()
    }
    found: dict[str, Pattern] = {}

    def look(params: dict[str, jax.Array]) -> None:
        found.update(method.patterns(params))

    jax.eval_shape(look, shapes)
    return found


def steps_within(budget: float, cost: Callable[[int], float]) -> int:
    """How many steps a run gets for a budget: iso-FLOPs.

    Args:
        budget: FLOPs.
        cost: FLOPs of a run of so many steps, growing with them; its schedule may too.

    Raises:
        ValueError: not even one step is within it.

    Example:
        >>> steps_within(100.0, lambda steps: 7.0 * steps)
        14
    """
    if cost(1) > budget:
        raise ValueError(f"One step takes {cost(1):g} FLOPs, and the budget is {budget:g}.")
    low, high = 1, 2
    while cost(high) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return low


def utilization(
    config: ModelConfig, *, sequence: int, sequences_per_second: float, peak: float
) -> float:
    """Model-FLOPs utilization: a dense step's FLOPs a second over what the machine could do.

    Args:
        config: the model's sizes.
        sequence: tokens of a sequence.
        sequences_per_second: trained on.
        peak: FLOPs a second of all devices together.

    Source: Chowdhery et al. 2022, arXiv 2204.02311, appendix B; with full attention.
    """
    return 3 * model_flops(config, sequence) * sequences_per_second / peak
