import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.quantization import MX
from tests.quantization.blocks import block, fields

FIRST = [1, -2, 0.3, 0.07, 100, -0.001]
SECOND = [0.9, 0.45, -0.3, 0.2, 0.05, 0.01]
THIRD = [448, -449, 480, 500, 3.3]
# With floor scales and ties to even, as microxcaling's `even` gives them: element, block, scale
# byte, elements' bits (None where only values are known), values.
GOLDEN = [
    ("e4m3", FIRST, 125, "48 D0 3A 29 7C 82", [1, -2, 0.3125, 0.0703125, 96, -0.0009765625]),
    (
        "e4m3",
        SECOND,
        118,
        "7E 76 F2 6D 5D 4A",
        [0.875, 0.4375, -0.3125, 0.203125, 0.05078125, 0.009765625],
    ),
    ("e4m3", THIRD, 127, "7E FE 7E 7E 45", [448, -448, 448, 448, 3.25]),
    ("e5m2", FIRST, 118, "60 E4 59 50 7A B8", [1, -2, 0.3125, 0.0625, 96, -0.0009765625]),
    (
        "e5m2",
        SECOND,
        111,
        "7B 77 F5 72 6A 61",
        [0.875, 0.4375, -0.3125, 0.1875, 0.046875, 0.009765625],
    ),
    ("e5m2", THIRD, 120, "7B FB 7B 7B 5F", [448, -448, 448, 448, 3.5]),
    ("e3m2", FIRST, 129, "04 28 01 00 1E 20", [1, -2, 0.25, 0, 96, -0.0]),
    (
        "e3m2",
        SECOND,
        122,
        "1F 1B 39 16 0E 05",
        [0.875, 0.4375, -0.3125, 0.1875, 0.046875, 0.009765625],
    ),
    ("e3m2", THIRD, 131, "1F 3F 1F 1F 03", [448, -448, 448, 448, 3]),
    ("e2m3", FIRST, 131, "00 21 00 00 1C 20", [0, -2, 0, 0, 96, -0.0]),
    (
        "e2m3",
        SECOND,
        124,
        "1E 16 32 0D 03 01",
        [0.875, 0.4375, -0.3125, 0.203125, 0.046875, 0.015625],
    ),
    ("e2m3", THIRD, 133, "1E 3E 1F 1F 00", [448, -448, 480, 480, 0]),
    (
        "e2m1",
        [6, 5, 3.5, 2.5, 1.75, 0.25, -0.75],
        127,
        "7 6 6 4 4 0 A",
        [6, 4, 4, 2, 2, 0, -1],
    ),
    ("e2m1", [4, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5], 127, None, [4, 0, 1, 1, 2, 2, 4, 4]),
    ("e2m1", [7, -6.9, 1.25, 0.6], 127, "7 F 2 1", [6, -6, 1, 0.5]),
    ("e2m1", FIRST, 131, "0 8 0 0 7 8", [0, -0.0, 0, 0, 96, -0.0]),
    ("int8", FIRST, 133, "01 FE 00 00 64 00", [1, -2, 0, 0, 100, 0]),
    (
        "int8",
        SECOND,
        126,
        "73 3A DA 1A 06 01",
        [0.8984375, 0.453125, -0.296875, 0.203125, 0.046875, 0.0078125],
    ),
    ("int8", [7, -6.9, 1.25, 0.6], 129, "70 92 14 0A", [7, -6.875, 1.25, 0.625]),
    ("int8", [1.999, 1, -1.999], 127, "7F 40 81", [1.984375, 1, -1.984375]),
    ("int8", [1, 1.5 / 128, 2.5 / 128], 127, "40 01 01", [1, 1 / 64, 1 / 64]),
    ("e4m3", [3e38, 1e30], 246, None, [2.9774707e38, 0]),
]


@pytest.mark.parametrize(("element", "values", "byte", "bits", "want"), GOLDEN)
def test_golden_blocks(element, values, byte, bits, want):
    format = MX(element)
    codes = format.encode(block(values, 32))
    assert format.scale_bytes(codes)[0, 0] == byte
    if bits is not None:
        numbers = [int(number, 16) for number in bits.split()]
        np.testing.assert_array_equal(fields(codes, format)[: len(values), 0], numbers)
    got = codes.decode()[: len(values), 0]
    np.testing.assert_array_equal(got, np.array(want, np.float32))
    np.testing.assert_array_equal(jnp.signbit(got), np.signbit(np.array(want)))
    assert not codes.decode()[len(values) :].any()


# What the largest element becomes, and the exponent of the scale, by rule.
RULES = {
    5.0: {"e2m1": [(4, 0), (4, 1), (4, 0), (4, 0)], "e4m3": [(5, -6), (5, -5), (5, -6), (5, -6)]},
    6.0: {"e2m1": [(6, 0), (6, 1), (6, 0), (6, 0)], "e4m3": [(6, -6), (6, -5), (6, -6), (6, -6)]},
    6.9: {"e2m1": [(6, 0), (6, 1), (6, 1), (6, 0)], "e4m3": [(7, -6), (7, -5), (7, -6), (7, -6)]},
    7.0: {"e2m1": [(6, 0), (8, 1), (8, 1), (8, 1)], "e4m3": [(7, -6), (7, -5), (7, -6), (7, -6)]},
    7.9: {"e2m1": [(6, 0), (8, 1), (8, 1), (8, 1)], "e4m3": [(7, -6), (8, -5), (8, -5), (8, -5)]},
    8.0: {"e2m1": [(8, 1), (8, 1), (8, 1), (8, 1)], "e4m3": [(8, -5), (8, -5), (8, -5), (8, -5)]},
}


@pytest.mark.parametrize("absmax", RULES)
@pytest.mark.parametrize("element", ["e2m1", "e4m3"])
def test_rules_of_scales_golden(absmax, element):
    for rule, want in zip(("floor", "ceil", "rceil", "even"), RULES[absmax][element], strict=True):
        format = MX(element, rule=rule)
        codes = format.encode(block([absmax], 32))
        byte = int(format.scale_bytes(codes)[0, 0])
        assert (float(codes.decode()[0, 0]), byte - 127) == want, rule


def by_hand(kernel: np.ndarray, format: MX) -> np.ndarray:
    """In float64 with exponents from frexp and values from a table of all elements."""
    if format.element == "int8":
        grid, highest = np.arange(-127, 128) / 64, 0
    else:
        from tests.quantization.test_minifloat import FACTS, numbers

        grid, highest = numbers(format.element), FACTS[format.element][3]
    blocks = kernel.astype(np.float64).reshape(-1, format.group, kernel.shape[1])
    absmax = np.abs(blocks).max(axis=1, keepdims=True)
    scale = np.exp2(np.frexp(absmax)[1] - 1 - highest)
    x = np.clip(blocks / scale, grid[0], grid[-1])
    above = np.searchsorted(grid, x).clip(1, len(grid) - 1)
    low, high = grid[above - 1], grid[above]
    even = (np.abs(np.arange(len(grid)) - len(grid) // 2) % 2 == 0)[above - 1]
    down = (x - low < high - x) | ((x - low == high - x) & even)
    return (np.where(down, low, high) * scale).reshape(kernel.shape)


@pytest.mark.parametrize("element", ["e4m3", "e5m2", "e3m2", "e2m3", "e2m1", "int8"])
def test_a_million_random_values_and_ties_are_those_of_float64(element):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((1024, 1024)) * np.exp2(rng.integers(-20, 20, (1, 1024)))
    kernel[:, ::3] = rng.integers(-512, 513, (1024, 342)) / 32  # full of ties
    kernel[::32, ::5] = np.exp2(rng.integers(-9, 9, (32, 205)))  # powers of two on top
    kernel = kernel.astype(np.float32)
    got = jax.jit(MX(element).quantize)(kernel)
    np.testing.assert_array_equal(np.asarray(got, np.float64), by_hand(kernel, MX(element)))


def test_the_scale_beside_a_power_of_two_is_exact():
    """A rounded log2 takes the largest number below 2^20 for 2^20."""
    below = float(np.nextafter(np.float32(2.0**20), np.float32(0)))
    codes = MX("e4m3").encode(block([below], 32))
    assert MX("e4m3").scale_bytes(codes)[0, 0] == 127 + 19 - 8


def test_one_nan_or_inf_makes_a_block_nan_and_no_other():
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        format = MX("e4m3")
        codes = format.encode(jnp.ones((64, 2)).at[0, 0].set(bad))
        assert format.scale_bytes(codes)[0, 0] == 255
        values = codes.decode()
        assert jnp.isnan(values[:32, 0]).all()
        assert (values[32:, 0] == 1).all()
        assert (values[:, 1] == 1).all()


@pytest.mark.parametrize("element", ["e4m3", "e2m1", "int8"])
def test_numbers_too_small_for_float32_arithmetic_are_0_and_not_nan(element):
    values = MX(element).quantize(block([2.0**-126, 3e-39, 1e-45], 32))
    assert jnp.isfinite(values).all()
    assert not values[1:].any()


def test_unknown_elements_and_rules_are_refused():
    format = MX("e4m3")  # type checkers see these; a user's program has none
    object.__setattr__(format, "rule", "nearest")
    with pytest.raises(ValueError, match=r"MX needs a rule in \['floor'.*got 'nearest'"):
        format.__post_init__()
    object.__setattr__(format, "element", "e8m0")
    with pytest.raises(ValueError, match=r"MX needs an element in \['e4m3'.*got 'e8m0'"):
        format.__post_init__()


def test_microxcaling_gives_the_same_values():
    """The reference code of the standard's authors, if its folder is on the path."""
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("mx.mx_ops", reason="microxcaling is no package of PyPI")
    rng = np.random.default_rng(3)
    kernel = rng.standard_normal((1024, 256)) * np.exp2(rng.integers(-20, 20, (1, 256)))
    kernel[:, ::3] = rng.integers(-512, 513, (1024, 86)) / 32  # full of ties
    kernel = kernel.astype(np.float32)
    names = {"e4m3": "fp8_e4m3", "e5m2": "fp8_e5m2", "e3m2": "fp6_e3m2", "e2m3": "fp6_e2m3"}
    for element, name in (*names.items(), ("e2m1", "fp4_e2m1"), ("int8", "int8")):
        want = reference._quantize_mx(
            torch.tensor(kernel), 8, elem_format=name, axes=[0], block_size=32, round="even"
        )
        np.testing.assert_array_equal(jax.jit(MX(element).quantize)(kernel), want.numpy())
