"""Optimizers as values, and the chain that they make with a sparse-training method.

The order of what happens to a gradient: clipping by the global norm of all gradients; the method's
part (masks, gradient flow, SR-STE's decay); the optimizer's rule; decay of weights; the learning
rate; the method again, for what it does to updates and for new masks. So what a method adds to a
gradient is not clipped, and moments see it.
"""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gossamer.parameters import leaves_by_path, replace_leaves
from gossamer.sparsity.methods import STEP, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What all optimizers share.

    Attributes:
        learning_rate: the peak.
        warmup: steps of a linear climb from 0 to it.
        decay: what comes after: half a cosine to the last step, or nothing.
        final: what the cosine ends at, as a share of the peak.
        weight_decay: decoupled: per step, each decayed weight loses so much of itself times the
            learning rate. Matrices decay; embeddings, positions, norms and biases do not.
        clip: the largest global norm of a gradient; None does not clip.
    """

    learning_rate: float = 1e-3
    warmup: int = 0
    decay: Literal["cosine", "constant"] = "cosine"
    final: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        name, faults = type(self).__name__, []
        if not self.learning_rate > 0:
            faults.append(f"learning_rate > 0, got {self.learning_rate}")
        if self.warmup < 0:
            faults.append(f"warmup >= 0, got {self.warmup}")
        if not 0 <= self.final <= 1:
            faults.append(f"final in [0, 1], got {self.final}")
        if self.weight_decay < 0:
            faults.append(f"weight_decay >= 0, got {self.weight_decay}")
        if self.clip is not None and not self.clip > 0:
            faults.append(f"clip > 0 or none, got {self.clip}")
        faults += [
            f"{field} in [0, 1), got {value}"
            for field in ("b1", "b2", "momentum", "decay_rate")
            if not 0 <= (value := getattr(self, field, 0.0)) < 1
        ]
        if faults:
            raise ValueError(f"{name} needs " + "; ".join(faults) + ".")

    def rule(self) -> optax.GradientTransformation:
        """What becomes of a gradient before decay and learning rate."""
        raise NotImplementedError

    def rate(self, step: int | Int[Array, ""], steps: int) -> Float[Array, ""]:
        """The learning rate at a step of a run of `steps`.

        Example:
            >>> optimizer = AdamW(learning_rate=0.4, warmup=2)
            >>> print(*(round(float(optimizer.rate(step, 6)), 3) for step in (0, 1, 2, 4)))
            0.0 0.2 0.4 0.2
        """
        climb = optax.linear_schedule(0.0 if self.warmup else 1.0, 1.0, max(self.warmup, 1))
        rest = max(steps - self.warmup, 1)
        if self.decay == "cosine":
            fall = optax.cosine_decay_schedule(1.0, rest, self.final)
        else:
            fall = optax.constant_schedule(1.0)
        share = optax.join_schedules([climb, fall], [self.warmup])(step)
        return jnp.asarray(self.learning_rate * share, jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled decay of weights.

    Source: Loshchilov and Hutter 2019, arXiv 1711.05101.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def rule(self) -> optax.GradientTransformation:
        """Adam's."""
        return optax.scale_by_adam(self.b1, self.b2, self.eps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor(Optimizer):
    """Second moments as a row and a column of each matrix.

    Updates are clipped to a root mean square of 1; steps are not relative, and there is no first
    moment.

    Source: Shazeer and Stern 2018, arXiv 1804.04235, by optax.

    Attributes:
        decay_rate: the exponent of the moments' decay.
        smallest: matrices with fewer rows or columns keep whole moments.
    """

    decay_rate: float = 0.8
    smallest: int = 128

    def rule(self) -> optax.GradientTransformation:
        """Adafactor's."""
        moments = optax.scale_by_factored_rms(
            decay_rate=self.decay_rate, min_dim_size_to_factor=self.smallest
        )
        return optax.chain(moments, optax.clip_by_block_rms(1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Gradient descent with momentum."""

    momentum: float = 0.9
    nesterov: bool = False

    def rule(self) -> optax.GradientTransformation:
        """A running sum of gradients."""
        return optax.trace(self.momentum, self.nesterov)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lion(Optimizer):
    """The sign of an interpolated momentum; learning rates are 3 to 10 times smaller than Adam's.

    Source: Chen et al. 2023, arXiv 2302.06675.
    """

    b1: float = 0.9
    b2: float = 0.99

    def rule(self) -> optax.GradientTransformation:
        """Lion's."""
        return optax.scale_by_lion(self.b1, self.b2)


OPTIMIZERS: tuple[type[Optimizer], ...] = (AdamW, Adafactor, SGD, Lion)
"""All there are."""


def chain(
    optimizer: Optimizer, method: Method | None, steps: int
) -> optax.GradientTransformationExtraArgs:
    """The whole of what turns gradients at the forward weights into updates.

    Args:
        optimizer: with its learning rate.
        method: a sparse-training method; its `weights` are then due in `update`.
        steps: of the run, for the cosine.

    Raises:
        ValueError: STEP, which freezes Adam's moments, with another optimizer or other betas.
    """
    inner = optax.chain(
        _rule(optimizer, method),
        optax.stateless(
            lambda updates, params: _decay_matrices(updates, params, optimizer.weight_decay)
        ),
        optax.scale_by_schedule(lambda step: -optimizer.rate(jnp.asarray(step), steps)),
    )
    wrapped = inner if method is None else method.wrap(inner)
    clip = optax.identity() if optimizer.clip is None else optax.clip_by_global_norm(optimizer.clip)
    return optax.with_extra_args_support(optax.chain(clip, wrapped))


def is_decayed(path: str, leaf: Any) -> bool:
    """Whether decay of weights is for a parameter: matrices, but no embeddings and no tables of
    positions, absolute or relative.

    Example:
        >>> kernel = jnp.ones((2, 2))
        >>> is_decayed("output.kernel", kernel), is_decayed("embedding.kernel", kernel)
        (True, False)
    """
    return leaf.ndim >= 2 and not path.startswith("embedding.") and not path.endswith(".table")


def _rule(optimizer: Optimizer, method: Method | None) -> optax.GradientTransformation:
    """The optimizer's rule, or for STEP its own Adam, of the same betas."""
    if not isinstance(method, STEP):
        return optimizer.rule()
    wanted = (method.b1, method.b2, method.eps)
    got = (optimizer.b1, optimizer.b2, optimizer.eps) if isinstance(optimizer, AdamW) else None
    if got != wanted:
        raise ValueError(
            f"STEP freezes the second moment of Adam with b1, b2, eps = {wanted}, and the "
            f"optimizer is {type(optimizer).__name__} with {got}; use AdamW with the same."
        )
    return method.scale_by_adam()


def _decay_matrices(updates: Any, params: Any, weight_decay: float) -> Any:
    """Updates plus the decay of those weights that have it."""
    if weight_decay == 0:
        return updates
    steps, weights = leaves_by_path(updates), leaves_by_path(params)
    decayed = {
        path: step + weight_decay * weights[path]
        for path, step in steps.items()
        if is_decayed(path, step)
    }
    return replace_leaves(updates, decayed)
