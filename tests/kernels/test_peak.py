import numpy as np
import pytest

from gossamer import kernels
from gossamer.kernels import library
from gossamer.kernels.peak import multiply_adds_per_second

pytestmark = pytest.mark.skipif(
    kernels.why_unavailable() is not None, reason=f"no kernels: {kernels.why_unavailable()}"
)


@pytest.mark.parametrize(("floats", "of_a_vector"), [(False, 64), (True, 16)])
def test_multiply_adds_are_counted_by_whole_vectors(floats, of_a_vector):
    data, result = np.ones(64, np.uint8), np.empty(192, np.float32)
    multiply = library.multiplier()
    one, ten = (multiply(data.ctypes.data, steps, floats, result.ctypes.data) for steps in (1, 10))
    assert one % of_a_vector == 0
    assert ten == 10 * one > 0


@pytest.mark.parametrize("floats", [False, True])
def test_the_peak_is_that_of_a_processor(floats):
    assert 1e8 < multiply_adds_per_second(floats=floats, seconds=0.02) < 1e13
