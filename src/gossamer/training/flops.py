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
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gossamer.models import ModelConfig, parameter_shapes
from gossamer.sparsity import NM, Pattern
from gossamer.sparsity.methods import (
    ASP,
    SET,
    STEP,
    Frozen,
    MaskDecay,
    MdGf,
    Method,
    RigL,
    SdGf,
    StaticRandom,
    StructureDecay,
)
from gossamer.sparsity.schedules import Periodic, Schedule

Densities = Mapping[str, float]
"""The fraction of a weight that is not zero, by path; 1 for those that are not there."""


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
    """The kernels `[in, out]` that a token is multiplied by; an embedding only if it is tied."""
    return {
        path: (shape[0], shape[1])
        for path, shape in parameter_shapes(config).items()
        if path.endswith(".kernel") and (path != "embedding.kernel" or config.tied)
    }


def model_flops(config: ModelConfig, sequence: int, densities: Densities | None = None) -> float:
    """FLOPs of a forward pass over one sequence.

    Args:
        config: the model's sizes.
        sequence: tokens.
        densities: of weights that are sparse.
    """
    width = config.num_heads * config.head_dim
    return sequence * products_flops(kernels(config), densities or {}) + attention_flops(
        layers=config.num_layers, width=width, sequence=sequence
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
        >>> from gossamer.sparsity.methods import STE
        >>> print(round(step_densities(STE(recipe=Recipe.load("2:4")), NM(2, 4), 10).mean, 4))
        0.6667
    """
    ones = np.ones(steps)
    if method is None or pattern is None:
        return StepDensities(ones, ones, ones)
    forward = _forward_density(method, pattern, steps, switched_at)
    gradient = forward if _masks_gradients(method) else ones
    if isinstance(method, RigL):
        # At a change of masks it looks at the gradients of all places.
        gradient = np.where(_due(method.schedule, steps), 1.0, gradient)
    return StepDensities(forward, forward if transposable else ones, gradient)


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
        path: step_densities(
            method, pattern, steps, transposable=transposable, switched_at=switched_at
        ).mean
        for path, pattern in patterns.items()
    }
    return 3 * steps * batch * model_flops(config, sequence, shares)


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


def _masks_gradients(method: Method) -> bool:
    """Whether what is pruned gets no gradient, so that none need be computed."""
    if isinstance(method, MdGf | SdGf | MaskDecay | StructureDecay):
        return method.gradient == "chain"
    return isinstance(method, StaticRandom | SET | RigL | Frozen | ASP)


def _forward_density(
    method: Method, pattern: Pattern, steps: int, switched_at: int | None
) -> Float[np.ndarray, " steps"]:
    """The fraction of a weight that is not zero in the forward pass of each step."""
    numbers = np.arange(steps)
    if isinstance(method, STEP):
        begin = method.latest if switched_at is None else switched_at
        return np.where(numbers < begin, 1.0, density(pattern))
    if isinstance(method, MdGf | MaskDecay):
        # A pruned weight that is scaled is not zero.
        factors = np.asarray(jax.vmap(method.factor)(jnp.arange(steps)))
        return np.where(factors > 0, 1.0, density(pattern))
    if isinstance(method, SdGf | StructureDecay):
        return _held(_frame_density(method, pattern, numbers), method.schedule, steps)
    schedule = getattr(method, "schedule", None)
    if schedule is None or isinstance(method, StaticRandom):
        return np.full(steps, density(pattern))
    ramp = _ramp_density(schedule, pattern, numbers)
    return _held(ramp, schedule, steps)


def density(pattern: Pattern, progress: float = 1.0) -> float:
    """The fraction of a weight that a pattern keeps, when a share of its sparsity is asked for.

    Example:
        >>> density(NM(1, 16)), density(NM(1, 4), progress=0.5)
        (0.0625, 0.5)
    """
    if isinstance(pattern, NM):
        return 1 - round(progress * (pattern.m - pattern.n)) / pattern.m
    return 1 - progress * pattern.sparsity


def _ramp_density(
    schedule: Schedule, pattern: Pattern, numbers: np.ndarray
) -> Float[np.ndarray, " steps"]:
    if type(schedule) is Periodic:
        return np.full(len(numbers), density(pattern))
    progress = np.asarray(jax.vmap(lambda n: schedule.progress(n, pattern.sparsity))(numbers))
    return np.asarray([density(pattern, float(share)) for share in progress])


def _frame_density(
    method: SdGf | StructureDecay, pattern: Pattern, numbers: np.ndarray
) -> Float[np.ndarray, " steps"]:
    """What a method keeps of a small weight at each step: it alone knows its frames."""
    assert isinstance(pattern, NM)
    length = pattern.m * (method.largest if isinstance(method, SdGf) else 1)
    probe = jnp.arange(1.0, length + 1)[:, None]

    def kept(step: jax.Array) -> jax.Array:
        return method.new_mask("probe", probe, pattern, step).mean()

    return np.asarray(jax.lax.map(kept, jnp.asarray(numbers)), np.float64)


def _due(schedule: Schedule, steps: int) -> np.ndarray:
    return np.asarray(jax.vmap(lambda n: jnp.asarray(schedule.due(n)))(jnp.arange(steps)))


def _held(values: np.ndarray, schedule: Schedule, steps: int) -> Float[np.ndarray, " steps"]:
    """The value of the last change of masks at each step; 1, dense, before the first."""
    since = np.arange(steps) - schedule.start
    due = (since >= 0) & ((since % schedule.every == 0) | (np.arange(steps) == schedule.stop))
    last = np.maximum.accumulate(np.where(due, np.arange(steps), -1))
    return np.where(last < 0, 1.0, values[np.maximum(last, 0)])
