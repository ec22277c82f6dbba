import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.packing.groups import (
    compress,
    expand_bitmap,
    expand_positions,
    fill,
    index_bits,
    positions,
)
from gossamer.sparsity import NM

SIZES = (2, 4, 8, 16)
PATTERNS = [NM(n, m) for m in SIZES for n in range(1, m)]


def random_mask(pattern: NM, groups: int, lanes: int, seed: int) -> np.ndarray:
    """A mask `[in, lanes]` with exactly N in every group."""
    scores = np.random.default_rng(seed).random((groups, pattern.m, lanes))
    rank = np.argsort(np.argsort(scores, axis=1), axis=1)
    return (rank < pattern.n).reshape(-1, lanes)


def test_positions_are_used_where_they_are_no_longer_than_a_bitmap():
    used = {str(pattern) for pattern in PATTERNS if index_bits(pattern) is not None}
    want = "1:2 1:4 2:4 1:8 2:8 1:16 2:16 3:16 4:16"  # N log2 M <= M
    assert used == set(want.split())


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p.n in (1, 3, 7, 15)], ids=str)
def test_kept_weights_come_back_in_their_places(pattern):
    keep = random_mask(pattern, groups=3, lanes=5, seed=pattern.n)
    values = np.random.default_rng(1).integers(-128, 128, keep.shape).astype(np.int8)

    @jax.jit
    def there_and_back(values, keep):
        bitmap = fill(keep, pattern)
        kept, places = compress(values, bitmap, pattern), positions(bitmap, pattern)
        by_bitmap = expand_bitmap(kept, bitmap, pattern)
        return kept, places, by_bitmap, expand_positions(kept, places, pattern)

    kept, places, by_bitmap, by_places = there_and_back(jnp.array(values), jnp.array(keep))
    np.testing.assert_array_equal(kept.T.ravel(), values.T[keep.T])  # ascending for each lane
    np.testing.assert_array_equal(places.T.ravel(), np.nonzero(keep.T)[1] % pattern.m)
    want = np.where(keep, values, 0)
    np.testing.assert_array_equal(by_bitmap, want)
    np.testing.assert_array_equal(by_places, want)


def test_groups_that_keep_fewer_are_filled_with_the_lowest_free_places():
    keep = jnp.array([False, False, True, False, False, False, False, False])[:, None]
    assert [bin(word) for word in fill(keep, NM(2, 4))[:, 0].tolist()] == ["0b101", "0b11"]
