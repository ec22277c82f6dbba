"""What every kind of data offers to the loop."""

import abc
import dataclasses
from typing import Any

import jax
import numpy as np

from gossamer.loading import Checkpoint
from gossamer.training.config import TrainingConfig
from gossamer.training.pipeline import Examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus(abc.ABC):
    """Data in the part that is learned from and the part that is held out."""

    @abc.abstractmethod
    def check(self, config: TrainingConfig) -> None:
        """Raises ValueError where a run cannot learn from it or be evaluated on it."""

    @abc.abstractmethod
    def examples(self, config: TrainingConfig) -> Examples:
        """What is learned from."""

    @abc.abstractmethod
    def complete(self, checkpoint: Checkpoint) -> Checkpoint:
        """A model that learned from it, with what it needs to be used: its tokenizer, say."""

    @abc.abstractmethod
    def evaluation(self, config: TrainingConfig) -> Any:
        """What is evaluated, with the examples in front of every array."""


def spread(examples: Any, count: int | None) -> Any:
    """Some of the examples, evenly spread; None takes all.

    Example:
        >>> spread(np.arange(10), 4)
        array([0, 2, 5, 7])
    """
    have = len(jax.tree.leaves(examples)[0])
    wanted = have if count is None else min(count, have)
    return jax.tree.map(lambda leaf: leaf[np.arange(wanted) * have // wanted], examples)
