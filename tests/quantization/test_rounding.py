import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import HBFP, MX, NVFP4, Codebook, Float8, Int
from gossamer.quantization.codebook import E2M1
from gossamer.quantization.rounding import round_steps

FORMATS = [Int(4, group=8), Int(4, group=8, symmetric=False), HBFP(6, 8), MX("e4m3", 8)]
FORMATS += [MX("e2m1", 8), MX("int8", 8), Float8("e5m2", 8), NVFP4(8), Codebook(E2M1, 8)]


@pytest.mark.parametrize(
    ("steps", "noise", "want"),
    [(2.3, 0.69, 2), (2.3, 0.71, 3), (-2.3, 0.71, -3), (-2.3, 0.69, -2), (5.0, 0.999, 5)],
)
def test_noise_decides_as_the_sum_of_fraction_and_noise_says(steps, noise, want):
    assert round_steps(jnp.array([steps]), jnp.array([noise]))[0] == want


def test_whole_numbers_never_move_however_large():
    whole = jnp.array([127.0, 1048575.0, -4194303.0])
    most = jnp.full(3, np.nextafter(np.float32(1), np.float32(0)))
    np.testing.assert_array_equal(round_steps(whole, most), whole)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_the_mean_of_many_draws_is_the_value(format):
    """Within five standard errors: a draw is one of two, a step s apart, so s / (2 sqrt(n))."""
    inner = jax.random.uniform(jax.random.key(0), (6, 1), minval=-0.6, maxval=0.6)
    kernel = jnp.concatenate([jnp.array([[1.0], [-1.0]]), inner])  # no end of a grid is near
    count = 20_000
    draws = jax.vmap(lambda key: format.quantize(kernel, key))(
        jax.random.split(jax.random.key(1), count)
    )
    step = format.error_bound(kernel, stochastic=True).max()
    off = np.abs(np.asarray(draws, np.float64).mean(0) - np.asarray(kernel, np.float64))
    assert (off[2:] <= 5 * step / (2 * np.sqrt(count))).all()


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_what_a_code_represents_never_moves(format):
    kernel = jax.random.normal(jax.random.key(2), (64, 16))
    # Where there is a scale of the tensor, this one is 1.
    kernel = (kernel * (2000 / jnp.abs(kernel).max())).at[0, 0].set(2688.0)
    values = format.quantize(kernel)
    again = format.encode(values)  # the grid of rounded values may be finer, and holds them too
    exact = again.decode() == values
    noisy = format.quantize(values, jax.random.key(3))
    np.testing.assert_array_equal(jnp.where(exact, noisy, 0), jnp.where(exact, values, 0))
    assert exact.mean() > 0.5


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_a_key_and_its_uniform_numbers_round_alike(format):
    kernel = jax.random.normal(jax.random.key(4), (64, 16))
    key = jax.random.key(5)
    got = format.quantize(kernel, key)
    np.testing.assert_array_equal(got, format.quantize(kernel, jax.random.uniform(key, (64, 16))))
    assert (got != format.quantize(kernel)).any()


def test_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"kernel \(64, 16\) needs a uniform .* shape \(16, 16\)"):
        Int(4).encode(jnp.ones((64, 16)), jnp.zeros((16, 16)))
