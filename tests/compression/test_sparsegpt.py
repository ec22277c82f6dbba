import functools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.compression._sweep import sweep
from gossamer.compression.hessian import inverse_factor
from gossamer.compression.prune import magnitude_mask, wanda_mask
from gossamer.compression.sparsegpt import Solved, sparsegpt
from gossamer.quantization import Int
from gossamer.sparsity import NM, Block, Channel, Unstructured
from tests.compression import oracle
from tests.compression.golden_layer import GRAM, INPUTS, KERNEL

INT4 = Int(4, group=32, scale="bfloat16")
BITWISE = [  # pattern, format: one of each kind of mask and of grid
    (NM(2, 4), None),
    (Unstructured(0.5), None),
    (NM(2, 4), INT4),
    (NM(1, 4), Int(2, group=32, symmetric=False)),
    (Unstructured(0.5), Int(4, group=32, scale="e8m0")),
    (NM(4, 8), Int(8)),
    (None, Int(3, group=64, scale="e4m3")),
    (None, None),
]
RELEASED_SYMMETRIC = {  # bits: scales, zero point, codes, output error, that of nearest rounding
    4: (
        [0.12, 0.1066667],
        8,
        [[15, 5, 11, 9, 3, 10, 12, 8], [10, 14, 5, 14, 9, 1, 8, 12]],
        0.08639,
        0.10701,
    ),
    3: (
        [0.2571429, 0.2285714],
        4,
        [[7, 3, 5, 5, 2, 5, 6, 4], [5, 7, 3, 7, 5, 0, 4, 6]],
        0.31260,
        0.41913,
    ),
}
ASYMMETRIC_CODES = [[15, 2, 10, 7, 0, 9, 11, 5], [10, 15, 5, 14, 9, 0, 9, 12]]
GOLDEN = {  # pattern, format: kernel [out, in], output error
    "half": (
        Unstructured(0.5),
        None,
        [
            [0.9, 0, 0, 0, -0.520320, 0, 0.748909, 0],
            [0, 0.825367, 0, 0.444949, 0, -0.736480, 0, 0.466540],
        ],
        1.42553,
    ),
    "2:4": (
        NM(2, 4),
        None,
        [
            [0.9, 0, 0.180035, 0, -0.574596, 0, 0.690426, 0],
            [0, 0.825367, 0, 0.444949, 0, -0.736480, 0, 0.466540],
        ],
        1.20348,
    ),
    "2:4, 4 bits asymmetric": (
        NM(2, 4),
        Int(4, symmetric=False),
        [[0.9, 0, 0.2, 0, -0.6, 0, 0.7, 0], [0, 0.7, 0, 0.5, 0, -0.7, 0, 0.5]],
        1.11750,
    ),
}


def golden_error(values) -> float:
    return float(np.sum((INPUTS @ (np.asarray(values) - KERNEL)) ** 2))


@functools.cache
def layer(size: int = 256, out: int = 96, dead: tuple[int, ...] = ()):
    """A kernel and the Gram matrix of correlated inputs with heavy-tailed sizes."""
    rng = np.random.default_rng(7)
    mixing = rng.normal(size=(size // 4, size))
    x = rng.normal(size=(4 * size, size // 4)) @ mixing + 2 * rng.normal(size=(4 * size, size))
    x *= np.exp(rng.normal(size=size))
    x[:, list(dead)] = 0
    kernel = rng.normal(size=(size, out)) / np.exp(0.5 * rng.normal(size=(size, 1)))
    return jnp.asarray(kernel, jnp.float32), jnp.asarray(x.T @ x, jnp.float32)


def output_error(values, kernel, gram) -> float:
    w, compressed, h = (np.asarray(a, np.float64) for a in (kernel, values, gram))
    return oracle.output_error(w.T, compressed.T, h)


# ---- golden vectors of the released code


@pytest.mark.parametrize(("pattern", "format", "want", "error"), GOLDEN.values(), ids=GOLDEN)
def test_golden(pattern, format, want, error):
    solved = sparsegpt(jnp.asarray(KERNEL), jnp.asarray(GRAM), pattern=pattern, format=format)
    np.testing.assert_allclose(solved.values.T, want, atol=1e-6)  # printed to six decimals
    np.testing.assert_array_equal(solved.mask.T, np.array(want) != 0)
    assert golden_error(solved.values) == pytest.approx(error, abs=6e-6)


def test_golden_asymmetric_codes_without_a_pattern():
    format = Int(4, symmetric=False)
    solved = sparsegpt(jnp.asarray(KERNEL), jnp.asarray(GRAM), pattern=None, format=format)
    assert solved.codes is not None
    np.testing.assert_allclose(solved.codes.scales, [[0.1, 0.1]], rtol=1e-6)
    np.testing.assert_array_equal(solved.codes.zeros + 8, [[6, 8]])
    np.testing.assert_array_equal(solved.codes.codes.T + 8, ASYMMETRIC_CODES)
    assert golden_error(solved.values) == pytest.approx(0.07750, abs=6e-6)
    assert golden_error(format.encode(jnp.asarray(KERNEL)).decode()) == pytest.approx(0.1175)


@pytest.mark.parametrize("bits", RELEASED_SYMMETRIC)
def test_golden_codes_on_the_released_symmetric_grid(bits):
    scales, zero, want, error, nearest = RELEASED_SYMMETRIC[bits]
    # Its zero point lies in the middle of 2^bits codes, which no symmetric grid of ours has.
    format, middle = Int(bits, symmetric=False), 2 ** (bits - 1)
    grid = (jnp.array([scales], jnp.float32), jnp.full((1, 2), zero - middle, jnp.int8))
    factor = jnp.asarray(inverse_factor(GRAM, 0.01), jnp.float32)
    part = sweep(jnp.asarray(KERNEL), factor, grid, pattern=None, format=format, block=8)
    np.testing.assert_array_equal(part.result.T + middle, want)
    rounded = format.round(jnp.asarray(KERNEL), *grid) * grid[0]
    assert golden_error(part.result * grid[0]) == pytest.approx(error, abs=6e-6)
    assert golden_error(rounded) == pytest.approx(nearest, abs=6e-6)


@pytest.mark.parametrize(("pattern", "format", "want", "error"), GOLDEN.values(), ids=GOLDEN)
def test_oracle_gives_the_golden_vectors(pattern, format, want, error):
    options = {"keep_of": (2, 4)} if isinstance(pattern, NM) else {"sparsity": 0.5}
    grid = None if format is None else oracle.asymmetric(4)
    solved = oracle.solve(KERNEL.T, GRAM, **options, grid=grid)
    np.testing.assert_allclose(solved.weights, want, atol=1e-6)
    assert golden_error(solved.weights.T) == pytest.approx(error, abs=6e-6)


@pytest.mark.parametrize("bits", RELEASED_SYMMETRIC)
def test_oracle_gives_the_golden_codes(bits):
    scales, zero, want, error, _ = RELEASED_SYMMETRIC[bits]
    grid = oracle.fixed(bits, scales, [zero, zero])
    solved = oracle.solve(KERNEL.T, GRAM, grid=grid)
    np.testing.assert_array_equal(solved.codes, want)
    assert golden_error(solved.weights.T) == pytest.approx(error, abs=6e-6)
