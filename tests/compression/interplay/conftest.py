"""A small model whose kernels suit every format, its texts, and results to judge."""

import numpy as np
import pytest

from gossamer.compression import Calibration
from gossamer.compression.interplay import Experiment
from tests.inference.tiny import tiny

SIZES = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "num_layers": 2}


@pytest.fixture(scope="session")
def experiment():
    checkpoint = tiny("llama", **SIZES)
    rng = np.random.default_rng(0)
    vocabulary = checkpoint.config.vocab_size
    return Experiment(
        checkpoint=checkpoint,
        text="random",
        tokens=rng.integers(0, vocabulary, (3, 24)).astype(np.int32),
        calibration=Calibration(
            text="random too", tokens=rng.integers(0, vocabulary, (4, 24)).astype(np.int32)
        ),
    )
