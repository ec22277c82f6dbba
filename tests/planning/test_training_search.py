import time

import pytest

from gossamer.planning import (
    Mesh,
    ModelShape,
    find_chip,
    find_shape,
    parse_partition,
    plan_partition,
    search_training,
    training_meshes,
)

TPU = find_chip("tpu-v4")
GPT, PALM_62B = find_shape("gpt-3-175b"), find_shape("palm-62b")
SLICES = training_meshes(TPU, 512)
# Thoppilan et al. 2022, arXiv 2201.08239, section 3.
LAMDA = ModelShape(
    name="lamda-137b",
    layers=64,
    d_model=8192,
    d_ff=65536,
    heads=128,
    kv_heads=128,
    head_dim=128,
    vocabulary=32000,
)
LLMS = (PALM_62B, LAMDA, GPT, find_shape("palm-540b-padded"), find_shape("mt-nlg-530b"))
# Jouppi et al. 2023, arXiv 2304.01433, table 3: the slower way and the faster.
LLM_WAYS = (("4x8x16", "[1,1,16,32] 2D/2D"), ("8x8x8", "[1,1,64,8] 1D/2D"))
GPT_WAYS = (("8x8x8", "[8,1,8,8] 2D/2D"), ("4x8x16", "[16,4,1,8] 1D/1D"))


def rate(shape, way, batch, sequence, overlap=True):
    """Sequences a second of a slice and a partition, with the best microbatches."""
    [mesh] = [each for each in SLICES if str(each) == way[0]]
    plan = plan_partition(
        shape, TPU, mesh, parse_partition(way[1]), batch=batch, sequence=sequence, overlap=overlap
    )
    return plan.step.sequences_per_second


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("batch", [64, 256, 512, 1024, 1536, 2048, 3072, 4096])
def test_the_way_found_for_gpt_3_is_ranked_before_the_experts(batch, overlap):
    expert, found = (rate(GPT, way, batch, 2048, overlap) for way in GPT_WAYS)
    assert found > expert


@pytest.mark.parametrize(("overlap", "within"), [(True, 0.2), (False, 0.1)])
@pytest.mark.parametrize("batch", [1536, 3072])
def test_gpt_3_takes_the_measured_time_though_nothing_is_fitted_to_it(batch, overlap, within):
    # 21.0 and 25.0 in the paper, which does not tell the batch; these are two of MLPerf's.
    expert, found = (rate(GPT, way, batch, 2048, overlap) for way in GPT_WAYS)
    assert expert == pytest.approx(21.0, rel=within)
    assert found == pytest.approx(25.0, rel=within)


# Sizes, batch and sequence of the paper's LLM are not published: hence a grid.
TIES = {("lamda-137b", 2048)}
GRID = [
    (shape, batch, sequence)
    for shape in LLMS
    for sequence in (512, 1024, 2048)
    for batch in (64, 128, 256, 512, 1024, 2048)
    if batch * sequence >= 2**17 and (shape.name, sequence) not in TIES
]


@pytest.mark.parametrize(("shape", "batch", "sequence"), GRID, ids=lambda value: str(value)[:20])
def test_the_way_found_for_the_llm_is_ranked_before_the_novices(shape, batch, sequence):
    novice, found = (rate(shape, way, batch, sequence) for way in LLM_WAYS)
    assert found > novice


@pytest.mark.parametrize("shape", LLMS[:3], ids=lambda shape: shape.name)
@pytest.mark.parametrize("sequence", [1024, 2048])
def test_without_overlap_the_order_is_the_same_up_to_175_billion_parameters(shape, sequence):
    novice, found = (rate(shape, way, 512, sequence, overlap=False) for way in LLM_WAYS)
    assert found > novice


@pytest.mark.parametrize("shape", LLMS[3:], ids=lambda shape: shape.name)
def test_without_overlap_the_order_turns_where_weights_are_larger(shape):
    # Their memory leaves room for so few sequences at once that weights come too often.
    novice, found = (rate(shape, way, 512, 2048, overlap=False) for way in LLM_WAYS)
    assert found < novice


def test_the_order_turns_where_steps_are_small():
    # 128 tokens of each chip do not hide the gathering of weights.
    for shape in (PALM_62B, LAMDA):
        novice, found = (rate(shape, way, 64, 1024) for way in LLM_WAYS)
        assert found < novice


def test_the_order_turns_by_two_percent_where_scores_fit_on_the_novices_chips_alone():
    # 4 heads of 2048 x 2048 scores stay on a chip, and 16 do not.
    novice, found = (rate(LAMDA, way, 512, 2048) for way in LLM_WAYS)
    assert 0.97 < found / novice < 1


def test_the_partition_that_palm_540b_was_trained_with_is_found():
    # Chowdhery et al. 2022, arXiv 2204.02311, section 4 and table 3: in each of two pods of 3072
    # chips weights are over 256 x 12 chips, half a batch of 2048; MFU 45.7 % without attention,
    # and two pods are 1.95 times as fast as one.
    palm = find_shape("palm-540b")
    found = search_training(palm, TPU, meshes=training_meshes(TPU, 3072), batch=1024, sequence=2048)
    assert found.plans[0].partition.factors == (1, 1, 256, 12)
    # The measured time lies between that of both assumptions.
    with_overlap, without = (
        plan_partition(
            palm,
            TPU,
            Mesh.of(12, 16, 16),
            parse_partition("[1,1,256,12] 2D/2D"),
            batch=1024,
            sequence=2048,
            overlap=overlap,
        ).step.mfu
        for overlap in (True, False)
    )
    one_pod = 0.457 * 2 / 1.95
    assert without < one_pod < with_overlap
    assert with_overlap == pytest.approx(one_pod, rel=0.25)
    assert without == pytest.approx(one_pod, rel=0.1)


def test_a_search_finds_nothing_slower_than_what_is_asked_for():
    found = search_training(GPT, TPU, meshes=SLICES, batch=1536, sequence=2048)
    for mesh, name in GPT_WAYS:
        [plan] = [
            plan for plan in found.plans if (str(plan.mesh), str(plan.partition)) == (mesh, name)
        ]
        assert plan.step.sequences_per_second == rate(GPT, (mesh, name), 1536, 2048)
    seconds = [plan.step.seconds for plan in found.plans]
    assert seconds == sorted(seconds)
    assert max(plan.step.memory_bytes_per_chip for plan in found.plans) <= TPU.memory_bytes
    assert set(found.left_out) == {"does not divide", "does not fit"}


def test_512_chips_are_searched_in_seconds_though_types_are_checked_here():
    start = time.process_time()
    found = search_training(GPT, TPU, meshes=SLICES, batch=1536, sequence=2048)
    assert time.process_time() - start < 5.0  # a tenth of a second where they are not
    assert found.considered > 2000


def test_two_dimensional_toruses_have_rectangles():
    meshes = training_meshes(find_chip("tpu-v5e"), 64)
    assert [str(mesh) for mesh in meshes] == ["1x64x1", "2x32x1", "4x16x1", "8x8x1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meshes": []}, "needs slices to choose from"),
        ({"meshes": training_meshes(TPU, 8)}, r"294.3 GiB more than it has, .* give more chips"),
        ({"batch": 7, "meshes": [Mesh.of(4, 4, 20)]}, "No partition divides gpt-3-175b"),
    ],
)
def test_a_search_without_a_result_says_why(changes, message):
    settings = {"meshes": SLICES, "batch": 1536, "sequence": 2048} | changes
    with pytest.raises(ValueError, match=message):
        search_training(GPT, TPU, **settings)


def test_numbers_of_chips_without_slices_are_refused():
    with pytest.raises(ValueError, match="No slice has 100 chips"):
        training_meshes(TPU, 100)
    with pytest.raises(ValueError, match="needs 1 chip or more"):
        training_meshes(find_chip("tpu-v5e"), 0)


def test_one_partition_that_does_not_fit_is_told_what_would():
    with pytest.raises(ValueError, match="need to be divided over 82 chips or more"):
        plan_partition(
            GPT, TPU, Mesh.of(8, 8, 8), parse_partition("1,8,8,8"), batch=1536, sequence=2048
        )
