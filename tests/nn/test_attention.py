import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.nn import attention
from gossamer.nn.attention import KeyValueCache, attend


def random_heads(heads: int, kv_heads: int, length: int, batch: int = 2, head_dim: int = 4):
    rng = np.random.default_rng(heads * 100 + length)
    sizes = [(batch, length, count, head_dim) for count in (heads, kv_heads, kv_heads)]
    return [jnp.asarray(rng.standard_normal(size), jnp.float32) for size in sizes]


def slow_attention(queries, keys, values):
    """The formula, a query and a head at a time, in float64."""
    queries, keys, values = (np.asarray(each, np.float64) for each in (queries, keys, values))
    batch, length, heads, head_dim = queries.shape
    out = np.zeros(queries.shape)
    for b, t, n in np.ndindex(batch, length, heads):
        kv = n * keys.shape[2] // heads
        powers = np.exp(keys[b, : t + 1, kv] @ queries[b, t, n] / np.sqrt(head_dim))
        out[b, t, n] = powers @ values[b, : t + 1, kv] / powers.sum()
    return out.reshape(batch, length, heads * head_dim)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1), (6, 3)])
@pytest.mark.parametrize("length", [1, 3, 8, 11])
def test_attention_follows_its_formula(heads, kv_heads, length, monkeypatch):
    monkeypatch.setattr(attention, "QUERY_CHUNK", 4)  # several chunks, and a shorter last one
    q, k, v = random_heads(heads, kv_heads, length)
    out, cache = attend(q, k, v, None)
    assert cache is None
    np.testing.assert_allclose(out, slow_attention(q, k, v), atol=1e-5)


@pytest.mark.parametrize("parts", [[3, 5, 3], [1, 10], [11], [10, 1]], ids=str)
def test_tokens_that_come_in_parts_see_those_in_the_cache(parts, monkeypatch):
    monkeypatch.setattr(attention, "QUERY_CHUNK", 4)
    q, k, v = random_heads(4, 2, 11)
    cache = KeyValueCache.empty(batch_size=2, num_kv_heads=2, max_tokens=14, head_dim=4)
    outs, first = [], 0
    for part in parts:
        here = slice(first, first + part)
        out, cache = attend(q[:, here], k[:, here], v[:, here], cache)
        outs.append(out)
        first += part
    assert int(cache.length) == 11
    np.testing.assert_allclose(jnp.concatenate(outs, 1), slow_attention(q, k, v), atol=1e-5)


def test_large_scores_do_not_overflow():
    q, k, v = random_heads(2, 2, 5)
    out, _ = attend(100 * q, 100 * k, v, None)
    np.testing.assert_allclose(out, slow_attention_of_the_best(q, k, v), atol=1e-5)


def slow_attention_of_the_best(queries, keys, values):
    """What attention becomes where scores are far apart: the value of the best key."""
    out = np.zeros(queries.shape)
    for b, t, n in np.ndindex(queries.shape[:3]):
        out[b, t, n] = values[b, np.argmax(keys[b, : t + 1, n] @ queries[b, t, n]), n]
    return out.reshape(*queries.shape[:2], -1)


def test_room_in_the_cache_that_is_not_used_does_not_matter():
    q, k, v = random_heads(2, 1, 3)
    cache = KeyValueCache(jnp.full((2, 1, 9, 4), 1e9), jnp.full((2, 1, 9, 4), 1e9), jnp.array(0))
    out, _ = attend(q, k, v, cache)
    np.testing.assert_allclose(out, slow_attention(q, k, v), atol=1e-5)


def test_more_tokens_than_the_cache_has_room_for_are_refused():
    q, k, v = random_heads(2, 2, 5)
    cache = KeyValueCache.empty(batch_size=2, num_kv_heads=2, max_tokens=4, head_dim=4)
    with pytest.raises(ValueError, match="cache of 4 tokens cannot take 5; make it longer"):
        attend(q, k, v, cache)


def test_a_cache_does_not_shrink():
    cache = KeyValueCache.empty(batch_size=1, num_kv_heads=1, max_tokens=4, head_dim=2)
    with pytest.raises(ValueError, match="cache of 4 tokens cannot shrink to 3"):
        cache.resized(3)


def test_a_cache_is_updated_in_place_where_it_is_donated():
    q, k, v = random_heads(2, 2, 1)
    cache = KeyValueCache.empty(batch_size=2, num_kv_heads=2, max_tokens=64, head_dim=4)
    step = jax.jit(lambda q, k, v, cache: attend(q, k, v, cache), donate_argnums=3)
    before = cache.keys.unsafe_buffer_pointer(), cache.values.unsafe_buffer_pointer()
    _, cache = step(q, k, v, cache)
    after = cache.keys.unsafe_buffer_pointer(), cache.values.unsafe_buffer_pointer()
    assert after == before
