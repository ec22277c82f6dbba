"""A trained model as one of ours: for saving, evaluating and compressing."""

from typing import Any

import numpy as np

from gossamer.loading import Checkpoint, Tensor
from gossamer.models import parameter_shapes
from gossamer.training.config import TrainingConfig
from gossamer.training.corpora import Corpus
from gossamer.training.step import Params


def as_checkpoint(config: TrainingConfig, weights: Params, corpus: Corpus) -> Checkpoint:
    """A model as `load` gives it.

    Args:
        config: of the run.
        weights: what the model runs with, by path: `Trained.weights`.
        corpus: what it learned from.
    """
    arrays = {path: np.asarray(weights[path]) for path in parameter_shapes(config.model)}
    checkpoint = Checkpoint(
        config=config.model,
        tensors={
            path: Tensor(array.shape, array.dtype, lambda array=array: array)
            for path, array in arrays.items()
        },
        tokenizer=None,
        source={"name": "trained", "format": "gossamer train", "seed": config.seed},
        hf_config=config.model.to_hf(),
    )
    return corpus.complete(checkpoint)


def zeros_of(weights: Params, paths: Any) -> float | None:
    """The fraction of zeros in some weights; None for none."""
    chosen = [np.asarray(weights[path]) for path in paths]
    size = sum(array.size for array in chosen)
    return None if not size else 1 - sum(np.count_nonzero(a) for a in chosen) / size
