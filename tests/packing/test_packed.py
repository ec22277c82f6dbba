import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from gossamer import weights
from gossamer.packing import Packed, pack, pack_floats
from gossamer.quantization import Codes, Int, Quantized
from gossamer.sparsity import NM

SHAPE = (64, 40)
INT4 = Int(4, group=16, scale="bfloat16")
ASYMMETRIC = Int(5, group=16, symmetric=False)


@functools.cache
def made(kind: str, shape: tuple[int, int] = SHAPE) -> tuple[Packed, jax.Array]:
    """A packed kernel and the values that it stands for."""
    values = jax.random.normal(jax.random.key(0), shape)
    if kind in ("dense", "asymmetric"):
        format = INT4 if kind == "dense" else ASYMMETRIC
        codes = format.encode(values)
        return pack(codes, format), codes.decode()
    pattern = NM(4, 8) if kind == "bitmap" else NM(2, 4)
    mask = pattern.mask(jnp.abs(values), axis=0)
    values = jnp.where(mask, values, 0)
    if kind == "floats":
        return pack_floats(values, pattern, mask), values
    codes = INT4.encode(values)
    return pack(codes, INT4, pattern, mask), codes.decode()


KINDS = ("dense", "asymmetric", "positions", "bitmap", "floats")
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_packed_answers_the_seam(kind):
    packed, want = made(kind)
    assert isinstance(packed, weights.Weight)
    np.testing.assert_array_equal(weights.materialize(packed), want)
    assert packed.nbytes == sum(plane.nbytes for plane in jax.tree.leaves(packed))


@each_kind
@pytest.mark.parametrize("rows", [(), (1,), (2, 3), (17,), (5, 8)], ids=str)  # 16 rows or fewer go
def test_dot_multiplies_by_the_values(kind, rows):  # tile by tile, more at once
    packed, want = made(kind)
    x = jax.random.normal(jax.random.key(1), (*rows, SHAPE[0]))
    # 64 products of about 1, summed in another order: a few units in the last place of 10.
    np.testing.assert_allclose(weights.dot(x, packed), x @ want, atol=1e-5)


@each_kind
def test_dot_is_differentiable_in_x(kind):
    packed, want = made(kind)
    x = jax.random.normal(jax.random.key(1), (3, SHAPE[0]))
    got = jax.grad(lambda x: jnp.sum(weights.dot(x, packed) ** 2))(x)
    np.testing.assert_allclose(got, 2 * (x @ want) @ want.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("format", [INT4, ASYMMETRIC], ids=str)
@pytest.mark.parametrize("rows", [1, 20])
def test_integer_products_equal_those_of_quantized_but_for_the_rounding_of_sums(format, rows):
    codes = format.encode(jax.random.normal(jax.random.key(0), SHAPE))
    x = jax.random.normal(jax.random.key(1), (rows, SHAPE[0]))
    want = jax.jit(Quantized.dot)(Quantized(codes, format, Int(8)), x)
    packed = pack(codes, format, activations=Int(8))
    # Integers are exact; each of 4 groups, of at most 100, is rounded 3 times on either side.
    np.testing.assert_allclose(jax.jit(Packed.dot)(packed, x), want, rtol=0, atol=24 * 100 * 2**-24)


@each_kind
def test_take_reads_columns_exactly(kind):
    packed, want = made(kind)
    indices = jnp.array([[0, 39, 16], [15, 15, 31]])
    got = weights.take(packed, indices)
    np.testing.assert_array_equal(got, jnp.moveaxis(want[:, indices], 0, -1))


def test_take_does_not_unpack_the_vocabulary():
    codes = Codes(jnp.zeros((64, 16384), jnp.int8), jnp.ones((1, 16384)))
    embedding = pack(codes, Int(8))
    compiled = jax.jit(Packed.take).lower(embedding, jnp.zeros(4, jnp.int32)).compile()
    analysis = compiled.memory_analysis()
    # The scratch memory is a few times the four tiles of 1 KB; the table has 1 MB.
    assert analysis.temp_size_in_bytes < 32 * 1024


def test_leaves_need_not_be_arrays():
    packed, _ = made("positions")
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(lambda: packed))
    assert jax.tree.leaves(shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))[0] == (3, 256)


@each_kind
def test_stacked_kernels_map_over_their_first_axis(kind):
    packed, want = made(kind)
    stack = jax.tree.map(lambda plane: jnp.stack([plane, plane]), packed)
    assert stack.shape == (2, *SHAPE)
    x = jax.random.normal(jax.random.key(1), (2, 3, SHAPE[0]))
    got = jax.vmap(weights.dot)(x, stack)
    np.testing.assert_allclose(got, x @ want, atol=1e-5)


@each_kind
def test_shards_over_outputs_know_their_own_shape(kind):
    packed, want = made(kind, (64, 128))
    mesh = Mesh(np.array(jax.devices()[:4]), ("out",))
    x = jax.random.normal(jax.random.key(1), (3, 64))
    shapes = []

    def local(x, kernel):
        shapes.append(kernel.shape)
        return weights.dot(x, kernel)

    product = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("out")), out_specs=P(None, "out"))
    np.testing.assert_allclose(jax.jit(product)(x, packed), x @ want, atol=1e-5)
    assert set(shapes) == {(64, 32)}


def test_packing_runs_in_shards_over_outputs():
    values = jax.random.normal(jax.random.key(0), (64, 64))
    mask = NM(2, 4).mask(jnp.abs(values), axis=0)
    mesh = Mesh(np.array(jax.devices()[:4]), ("out",))

    def local(values, mask):
        return pack(INT4.encode(jnp.where(mask, values, 0)), INT4, NM(2, 4), mask)

    columns = P(None, "out")
    sharded = jax.shard_map(local, mesh=mesh, in_specs=(columns, columns), out_specs=P("out"))
    want = local(values, mask)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(sharded)(values, mask), want)


def test_floats_have_no_codes():
    with pytest.raises(ValueError, match=r"packed kernel \(64, 40\) holds float32 values and no"):
        made("floats")[0].unpack()


def test_kernels_before_the_last_must_fill_their_tiles_to_lie_side_by_side():
    whole, _ = made("positions", (64, 32))
    part, _ = made("positions", (64, 40))
    assert whole.beside([part]).shape == (64, 72)
    assert part.beside([whole]) is None
    other, _ = made("dense", (64, 32))
    assert whole.beside([other]) is None
