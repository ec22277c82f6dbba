import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gossamer.sparsity import NM, Block, Channel, Unstructured

GOLDEN_2_4 = {  # scores of one group of four, and what 2:4 keeps of them
    "keeps_the_highest": ([4.0, 1.0, 3.0, 2.0], [True, False, True, False]),
    "ties_keep_the_lower_index": ([1.0, 1.0, 1.0, 1.0], [True, True, False, False]),
    "a_tie_at_the_edge_keeps_the_lower_index": ([1.0, 2.0, 1.0, 1.0], [True, True, False, False]),
    "signed_zeros_tie": ([-0.0, 0.0, -0.0, 0.0], [True, True, False, False]),
    "nan_stays_visible": ([np.nan, 1.0, 2.0, 0.0], [True, False, True, False]),
    "infinity_is_high": ([0.0, np.inf, 1.0, -np.inf], [False, True, True, False]),
    "negative_scores_are_scores": ([-1.0, -4.0, -2.0, -3.0], [True, False, True, False]),
}
GOLDEN_UNSTRUCTURED = {  # sparsity, scores, kept
    "prunes_the_lowest": (0.5, [1.0, 4.0, 3.0, 2.0], [False, True, True, False]),
    "ties_keep_the_lower_index": (0.5, [1.0, 1.0, 1.0, 1.0], [True, True, False, False]),
    "signed_zeros_tie": (0.5, [-0.0, 0.0, -0.0, 0.0], [True, True, False, False]),
    "nan_stays_visible": (0.75, [5.0, 9.0, np.nan, 7.0], [False, False, True, False]),
    "the_count_is_rounded_down": (0.7, [1.0, 2.0, 3.0, 4.0], [False, False, True, True]),
    "nothing_is_pruned_at_0": (0.0, [0.0, 0.0, 0.0], [True, True, True]),
}
PRUNED = {  # (sparsity, size): zeros; the float product is next to the integer that was meant
    (0.29, 100): 29,  # 28.999999999999996
    (0.1, 30): 3,  # 3.0000000000000004 on some machines
    (0.7, 10): 7,  # 7.000000000000001 or 6.999999999999999
    (0.57, 100): 57,  # 56.99999999999999
    (1 / 3, 9): 3,
    (2 / 3, 9): 6,
    (1 - 0.9, 10): 1,  # 0.09999999999999998
    (0.5, 7): 3,
    (0.999, 10): 9,
}
SCORES = st.floats(-2, 2, width=32, allow_subnormal=False)  # XLA may flush subnormals to zero
nm_mask = jax.jit(NM.mask, static_argnames=("self", "axis"))
unstructured_mask = jax.jit(Unstructured.mask, static_argnames=("self", "axis"))


@pytest.mark.parametrize(("scores", "kept"), GOLDEN_2_4.values(), ids=GOLDEN_2_4.keys())
def test_nm_golden(scores, kept):
    np.testing.assert_array_equal(NM(2, 4).mask(jnp.array(scores), axis=0), kept)


@pytest.mark.parametrize("pattern", [NM(1, 4), NM(2, 4), NM(4, 8)], ids=str)
@pytest.mark.parametrize(("shape", "axis"), [((3, 8), -1), ((2, 8, 5), 1), ((0, 8), 1)])
@settings(deadline=None, max_examples=30)  # the first example compiles
@given(data=st.data())
def test_nm_agrees_with_a_stable_sort_of_each_group(pattern, shape, axis, data):
    scores = data.draw(arrays(np.float32, shape, elements=SCORES))
    groups = np.moveaxis(scores, axis, -1).reshape(-1, pattern.m)
    want = np.argsort(np.argsort(-groups, kind="stable"), kind="stable") < pattern.n
    got = np.moveaxis(np.asarray(nm_mask(pattern, scores, axis=axis)), axis, -1)
    np.testing.assert_array_equal(got.reshape(want.shape), want)


def test_nm_groups_lie_along_the_axis_and_not_across_it():
    scores = jnp.arange(32.0).reshape(8, 4)  # rises along both axes
    np.testing.assert_array_equal(NM(1, 4).mask(scores, 0), np.tile([[0], [0], [0], [1]], (2, 4)))
    np.testing.assert_array_equal(NM(1, 4).mask(scores, 1), np.tile([0, 0, 0, 1], (8, 1)))


def test_nm_mask_does_not_change_where_the_same_scores_are_scaled():
    scores = jax.random.normal(jax.random.key(0), (16, 5))
    np.testing.assert_array_equal(NM(2, 4).mask(scores, 0), NM(2, 4).mask(4 * scores, 0))


@pytest.mark.parametrize(
    ("sparsity", "scores", "kept"), GOLDEN_UNSTRUCTURED.values(), ids=GOLDEN_UNSTRUCTURED.keys()
)
def test_unstructured_golden(sparsity, scores, kept):
    np.testing.assert_array_equal(Unstructured(sparsity).mask(jnp.array(scores), axis=0), kept)


@pytest.mark.parametrize(("sparsity", "size", "pruned"), [(*k, v) for k, v in PRUNED.items()])
def test_unstructured_prunes_the_floor_of_the_fraction_that_was_meant(sparsity, size, pruned):
    mask = Unstructured(sparsity).mask(jnp.ones(size), axis=0)
    assert size - int(mask.sum()) == pruned


@settings(deadline=None, max_examples=50)
@given(
    scores=arrays(np.float32, (4, 6), elements=st.floats(-2, 2, width=16)),
    percent=st.sampled_from([0, 25, 50, 99]),  # each compiles
)
def test_unstructured_agrees_with_a_stable_sort_of_everything(scores, percent):
    pruned = percent * scores.size // 100
    best_first = np.argsort(-scores.reshape(-1), kind="stable")
    want = np.ones(scores.size, bool)
    want[best_first[scores.size - pruned :]] = False
    got = unstructured_mask(Unstructured(percent / 100), scores, axis=0)
    np.testing.assert_array_equal(got, want.reshape(scores.shape))


def test_unstructured_within_each_output_by_vmap_prunes_every_output_alike():
    scores = jax.random.normal(jax.random.key(1), (10, 7))
    by_output = jax.vmap(Unstructured(0.3).mask, in_axes=(1, None), out_axes=1)(scores, 0)
    np.testing.assert_array_equal(by_output.sum(axis=0), [7] * 7)
    assert not np.array_equal(by_output, Unstructured(0.3).mask(scores, 0))


def test_block_shape_is_given_along_the_reduction_axis_first():
    # Blocks of four inputs of one output; sums by block are [[10, 26], [42, 5]].
    scores = np.array([[1, 5], [2, 6], [3, 7], [4, 8], [9, 2], [10, 1], [11, 1], [12, 1]], float)
    want = np.array([[0, 1]] * 4 + [[1, 0]] * 4, bool)
    pattern = Block(0.5, (4, 1))
    np.testing.assert_array_equal(pattern.mask(jnp.array(scores), axis=0), want)
    np.testing.assert_array_equal(pattern.mask(jnp.array(scores), axis=-2), want)
    np.testing.assert_array_equal(pattern.mask(jnp.array(scores.T), axis=1), want.T)
    np.testing.assert_array_equal(pattern.mask(jnp.array(scores.T), axis=-1), want.T)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(2, 3), (4, 1), (1, 6), (4, 6)])
def test_block_agrees_with_a_loop_over_blocks(shape, axis):
    high, wide = shape if axis == 0 else shape[::-1]
    scores = np.random.default_rng(3).integers(0, 5, (12, 12)).astype(np.float32)  # with ties
    sums = {
        (r, c): scores[r : r + high, c : c + wide].sum()
        for r in range(0, 12, high)
        for c in range(0, 12, wide)
    }
    best_first = sorted(sums, key=lambda corner: (-sums[corner], corner))
    want = np.zeros((12, 12), bool)
    for r, c in best_first[: len(sums) - len(sums) // 4]:
        want[r : r + high, c : c + wide] = True
    np.testing.assert_array_equal(Block(0.25, shape).mask(jnp.array(scores), axis), want)


def test_block_with_a_nan_is_kept():
    scores = jnp.array([[9.0, 1.0], [9.0, jnp.nan]])
    np.testing.assert_array_equal(Block(0.5, (2, 1)).mask(scores, 0), [[0, 1], [0, 1]])


def test_channel_prunes_whole_positions_of_the_axis():
    scores = jnp.array([[1.0, 1.0, 1.0], [9.0, 0.0, 0.0], [2.0, 2.0, 2.0]])  # sums 3, 9, 6
    np.testing.assert_array_equal(
        Channel(1 / 3).mask(scores, 0), [[False] * 3, [True] * 3, [True] * 3]
    )
    np.testing.assert_array_equal(  # sums 12, 3, 3: the first of the equal ones stays
        Channel(1 / 3).mask(scores, 1), [[True, True, False]] * 3
    )


def test_channel_of_more_than_two_axes():
    scores = jnp.zeros((2, 4, 3)).at[:, 1].set(1.0).at[0, 2, 0].set(5.0)
    mask = Channel(0.5).mask(scores, axis=1)
    np.testing.assert_array_equal(mask, np.broadcast_to([[[0], [1], [1], [0]]], (2, 4, 3)))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (NM(2, 4), "2:4"),
        (Unstructured(0.5), "50% unstructured"),
        (Unstructured(0.125), "12.5% unstructured"),
        (Unstructured(0.29), "29% unstructured"),
        (Block(0.75, (16, 1)), "75% in blocks of 16x1"),
        (Channel(0.25), "25% of channels"),
    ],
)
def test_pattern_prints_as_what_it_does(pattern, text):
    assert str(pattern) == text


def test_sparsity_of_nm_is_the_fraction_of_zeros():
    assert NM(1, 4).sparsity == 0.75


def test_nm_refuses_groups_that_would_run_across_rows():
    with pytest.raises(ValueError, match=r"2:4 .* axis 1 .* got 6 in shape \(2, 6\)"):
        NM(2, 4).mask(jnp.ones((2, 6)), axis=1)  # 12 elements divide by 4, a row of 6 does not


@pytest.mark.parametrize(("n", "m"), [(5, 4), (0, 4), (-1, 4)])
def test_nm_that_keeps_nothing_or_too_much_is_refused(n, m):
    with pytest.raises(ValueError, match=f"1 <= n <= m, got n={n}, m={m}"):
        NM(n, m)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan"), 50.0])
@pytest.mark.parametrize(
    "make",
    [Unstructured, Channel, lambda s: Block(s, (2, 2))],
    ids=["Unstructured", "Channel", "Block"],
)
def test_a_fraction_outside_0_to_1_is_refused(make, sparsity):
    with pytest.raises(ValueError, match=f"needs 0 <= sparsity < 1, got sparsity={sparsity}"):
        make(sparsity)


def test_block_refuses_what_its_blocks_do_not_fill():
    with pytest.raises(
        ValueError, match=r"axis 0 to be a multiple of 4 and the other of 2, got 6 and 8 in shape"
    ):
        Block(0.5, (4, 2)).mask(jnp.ones((6, 8)), axis=0)
    with pytest.raises(ValueError, match=r"axis -1 .* of 4 .* of 2, got 6 and 8 in shape \(8, 6\)"):
        Block(0.5, (4, 2)).mask(jnp.ones((8, 6)), axis=-1)
    with pytest.raises(ValueError, match=r"two axes, got shape \(2, 2, 2\)"):
        Block(0.5, (1, 1)).check((2, 2, 2), axis=0)


@pytest.mark.parametrize("shape", [(0, 4), (4, -1)])
def test_block_of_no_size_is_refused(shape):
    with pytest.raises(ValueError, match="two positive lengths, got shape="):
        Block(0.5, shape)


def test_sums_of_bfloat16_scores_are_not_rounded():
    """In bfloat16, which has 8 bits, 256 + 1 would tie with 256 + 0."""
    scores = jnp.array([[256.0, 0.0], [256.0, 1.0]], jnp.bfloat16)
    np.testing.assert_array_equal(Channel(0.5).mask(scores, 0), [[False] * 2, [True] * 2])
    np.testing.assert_array_equal(Block(0.5, (1, 2)).mask(scores, 0), [[False] * 2, [True] * 2])


@pytest.mark.parametrize("pattern", [NM(3, 16), NM(3, 32), NM(64, 128)], ids=str)
def test_large_groups_agree_with_a_stable_sort_ties_and_zeros_of_both_signs_included(pattern):
    random = np.random.default_rng(0)
    scores = random.integers(-2, 3, (256, 3)).astype(np.float32) * random.choice([-1, 1], (256, 3))
    groups = np.moveaxis(scores, 0, -1).reshape(-1, pattern.m)
    want = np.argsort(np.argsort(-groups, kind="stable"), kind="stable") < pattern.n
    got = np.moveaxis(np.asarray(nm_mask(pattern, scores, axis=0)), 0, -1)
    np.testing.assert_array_equal(got.reshape(want.shape), want)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 16), NM(1, 32), NM(16, 128)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_mask_of_groups_takes_no_more_memory_than_a_few_copies_of_the_scores(pattern, axis):
    """All pairs of a group at once would be m copies: JaxPruner's 2:4 has three of temporaries."""
    scores = jax.ShapeDtypeStruct((4096, 4096), jnp.float32)
    temporaries = nm_mask.lower(pattern, scores, axis=axis).compile().memory_analysis()
    copies = temporaries.temp_size_in_bytes / (4 * 4096 * 4096)
    assert copies <= (1 if pattern.m <= 16 else 4)
