"""What every type of weight must do. A new type joins by one line in `WEIGHTS`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gossamer.packing import pack, pack_floats
from gossamer.quantization import Int, QuantAware, Quantized, Scheme
from gossamer.sparsity import NM
from gossamer.weights import Weight, beside, dot, materialize, take

IN, OUT = 64, 24  # OUT fills one and a half tiles of 16
ASYMMETRIC = Int(4, group=16, symmetric=False)
GROUPED = Int(4, group=16, scale="bfloat16")
OUT_LAST, OUT_FIRST = PartitionSpec(None, "out"), PartitionSpec("out")


def quantized(kernel, format, activations=None):
    return Quantized(format.encode(kernel), format, activations)


def aware(kernel, scheme):
    return QuantAware(kernel, scheme)


def packed(kernel, format, pattern=None, activations=None):
    mask = None
    if pattern is not None:
        mask = pattern.mask(jnp.abs(kernel), 0)
        kernel = jnp.where(mask, kernel, 0)
    return pack(format.encode(kernel), format, pattern, mask, activations)


def packed_floats(kernel, pattern):
    mask = pattern.mask(jnp.abs(kernel), 0)
    return pack_floats(jnp.where(mask, kernel, 0), pattern, mask)


def case(make, planes, **arguments):
    return functools.partial(make, **arguments), planes


WEIGHTS = {  # how a kernel [in, out] becomes one, and how its planes are split over `out`
    "array": case(jnp.asarray, OUT_LAST),
    "quantized int4": case(quantized, OUT_LAST, format=GROUPED),
    "quantized asymmetric": case(quantized, OUT_LAST, format=ASYMMETRIC),
    "quantization-aware int4": case(aware, OUT_LAST, scheme=Scheme(weights=GROUPED)),
    "packed int8": case(packed, OUT_FIRST, format=Int(8)),
    "packed int4": case(packed, OUT_FIRST, format=GROUPED),
    "packed int3 e8m0": case(packed, OUT_FIRST, format=Int(3, group=32, scale="e8m0")),
    "packed asymmetric": case(packed, OUT_FIRST, format=ASYMMETRIC),
    "packed 2:4 int4": case(packed, OUT_FIRST, format=GROUPED, pattern=NM(2, 4)),
    "packed 4:8 int4": case(packed, OUT_FIRST, format=GROUPED, pattern=NM(4, 8)),
    "packed 1:4 int2": case(packed, OUT_FIRST, format=Int(2, 16, "e4m3"), pattern=NM(1, 4)),
    "packed 2:4 floats": case(packed_floats, OUT_FIRST, pattern=NM(2, 4)),
}
ROUNDED = {  # those that round their inputs too: `dot` is not x @ materialize()
    "quantized int8": case(quantized, OUT_LAST, format=Int(8), activations=Int(8)),
    "quantization-aware int8": case(
        aware, OUT_LAST, scheme=Scheme(weights=Int(8), activations=Int(8))
    ),
    "packed 2:4 int4": case(
        packed, OUT_FIRST, format=GROUPED, pattern=NM(2, 4), activations=Int(8)
    ),
}


def kernel_of(out):
    return jax.random.normal(jax.random.key(0), (IN, out))


@pytest.fixture(scope="module", params=WEIGHTS)
def weight(request):
    return WEIGHTS[request.param][0](kernel_of(OUT))


def assert_close(got, want):
    """Products of at most 64 terms of size 10, summed in any order in float32."""
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)


def test_weight_has_the_members_of_the_seam(weight):
    assert isinstance(weight, jax.Array | Weight)
    assert weight.shape == (IN, OUT)
    assert materialize(weight).shape == weight.shape
    assert materialize(weight).dtype == weight.dtype


def test_nbytes_is_what_the_planes_hold(weight):
    assert weight.nbytes == sum(plane.nbytes for plane in jax.tree.leaves(weight))


@pytest.mark.parametrize("shape", [(IN,), (2, 20, IN), (0, IN)], ids=str)
def test_dot_is_the_product_with_what_is_materialized(weight, shape):
    x = jax.random.normal(jax.random.key(1), shape)
    assert dot(x, weight).dtype == x.dtype
    assert_close(dot(x, weight), np.asarray(x) @ np.asarray(materialize(weight)))


def test_take_reads_columns_of_what_is_materialized(weight):
    indices = jnp.array([[0, OUT - 1, 15], [16, 16, 7]])
    want = np.asarray(materialize(weight)).T[np.asarray(indices)]
    np.testing.assert_array_equal(take(weight, indices), want)
    np.testing.assert_array_equal(take(weight, jnp.array(7)), want[1, 2])
    np.testing.assert_array_equal(take(weight, jnp.array([-1])), want[:1, 1])


def test_take_outside_the_kernel_gives_nan_and_not_another_column(weight):
    assert np.isnan(take(weight, jnp.array([OUT, OUT + 7, 10 * OUT, -OUT - 1]))).all()


def test_weight_is_a_pytree_of_arrays(weight):
    leaves, structure = jax.tree.flatten(weight)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(weight)
    np.testing.assert_array_equal(materialize(again), materialize(weight))


def test_weight_goes_through_jit_as_an_argument(weight):
    x = jax.random.normal(jax.random.key(2), (3, IN))
    assert_close(jax.jit(dot)(x, weight), dot(x, weight))
    indices = jnp.array([1, 20])
    np.testing.assert_array_equal(jax.jit(take)(weight, indices), take(weight, indices))


def test_shapes_are_known_without_values(weight):
    x = jax.ShapeDtypeStruct((3, IN), jnp.float32)
    assert jax.eval_shape(dot, x, weight).shape == (3, OUT)


def test_dot_maps_over_leading_axes_of_x(weight):
    x = jax.random.normal(jax.random.key(3), (4, 3, IN))
    mapped = jax.vmap(dot, in_axes=(0, None))(x, weight)
    assert_close(mapped, dot(x, weight))


def test_dot_maps_over_stacked_weights(weight):
    stacked = jax.tree.map(lambda plane: jnp.stack([plane, plane]), weight)
    x = jax.random.normal(jax.random.key(4), (2, 3, IN))
    assert_close(jax.vmap(dot)(x, stacked), dot(x, weight))


def test_gradient_in_x_is_the_product_with_the_transpose(weight):
    x = jax.random.normal(jax.random.key(5), (3, IN))
    cotangent = jax.random.normal(jax.random.key(6), (3, OUT))
    gradient = jax.grad(lambda x: jnp.sum(dot(x, weight) * cotangent))(x)
    assert_close(gradient, np.asarray(cotangent) @ np.asarray(materialize(weight)).T)


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_device_multiplies_its_own_outputs(name):
    check_sharded_dot(*WEIGHTS[name])


@pytest.mark.parametrize("name", ROUNDED)
def test_each_device_multiplies_its_own_outputs_with_rounded_inputs(name):
    check_sharded_dot(*ROUNDED[name])


def check_sharded_dot(make, planes):
    mesh = jax.make_mesh((8,), ("out",), axis_types=(jax.sharding.AxisType.Auto,))
    weight = make(kernel_of(128))  # a tile of 16 for each device
    x = jax.random.normal(jax.random.key(7), (3, IN))

    def local(x, weight):
        assert weight.shape == (IN, 16)  # shapes are those of the shard
        return dot(x, weight)

    sharded = jax.jit(
        jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(PartitionSpec(), planes),
            out_specs=OUT_LAST,
        )
    )
    assert_close(sharded(x, weight), dot(x, weight))


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_inputs_change_the_product_little_and_the_gradient_not_at_all(name):
    make, _ = ROUNDED[name]
    weight = make(kernel_of(OUT))
    x = jax.random.normal(jax.random.key(8), (20, IN))
    exact = np.asarray(x) @ np.asarray(materialize(weight))
    error = np.asarray(dot(x, weight)) - exact
    # An int8 row of normal numbers errs by at most half of max / 127, about 1 % of its deviation.
    assert 0 < np.linalg.norm(error) < 0.02 * np.linalg.norm(exact)
    gradient = jax.grad(lambda x: jnp.sum(dot(x, weight)))(x)
    assert_close(gradient, np.ones((20, OUT)) @ np.asarray(materialize(weight)).T)


@pytest.mark.parametrize("name", [name for name in WEIGHTS if "aware" not in name])
def test_kernels_side_by_side_multiply_as_each_does(name):
    make, _ = WEIGHTS[name]
    parts = [make(kernel_of(out)) for out in (16, 32, 24)]  # the last does not fill its tiles
    together = beside(parts)
    assert together is not None
    assert together.shape == (IN, 72)
    x = jax.random.normal(jax.random.key(3), (3, IN))
    want = jnp.concatenate([dot(x, part) for part in parts], axis=-1)
    assert_close(dot(x, together), want)
