import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import HBFP
from tests.quantization.blocks import block

# Nearest rounding, as the quantizer in the code of Harma et al. 2024 gives them: block, exponent,
# and the mantissas of HBFP8, HBFP6 and HBFP4.
GOLDEN = {
    "a power of two is clipped": (
        [1, -1, 0.5, 0.3, 0.01],
        0,
        [127, -127, 64, 38, 1],
        [31, -31, 16, 10, 0],
        [7, -7, 4, 2, 0],
    ),
    "small": ([0.9, -0.45, 0.1, 0.004], 0, [115, -58, 13, 1], [29, -14, 3, 0], [7, -4, 1, 0]),
    "larger than 1": (
        [3, 1.5, 0.02, -0.01, 2.99],
        2,
        [96, 48, 1, 0, 96],
        [24, 12, 0, 0, 24],
        [6, 3, 0, 0, 6],
    ),
    "an outlier": (
        [100, 1, -0.5, 0.39, 0.4],
        7,
        [100, 1, 0, 0, 0],
        [25, 0, 0, 0, 0],
        [6, 0, 0, 0, 0],
    ),
    "beside a power of two": ([2.001, -2, 1], 2, [64, -64, 32], [16, -16, 8], [4, -4, 2]),
}


@pytest.mark.parametrize("bits", [8, 6, 4])
@pytest.mark.parametrize("case", GOLDEN.values(), ids=GOLDEN.keys())
def test_golden_blocks(case, bits):
    values, exponent, *mantissas = case
    codes = HBFP(bits).encode(block(values, 64))
    np.testing.assert_array_equal(codes.codes[: len(values), 0], mantissas[(8 - bits) // 2])
    assert codes.scales[0, 0] == 2.0 ** (exponent - bits + 1)
    assert not codes.codes[len(values) :].any()


def test_ties_go_to_even():
    values = [0.999, 0.5 / 128, 1.5 / 128, 2.5 / 128, 3.5 / 128]
    np.testing.assert_array_equal(HBFP(8).encode(block(values, 64)).codes[1:5, 0], [0, 2, 2, 4])


def by_hand(kernel: np.ndarray, bits: int, size: int) -> np.ndarray:
    """One block at a time in float64."""
    result = np.zeros(kernel.shape)
    for start in range(0, len(kernel), size):
        for output in range(kernel.shape[1]):
            values = kernel[start : start + size, output].astype(np.float64)
            mantissa, exponent = np.frexp(np.abs(values).max())
            exponent = exponent - 1 if mantissa == 0.5 else exponent
            step, most = 2.0 ** (exponent - bits + 1), 2 ** (bits - 1) - 1
            result[start : start + size, output] = np.rint(values / step).clip(-most, most) * step
    return result


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_a_million_random_values_are_those_of_a_float64_loop(bits):
    rng = np.random.default_rng(bits)
    kernel = (rng.standard_normal((1024, 1024)) * np.exp2(rng.integers(-20, 20, (1, 1024)))).astype(
        np.float32
    )
    kernel[::64] = np.exp2(rng.integers(-20, 20, (16, 1024)))  # blocks with powers of two
    got = jax.jit(HBFP(bits).quantize)(kernel)
    np.testing.assert_array_equal(np.asarray(got, np.float64), by_hand(kernel, bits, 64))


def test_exponents_of_small_powers_of_two_are_exact():
    """Where the released code's 1e-8 makes those of 2^-3, 2^-4 and 2^-10 larger."""
    for exponent in (0, -1, -3, -4, -10, -60, -119):
        codes = HBFP(8).encode(block([2.0**exponent], 64))
        assert (int(codes.codes[0, 0]), float(codes.scales[0, 0])) == (127, 2.0 ** (exponent - 7))


def test_blocks_with_nan_or_inf_become_nan_and_others_do_not():
    kernel = jnp.ones((128, 1)).at[3].set(jnp.inf)
    values = HBFP(8).quantize(kernel)
    assert jnp.isnan(values[:64]).all()
    assert (values[64:] == HBFP(8).quantize(jnp.ones((64, 1)))).all()


def test_bits_out_of_range_are_refused():
    with pytest.raises(ValueError, match="HBFP needs 2 <= bits <= 8, got bits=9"):
        HBFP(9)


def test_a_block_that_does_not_divide_the_axis_is_refused():
    with pytest.raises(ValueError, match=r"HBFP8, blocks of 64 needs .* multiple of 64, got 96"):
        HBFP(8).encode(jnp.ones((96, 2)))
