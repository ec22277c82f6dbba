"""A small random language model, and calibration tokens for it."""

import numpy as np
import pytest

from gossamer.compression import Calibration
from tests.compression.tiny_model import CONFIG, in_memory, random_weights


@pytest.fixture
def weights():
    return random_weights()


@pytest.fixture
def tiny(weights):
    return in_memory(weights)


@pytest.fixture
def calibration():
    tokens = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (6, 32)).astype(np.int32)
    return Calibration(text="random", tokens=tokens)
