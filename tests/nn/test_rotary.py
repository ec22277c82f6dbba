import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.nn.rotary import Llama3Scaling, Rotary, rotate

SCALING = Llama3Scaling(
    factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_positions=8192
)


def turned(x: jax.Array, position: int, rotary: Rotary) -> jax.Array:
    """One vector [H] at one position."""
    cos, sin = rotary.cos_sin(jnp.array([position]), x.shape[0])
    return rotate(x[None, None, None], cos, sin)[0, 0, 0]


def test_a_quarter_turn_moves_the_first_half_to_the_second():
    quarter = jnp.array([[0.0, 1.0]]), jnp.array([[1.0, 0.0]])  # cos, sin: 90 and 0 degrees
    x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    np.testing.assert_array_equal(rotate(x, *quarter).reshape(4), [-3.0, 2.0, 1.0, 4.0])


def test_products_depend_on_the_distance_of_positions_only():
    rotary = Rotary(theta=100.0)
    q, k = jax.random.normal(jax.random.key(0), (2, 8))
    near = turned(q, 7, rotary) @ turned(k, 4, rotary)
    far = turned(q, 107, rotary) @ turned(k, 104, rotary)
    # Angles near 100 are off by 100 * 2^-24 in float32.
    np.testing.assert_allclose(near, far, atol=1e-4)
    assert abs(near - q @ k) > 0.1  # and they do depend on it


def test_llama3_scaling_leaves_fast_frequencies_and_divides_slow_ones():
    turns = np.array([5.0, 4.0, 2.5, 1.0, 0.1])  # within the original context
    frequencies = turns * 2 * math.pi / SCALING.original_positions
    ratio = SCALING.apply(frequencies) / frequencies
    np.testing.assert_allclose(ratio, [1, 1, 0.5 * (1 + 1 / 8), 1 / 8, 1 / 8])


def test_rotary_uses_its_scaling():
    plain = Rotary(theta=500000.0).frequencies(64)
    scaled = Rotary(theta=500000.0, scaling=SCALING).frequencies(64)
    np.testing.assert_allclose(scaled[-1], plain[-1] / 8)
    np.testing.assert_allclose(scaled[0], plain[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": 0.5}, "factor >= 1, got factor=0.5"),
        ({"low_frequency_factor": 4.0}, "< high_frequency_factor, got 4.0 and 4.0"),
        ({"original_positions": 0}, "original_positions >= 1, got 0"),
    ],
)
def test_scaling_that_makes_no_sense_is_refused(change, message):
    good = {
        "factor": 8.0,
        "low_frequency_factor": 1.0,
        "high_frequency_factor": 4.0,
        "original_positions": 8192,
    }
    with pytest.raises(ValueError, match=message):
        Llama3Scaling(**{**good, **change})


def test_a_base_of_one_is_refused():
    with pytest.raises(ValueError, match=r"theta > 1, got theta=1.0"):
        Rotary(theta=1.0)
