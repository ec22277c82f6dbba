"""`gossamer plan` by the command line: figures are those of the library, and bad input is named."""

import pytest

from gossamer.planning import FLAT_MODELS, find_chip, parse_slice, plan_attention

CLOUD = ["plan", "attention", "--model", "bert-base", "--chip", "flat-cloud"]
PNG = b"\x89PNG"


def test_attention_plans_each_length_as_the_library_does(gossamer, tmp_path):
    lengths = ["--sequence", 512, "--sequence", 262144]
    got = gossamer(*CLOUD, *lengths, "--plot", tmp_path / "a.png", "--json").json()
    assert [plan["fuse"] for plan in got["plans"]] == [True, False]
    want = plan_attention(find_chip("flat-cloud"), FLAT_MODELS["bert-base"].shape(512))
    first = got["plans"][0]
    assert first["fused"]["seconds"] == want.fused.seconds
    assert (first["block_q"], first["best"]) == (want.block_q, "fused")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    shown = gossamer(*CLOUD, *lengths).out.splitlines()
    assert [line.split()[:2] for line in shown[1:]] == [["512", "yes"], ["262144", "no"]]


def test_attention_of_heads_that_are_given_is_that_of_a_model_with_as_many(gossamer):
    named = gossamer(*CLOUD, "--sequence", 512, "--json").json()
    sizes = ["--heads", 12, "--head-dim", 64, "--sequence", 512, "--json"]
    given = gossamer("plan", "attention", "--chip", "flat-cloud", *sizes).json()
    assert given == named


def test_slices_of_a_size_are_described_side_by_side(gossamer, tmp_path):
    options = ["--chips", 128, "--plot", tmp_path / "a.png"]
    got = gossamer("plan", "slice", *options, "--json").json()["slices"]
    assert [row["slice"] for row in got] == ["4x4x8", "4x4x8_T"]
    for row in got:
        assert row["max_link_load"] == parse_slice(row["slice"]).topology.max_link_load
    gain = got[1]["all_to_all_bytes_per_second"] / got[0]["all_to_all_bytes_per_second"]
    assert gain == pytest.approx(1.7455, abs=1e-4)
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert "4x4x8_T" in gossamer("plan", "slice", *options).out


def test_a_part_of_a_cube_has_no_goodput(gossamer):
    [row] = gossamer("plan", "slice", "--slice", "2x2x2", "--json").json()["slices"]
    assert row["goodput"] is None
    assert " - " in gossamer("plan", "slice", "--slice", "2x2x2").out


def test_chips_have_their_sources_and_those_of_a_file_come_first(gossamer, tmp_path):
    file = tmp_path / "chips.yaml"
    file.write_text("mine: {bf16_flops: 1.0e+12, memory_bytes: 1000, memory_bandwidth: 2000}\n")
    got = gossamer("plan", "chips", "--chip-file", file, "--json").json()["chips"]
    assert next(iter(got)) == "mine"
    assert "table 4" in got["tpu-v4"]["sources"]["bf16_flops"]
    assert gossamer("plan", "chips", "--chip-file", file).out.splitlines()[1].startswith("mine ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attention", "--chip", "tpu-v9", "--heads", 1, "--head-dim", 8], "known are a100-80gb"),
        (["attention", "--chip", "flat-edge"], "needs --model, or --heads and --head-dim"),
        (["attention", "--chip", "flat-edge", "--model", "gpt"], "known are bert-base"),
        (["attention", "--chip", "flat-edge", "--heads", 0, "--head-dim", 8], "heads of attention"),
        (["slice"], "Give either --slice"),
        (["slice", "--slice", "4x4x9"], "Legal near it are 4x4x8, 4x4x12"),
        (["slice", "--chips", 100], "No slice has 100 chips; next to it are 64 and 128"),
        (["slice", "--chips", 64, "--chip", "h100-sxm"], "on a 3D torus, and h100-sxm has none"),
        (["slice", "--chips", 64, "--host-availability", 1.5], "1.5"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_cannot_be_planned_is_wrong_use_that_names_the_way_out(gossamer, arguments, message):
    tokens = ["--sequence", 512] if arguments[0] == "attention" else []
    outcome = gossamer("plan", *arguments, *tokens)
    assert outcome.status == 2
    assert message in " ".join(outcome.err.split())
