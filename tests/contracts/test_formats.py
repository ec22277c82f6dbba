"""What every number format must do. A new format joins by one line in `FORMATS`."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.packing import FolderWriter, PackedFolder, account, pack
from gossamer.quantization import E2M1, HBFP, MX, NVFP4, ClipSearch, Codebook, Float8, Int
from gossamer.quantization.scales import SCALE_BITS
from gossamer.recipe import Recipe, Rule

FORMATS = {  # a format and the relative error it may have on normal numbers
    # A grid of step s errs by s / sqrt(12); s is about 3 deviations / qmax.
    "int8": (Int(8), 0.01),
    "int8 per channel, e8m0 scales": (Int(8, scale="e8m0"), 0.02),  # a scale up to twice as large
    "int8 asymmetric": (Int(8, symmetric=False), 0.01),
    "int4 groups": (Int(4, group=16, scale="bfloat16"), 0.12),
    "int4 asymmetric": (Int(4, group=16, symmetric=False), 0.12),
    "int3": (Int(3, group=8, scale="e4m3"), 0.25),
    "int2": (Int(2, group=8, scale="e4m3"), 0.75),
    "int2 with clip search": (Int(2, group=8, clip=ClipSearch()), 0.45),
    # A float with m bits behind its point errs by 2^-m / sqrt(12) / 1.4 of a number, and clips.
    "HBFP8": (HBFP(8), 0.01),
    "HBFP4": (HBFP(4, group=16), 0.16),
    "MXFP8 E4M3": (MX("e4m3"), 0.04),
    "MXFP8 E5M2": (MX("e5m2"), 0.07),
    "MXFP6 E2M3": (MX("e2m3"), 0.04),
    "MXFP6 E3M2": (MX("e3m2"), 0.07),
    "MXFP4": (MX("e2m1"), 0.15),
    "MXFP4, rceil": (MX("e2m1", rule="rceil"), 0.15),
    "MXINT8": (MX("int8"), 0.01),
    "NVFP4": (NVFP4(), 0.12),
    "float8": (Float8("e4m3"), 0.04),
    "float8 groups": (Float8("e5m2", group=16, scale="bfloat16"), 0.07),
    "codebook": (Codebook(E2M1, group=16), 0.14),
}
KERNEL = jax.random.normal(jax.random.key(0), (64, 24))


@pytest.fixture(params=FORMATS)
def format(request):
    return FORMATS[request.param][0]


@pytest.mark.parametrize(("format", "bound"), FORMATS.values(), ids=FORMATS.keys())
def test_error_is_that_of_the_bits(format, bound):
    error = format.encode(KERNEL).decode() - KERNEL
    assert 0 < jnp.linalg.norm(error) < bound * jnp.linalg.norm(KERNEL)


def test_codes_and_scales_have_the_shapes_and_ranges_that_the_format_says(format):
    codes = format.encode(KERNEL)
    planes = (format.groups(64), 24)
    assert (codes.codes.shape, codes.codes.dtype) == ((64, 24), format.code_dtype)
    assert (codes.scales.shape, codes.scales.dtype) == (planes, jnp.float32)
    assert (codes.zeros is None) == format.symmetric
    low, high = format.ends
    for plane in (codes.codes, codes.zeros):
        values = None if plane is None else plane.astype(jnp.float32)
        assert values is None or low <= values.min() <= values.max() <= high
    assert codes.scales.min() > 0


def test_the_account_of_bits_is_that_of_the_planes(format):
    codes = format.encode(KERNEL)
    bits = codes.codes.size * format.bits + codes.scales.size * SCALE_BITS[format.scale]
    bits += 0 if codes.zeros is None else codes.zeros.size * 8
    bits += 0 if codes.tensor_scale is None else 32
    assert format.bits_per_element(64, 24) == bits / KERNEL.size


def test_codes_are_the_same_under_jit_and_vmap(format):
    want = format.encode(KERNEL)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(format.encode)(KERNEL), want)
    stacked = jax.vmap(format.encode)(KERNEL[None])
    jax.tree.map(lambda got, one: np.testing.assert_array_equal(got[0], one), stacked, want)


def test_codes_on_the_grid_of_a_kernel_are_those_of_encode(format):
    """What solvers that round a row at a time rely on."""
    codes = format.encode(KERNEL)
    per_group = 64 // format.groups(64)
    kernel = KERNEL if codes.tensor_scale is None else KERNEL * (1 / codes.tensor_scale)
    for row in (0, 17, 63):
        zeros = None if codes.zeros is None else codes.zeros[row // per_group]
        got = format.round(kernel[row], codes.scales[row // per_group], zeros)
        np.testing.assert_array_equal(got, codes.codes[row])


def test_zero_is_exact_and_a_kernel_of_zeros_too(format):
    kernel = KERNEL.at[::3].set(0.0)
    np.testing.assert_array_equal(format.encode(kernel).decode()[::3], np.zeros((22, 24)))
    np.testing.assert_array_equal(format.encode(jnp.zeros((64, 2))).decode(), np.zeros((64, 2)))


def test_each_output_is_quantized_on_its_own(format):
    if format.tensor_scale(KERNEL) is not None:
        pytest.skip("outputs share a scale of the tensor")
    loud = KERNEL.at[:, 3].multiply(1000.0)
    got, want = format.encode(loud), format.encode(KERNEL)
    others = np.arange(24) != 3
    np.testing.assert_array_equal(got.codes[:, others], want.codes[:, others])


def test_no_element_is_off_by_more_than_the_error_bound(format):
    """Nor with a draw, whose bound is a whole step; and the bound is not idle."""
    for scale in (1.0, 1e-3, 777.0):
        kernel = scale * jax.random.normal(jax.random.key(1), (64, 200))
        for noise in (None, jax.random.key(2)):
            off = jnp.abs(format.quantize(kernel, noise) - kernel)
            bound = format.error_bound(kernel, stochastic=noise is not None)
            groups = off.reshape(bound.shape[0], -1, 200).max(axis=1)
            assert (groups <= bound).all()
            assert (groups > 0.5 * bound).mean() > 0.05


def test_quantize_is_encode_and_decode(format):
    values = format.quantize(KERNEL)
    np.testing.assert_array_equal(values, format.decode(format.encode(KERNEL)))
    np.testing.assert_array_equal(jax.jit(format.quantize)(KERNEL), values)


def test_codes_survive_packing_and_a_file(format, tmp_path):
    packed = pack(format.encode(KERNEL), format)
    writer = FolderWriter(tmp_path / "model", job="")
    writer.add_shard("model.safetensors", {"w": packed})
    writer.finish({})
    read = PackedFolder(tmp_path / "model").read("w")
    np.testing.assert_array_equal(read.materialize(), format.quantize(KERNEL))
    assert 8 * account(read).nbytes == 8 * packed.nbytes
    used = account(read).bits - account(read).padding
    assert used == format.bits_per_element(64, 24) * KERNEL.size


def test_format_is_a_value(format):
    twin = copy.deepcopy(format)
    assert twin == format
    assert hash(twin) == hash(format)
    recipe = Recipe(rules=(Rule(path=".*", weights=format),))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
