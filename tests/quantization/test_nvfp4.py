import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gossamer.quantization import NVFP4
from tests.quantization.blocks import fields

# As torchao's function gives them: blocks, g, bytes of the block scales, elements' bits, values.
GOLDEN = {
    "a scale of the tensor of 1": (
        [[2688, -1000], [6, -3, 0.5], [7.5, -2.5], [0]],
        1.0,
        [0x7E, 0x38, 0x3A, 0x08],
        ["7C", "7D1", "7C", "0"],
        [[2688, -896], [6, -3, 0.5], [7.5, -2.5], [0]],
    ),
    "two blocks of other sizes": (
        [[1, -0.5, 0.3, 0.1], [0.05, -0.02, 0.013]],
        0.00037202382,
        [0x7E, 0x5B],
        ["7D41", "7C3"],
        [[1, -0.5, 0.33333334, 0.083333336], [0.049107146, -0.016369049, 0.012276786]],
    ),
    "one block": (
        [[3, -2.9, 0.7, 0.26]],
        0.0011160715,
        [0x7E],
        ["7F31"],
        [[3.0000002, -3.0000002, 0.75000006, 0.25]],
    ),
}


@pytest.mark.parametrize(("blocks", "g", "scales", "bits", "values"), GOLDEN.values(), ids=GOLDEN)
def test_golden_blocks(blocks, g, scales, bits, values):
    kernel = np.zeros((16 * len(blocks), 1), np.float32)
    for i, elements in enumerate(blocks):
        kernel[16 * i : 16 * i + len(elements), 0] = elements
    codes = NVFP4().encode(jnp.asarray(kernel))
    assert codes.tensor_scale[0] == np.float32(g)
    stored = np.asarray(codes.scales).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    np.testing.assert_array_equal(stored[:, 0], scales)
    for i, (numbers, want) in enumerate(zip(bits, values, strict=True)):
        part = slice(16 * i, 16 * i + len(numbers))
        got = fields(codes, NVFP4())[part, 0]
        np.testing.assert_array_equal(got, [int(number, 16) for number in numbers])
        np.testing.assert_array_equal(codes.decode()[part, 0], np.array(want, np.float32))


def by_ml_dtypes(kernel: np.ndarray) -> np.ndarray:
    """The formula in NumPy's float32, rounded by casts of ml_dtypes."""
    one = np.float32(1)
    g = np.abs(kernel).max() * np.float32(1 / 2688)
    blocks = (kernel * (one / g)).reshape(-1, 16, kernel.shape[1])
    raw = np.abs(blocks).max(axis=1) * np.float32(1 / 6)
    scales = raw.clip(2.0**-6, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)[:, None]
    elements = (blocks * (one / scales)).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    return ((elements * scales).reshape(kernel.shape) * g).astype(np.float32)


@pytest.mark.parametrize("spread", [0, 4, 12])
def test_a_million_random_values_are_those_of_casts_by_ml_dtypes(spread):
    rng = np.random.default_rng(spread)
    sizes = np.exp2(rng.integers(-spread, spread + 1, (64, 1, 1024)))
    kernel = (rng.standard_normal((64, 16, 1024)) * sizes).reshape(1024, 1024).astype(np.float32)
    got = jax.jit(NVFP4().quantize)(kernel)
    np.testing.assert_array_equal(got, by_ml_dtypes(kernel))


def test_a_tensor_of_zeros_and_one_with_nan():
    assert not NVFP4().quantize(jnp.zeros((32, 2))).any()
    assert jnp.isnan(NVFP4().quantize(jnp.ones((32, 2)).at[0, 0].set(jnp.nan))).all()


def test_bits_count_both_scales():
    assert NVFP4().bits_per_element(1024, 1024) == 4.5 + 32 / 1024**2


def test_torchao_gives_the_same_values():
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
    kernel = np.random.default_rng(3).standard_normal((64, 1024)).astype(np.float32)
    scale = module.per_tensor_amax_to_scale(torch.tensor(np.abs(kernel).max()))
    tensor = module.NVFP4Tensor.to_nvfp4(torch.tensor(kernel), per_tensor_scale=scale)
    want = tensor.dequantize(torch.float32).numpy()
    got = np.asarray(NVFP4().quantize(jnp.asarray(kernel.T))).T
    # It multiplies by (1 / g) / s, so that a quotient beside a tie may go the other way, and
    # decodes in another order, so that values may differ in their last bit.
    assert (np.abs(got - want) > 2.0**-22 * np.abs(want)).mean() < 1e-4
