"""Native attention of one token against plain JAX, over every kind of cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gossamer import kernels
from gossamer.kernels.attention import HEAD_SIZES, why_not
from gossamer.nn.attention import KeyValueCache, attend

pytestmark = pytest.mark.skipif(
    kernels.why_unavailable() is not None, reason=f"no kernels: {kernels.why_unavailable()}"
)


def drawn(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def token(seed, *, batch, heads, kv_heads, size):
    """Queries, keys and values of one token."""
    counts = (heads, kv_heads, kv_heads)
    return [drawn(seed + i, batch, 1, count, size) for i, count in enumerate(counts)]


def float64_attention(queries, cache):
    """Heads' outputs over all that a cache holds, and which of its numbers are meant."""
    keys, values = (np.asarray(part, np.float64) for part in cache.decoded())
    length = int(cache.length)
    batch, size = queries.shape[0], queries.shape[-1]
    rows = np.asarray(queries, np.float64).reshape(batch, keys.shape[1], -1, size)
    scores = np.einsum("bkgh,bksh->bkgs", rows, keys[:, :, :length]) / np.sqrt(size)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    powers /= powers.sum(-1, keepdims=True)
    return np.einsum("bkgs,bksh->bkgh", powers, values[:, :, :length]).reshape(batch, 1, -1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("size", HEAD_SIZES)
def test_steps_attend_over_all_tokens_before_them_and_their_own(size, dtype):
    sizes = {"batch": 2, "heads": 6, "kv_heads": 2, "size": size}
    cache = KeyValueCache.empty(
        batch_size=2, num_kv_heads=2, max_tokens=40, head_dim=size, dtype=dtype
    )
    assert why_not(jnp.zeros((2, 6, size)), cache.planes) is None
    step = jax.jit(attend)
    for index in range(36):  # past two blocks of sixteen
        queries, keys, values = token(3 * index, **sizes)
        out, cache = step(queries, keys, values, cache)
        assert int(cache.length) == index + 1
        # The numbers kept are the same; scores of size 1 and sums of 36 in float32.
        np.testing.assert_allclose(out, float64_attention(queries, cache), atol=5e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_cache_keeps_the_numbers_that_plain_jax_keeps(dtype):
    empty = KeyValueCache.empty(
        batch_size=1, num_kv_heads=2, max_tokens=5, head_dim=32, dtype=dtype
    )
    queries, keys, values = token(1, batch=1, heads=2, kv_heads=2, size=32)
    _, got = jax.jit(attend)(queries, keys, values, empty)
    want = jax.jit(KeyValueCache.append)(
        empty, keys.transpose(0, 2, 1, 3), values.transpose(0, 2, 1, 3)
    )
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_full_cache_is_refused():
    cache = KeyValueCache.empty(batch_size=1, num_kv_heads=1, max_tokens=1, head_dim=32)
    step = functools.partial(attend, *token(1, batch=1, heads=1, kv_heads=1, size=32))
    _, cache = step(cache)
    with pytest.raises(Exception, match="no room for a token more"):
        jax.block_until_ready(step(cache))


def test_a_donated_cache_is_updated_in_place():
    cache = KeyValueCache.empty(batch_size=1, num_kv_heads=1, max_tokens=64, head_dim=32)
    tokens = token(1, batch=1, heads=1, kv_heads=1, size=32)
    step = jax.jit(attend, donate_argnums=3)
    where = cache.keys.unsafe_buffer_pointer()
    _, cache = step(*tokens, cache)
    assert cache.keys.unsafe_buffer_pointer() == where


def test_without_donation_the_old_cache_stays_as_it_was():
    cache = KeyValueCache.empty(batch_size=1, num_kv_heads=1, max_tokens=64, head_dim=32)
    jax.block_until_ready(jax.jit(attend)(*token(1, batch=1, heads=1, kv_heads=1, size=32), cache))
    assert not np.asarray(cache.keys).any()


def test_derivatives_are_those_of_plain_jax():
    cache = KeyValueCache.empty(batch_size=1, num_kv_heads=1, max_tokens=8, head_dim=32)
    queries, keys, values = token(1, batch=1, heads=1, kv_heads=1, size=32)
    # One token: the output is its value, whatever the query.
    gradient = jax.grad(lambda values: attend(queries, keys, values, cache)[0].sum())(values)
    np.testing.assert_allclose(gradient, np.ones_like(values), rtol=1e-6)


def test_what_no_kernel_attends_over_is_said_in_words():
    cache = KeyValueCache.empty(batch_size=1, num_kv_heads=1, max_tokens=8, head_dim=32)
    assert "queries are bfloat16" in why_not(jnp.zeros((1, 1, 32), jnp.bfloat16), cache.planes)
    assert "128 heads share keys" in why_not(jnp.zeros((1, 128, 32)), cache.planes)


def test_each_device_attends_with_its_own_heads():
    mesh = jax.make_mesh((8,), ("heads",), axis_types=(jax.sharding.AxisType.Auto,))
    cache = KeyValueCache.empty(batch_size=1, num_kv_heads=8, max_tokens=8, head_dim=32)
    tokens = token(1, batch=1, heads=16, kv_heads=8, size=32)
    new, kept = PartitionSpec(None, None, "heads"), PartitionSpec(None, "heads")

    def local(queries, keys, values, planes):
        return attend(queries, keys, values, KeyValueCache.of(planes, jnp.int32(0)))[0]

    sharded = jax.shard_map(local, mesh=mesh, in_specs=(new, new, new, kept), out_specs=new)
    got = jax.jit(sharded)(*tokens, cache.planes)
    want, _ = attend(*tokens, cache)
    np.testing.assert_array_equal(got, want)
