"""Golden values: Kao et al., "FLAT", arXiv 2107.06419, table 1 and the authors' poster."""

import pytest

from gossamer.planning import FLAT_MODELS, AttentionShape, activation_bytes, live_elements

MIB = {  # BERT-base, batch 64: M, B, H, and R of 1, 64 and 256 rows
    512: (768, 12, 1.0, 0.251, 0.344, 0.625),
    4096: (27_648, 432, 36, 2.008, 2.531, 4.125),
    65536: (6_340_608, 99_072, 8_256, 32.125, 40.031, 64.125),
}


@pytest.mark.parametrize("length", MIB)
def test_live_elements_are_those_of_the_table(length):
    shape = FLAT_MODELS["bert-base"].shape(length)
    tiles = [("M", None), ("B", None), ("H", None), ("R", 1), ("R", 64), ("R", 256)]
    found = [live_elements(shape, *tile) * 2 / 2**20 for tile in tiles]
    assert found[:3] == list(MIB[length][:3])
    assert found[3:] == pytest.approx(MIB[length][3:], abs=0.0005)  # the table's last digit


def test_all_rows_of_a_head_are_the_head():
    shape = FLAT_MODELS["xlm"].shape(2048)
    assert live_elements(shape, "R", 2048) == live_elements(shape, "H")


@pytest.mark.parametrize(
    ("length", "inputs", "outputs", "scores"), [(512, 3, 1, 8.4), (2048, 12, 4, 130)]
)
def test_tensors_are_as_large_as_the_slides_have_them(length, inputs, outputs, scores):
    shape = AttentionShape(batch=1, sequence=length, heads=16, head_dim=64)
    megabytes = activation_bytes(shape, blocks=1, fused=True) / 1e6
    assert megabytes == pytest.approx(inputs + outputs, rel=0.06)  # printed in whole megabytes
    more = activation_bytes(shape, blocks=1, fused=False) / 1e6 - megabytes
    assert more == pytest.approx(scores, rel=0.04)


def test_memory_of_a_stack_grows_with_blocks_and_scores_with_the_square_of_the_length():
    short, long = (FLAT_MODELS["bert-base"].shape(n, batch=1) for n in (8192, 16384))
    removed = [
        activation_bytes(shape, blocks=1, fused=False)
        - activation_bytes(shape, blocks=1, fused=True)
        for shape in (short, long)
    ]
    # Of the poster's stacks on protein data, which hold more than attention: 3.7 and 14.7 GB.
    assert removed[1] / removed[0] == 4
    assert removed[1] / removed[0] == pytest.approx(14.7 / 3.7, rel=0.01)
    for fused in (False, True):
        one, six = (activation_bytes(short, blocks=n, fused=fused) for n in (1, 6))
        assert six == 6 * one
    fused = [activation_bytes(shape, blocks=1, fused=True) for shape in (short, long)]
    assert fused[1] == 2 * fused[0]


def test_impossible_tiles_are_refused():
    shape = FLAT_MODELS["bert-base"].shape(512)
    with pytest.raises(ValueError, match="R needs the number of rows"):
        live_elements(shape, "R")
    with pytest.raises(ValueError, match="1 to 512 rows, got 513"):
        live_elements(shape, "R", 513)
    with pytest.raises(ValueError, match="1 to 512 rows, got 0"):
        live_elements(shape, "R", 0)
    with pytest.raises(ValueError, match="granularity H a tile has all 512 rows, got 64"):
        live_elements(shape, "H", 64)
    with pytest.raises(ValueError, match="1 block or more, got 0"):
        activation_bytes(shape, blocks=0, fused=True)
