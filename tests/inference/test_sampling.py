import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gossamer.inference import Sampling
from gossamer.inference.sampling import keep_top_k, keep_top_p, sample, scale_temperature

LOGITS = arrays(np.float32, 12, elements=st.floats(-8, 8, width=32, allow_subnormal=False))
# Few values, so that ties are common.
TIED = arrays(np.float32, 12, elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]))
PROBABILITY = st.floats(0.015625, 1, width=32)
MASS_ERROR = 1e-5  # of a sum of 12 float32 probabilities, each off by a few units of 6e-8
KEY = jax.random.key(0)

top_k = jax.jit(keep_top_k, static_argnums=1)
top_p = jax.jit(keep_top_p)
temperature = jax.jit(scale_temperature)


def softmax(logits):
    """In float64; -inf gives 0."""
    powers = np.exp(logits.astype(np.float64) - np.max(logits))
    return powers / powers.sum()


def by_rank(logits):
    """Tokens from the most likely on; those that tie by their index."""
    return np.argsort(-logits.astype(np.float64), kind="stable")


def kept(filtered):
    return np.isfinite(np.asarray(filtered))


def draw_many(logits, how, count=4000):
    keys = jax.random.split(KEY, count)
    return np.asarray(jax.vmap(lambda key: sample(jnp.asarray(logits), key, how))(keys))


@settings(deadline=None)
@given(logits=LOGITS, value=st.floats(0.0625, 16, width=32))
def test_temperature_divides_the_logits(logits, value):
    got = softmax(np.asarray(temperature(logits, value)))
    # A logit of 8 / 0.0625 has a rounding error of 128 / 2^24.
    np.testing.assert_allclose(got, softmax(logits / np.float64(value)), rtol=1e-4, atol=1e-9)


@settings(deadline=None)
@given(logits=LOGITS | TIED, k=st.integers(1, 15))
def test_top_k_keeps_the_first_k_by_rank(logits, k):
    got = np.asarray(top_k(logits, k))
    want = np.full(12, -np.inf, np.float32)
    want[by_rank(logits)[:k]] = logits[by_rank(logits)[:k]]
    np.testing.assert_array_equal(got, want)


@settings(deadline=None)
@given(logits=LOGITS | TIED, p=PROBABILITY)
@example(logits=np.zeros(12, np.float32), p=1.0)
@example(logits=np.array([100.0] + [0.0] * 11, np.float32), p=1.0)
@example(logits=np.array([0.0, 4e-35] + [0.0] * 10, np.float32), p=0.0625)
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, p):
    keep = kept(top_p(logits, p))
    probabilities = softmax(logits)
    # Scores too close for two float32 probabilities tie, and then the lower index comes first.
    rank = by_rank(np.asarray(jax.nn.softmax(jnp.asarray(logits))))
    count = keep.sum()
    assert count >= 1
    assert keep[rank[:count]].all(), "those kept are the first by rank"
    assert probabilities[keep].sum() >= p - MASS_ERROR
    assert probabilities[rank[: count - 1]].sum() < p + MASS_ERROR, "one fewer does not reach p"


@pytest.mark.parametrize(
    ("p", "want"),
    [(0.3, [1]), (0.5, [1]), (0.51, [1, 2]), (0.75, [1, 2]), (0.8, [0, 1, 2]), (1.0, [0, 1, 2, 3])],
)
def test_top_p_golden(p, want):
    logits = jnp.log(jnp.array([0.125, 0.5, 0.25, 0.125]))
    np.testing.assert_array_equal(np.flatnonzero(kept(top_p(logits, p))), want)


def test_top_p_does_not_bring_back_what_top_k_dropped():
    logits = jnp.array([1.0, 4.0, 3.0, 2.0])
    np.testing.assert_array_equal(kept(top_p(top_k(logits, 2), 1.0)), [False, True, True, False])


@settings(deadline=None, max_examples=25)
@given(logits=LOGITS | TIED, seed=st.integers(0, 2**31))
def test_top_k_of_one_is_greedy(logits, seed):
    how = Sampling(temperature=1.0, top_k=1)
    assert sample(logits, jax.random.key(seed), how) == np.argmax(logits)


@settings(deadline=None, max_examples=25)
@given(logits=LOGITS, seed=st.integers(0, 2**31))
def test_temperature_towards_zero_is_greedy(logits, seed):
    logits = logits + 0.01 * np.arange(12, dtype=np.float32)[::-1]  # hardly any tie
    # Subtracting the maximum first leaves exact zeros at the top, however small the divisor.
    drawn = int(sample(logits, jax.random.key(seed), Sampling(temperature=1e-30)))
    assert logits[drawn] == logits.max()


def test_draws_follow_the_filtered_distribution():
    logits = np.array([0.0, 1.0, 2.0, 3.0, -1.0], np.float32)
    how = Sampling(temperature=2.0, top_k=4, top_p=0.8)
    halved = softmax(logits / 2)  # 0.09, 0.15, 0.25, 0.41 and the fifth dropped by top-k
    halved[4] = 0
    halved /= halved.sum()  # 0.10, 0.17, 0.28, 0.46: the last three reach 0.8
    halved[0] = 0
    want = halved / halved.sum()
    got = np.bincount(draw_many(logits, how), minlength=5) / 4000
    # Four standard deviations of a share near 1/2 in 4000 draws.
    np.testing.assert_allclose(got, want, atol=4 * 0.5 / 4000**0.5)
    assert got[0] == got[4] == 0


def test_greedy_takes_the_lower_index_of_a_tie_and_needs_no_luck():
    logits = np.array([1.0, 3.0, 3.0], np.float32)
    assert set(draw_many(logits, Sampling(), count=20)) == {1}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -0.5}, "temperature >= 0, got -0.5"),
        ({"temperature": float("nan")}, "finite temperature >= 0, got nan"),
        ({"temperature": float("inf")}, "finite temperature >= 0, got inf"),
        ({"top_k": 0}, "top_k >= 1, got 0"),
        ({"top_p": 0.0}, r"0 < top_p <= 1, got 0\.0"),
        ({"top_p": 1.5}, r"0 < top_p <= 1, got 1\.5"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**setting)
