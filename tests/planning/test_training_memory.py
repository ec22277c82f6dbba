import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.planning import (
    Mesh,
    find_chip,
    find_shape,
    parse_partition,
    partitions_of,
    training_memory_use,
)
from gossamer.planning.training_memory import check_training_fits, microbatch_counts

TPU = find_chip("tpu-v4")
GPT = find_shape("gpt-3-175b")
STEP = {"batch": 1536, "sequence": 2048}


def test_gpt_3_takes_what_a_hand_count_gives():
    use = training_memory_use(
        GPT, parse_partition("16,4,1,8"), **STEP, microbatches=384, rematerialize=True
    )
    parameters = 96 * 12 * 12288**2 + 50257 * 12288
    assert use.states == 16 * parameters / (16 * 8)
    assert use.gathered == 0
    # One sequence: 16 of them in flight in 6 blocks, whole; and a block with its gradients:
    # attention's input, normed input, queries, keys, values, output and probabilities, then the
    # feed-forward layer's input, normed input and both sides of its activation.
    tokens = 2048
    attention = 2 * 12288 + (4 * 12288 + 96 * 2048) / 8
    feed_forward = 2 * 12288 + 2 * 49152 / 8
    elements = 16 * 6 * 12288 + 2 * (attention + feed_forward)
    assert use.activations == tokens * (2 * elements + 4 * 50257 / 128)


def test_gathered_weights_are_two_blocks_and_a_gradient():
    use = training_memory_use(
        GPT, parse_partition("8,1,8,8 2D/2D"), **STEP, microbatches=192, rematerialize=True
    )
    assert use.gathered == 3 * 2 * 12 * 12288**2 / 8


@given(st.sampled_from(partitions_of(Mesh.of(4, 8, 16))), st.booleans())
def test_dimensions_and_microbatches_never_take_more_memory(partition, rematerialize):
    def used(name, count):
        return training_memory_use(
            GPT, parse_partition(name), **STEP, microbatches=count, rematerialize=rematerialize
        )

    factors = ",".join(map(str, partition.factors))
    one, two = (used(f"{factors} {name}", 1) for name in ("1D/1D", "2D/2D"))
    assert two.states <= one.states
    assert two.activations <= one.activations
    assert used(f"{factors} 1D/1D", 2).activations <= one.activations


@given(st.integers(1, 5000))
def test_microbatches_are_all_divisors(batch):
    counts = microbatch_counts(parse_partition("1,1,1,1"), batch).tolist()
    assert counts == [count for count in range(1, batch + 1) if batch % count == 0]


def test_the_number_of_microbatches_that_would_fit_does_and_the_next_smaller_does_not():
    six, four = (
        training_memory_use(
            GPT, parse_partition("1,1,64,8 1D/2D"), **STEP, microbatches=count, rematerialize=True
        ).nbytes
        for count in (6, 4)
    )
    assert six <= TPU.memory_bytes < four


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("1,8,8,8", {}, "need to be divided over 82 chips or more .* and are over 8"),
        ("1,1,64,8 1D/2D", {}, "6 microbatches with rematerialization would fit"),
        ("1,1,64,8 2D/2D", {"sequence": 200000}, "2D activations or a shorter sequence"),
    ],
)
def test_what_does_not_fit_is_told_by_how_much_and_what_would(name, sizes, message):
    partition = parse_partition(name)
    with pytest.raises(ValueError, match=message) as error:
        check_training_fits(
            GPT, TPU, partition, **(STEP | sizes), microbatches=1, rematerialize=True
        )
    needed = training_memory_use(
        GPT, partition, **(STEP | sizes), microbatches=1, rematerialize=True
    ).nbytes
    assert f"{needed / 2**30 - 32:.1f} GiB more than it has" in str(error.value)
