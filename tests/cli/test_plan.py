"""`gossamer plan` by the command line: figures are those of the library, and bad input is named."""

import dataclasses
import json

import pytest

from gossamer.loading import save
from gossamer.planning import (
    FLAT_MODELS,
    AttentionModel,
    block_cost,
    block_weights,
    find_chip,
    find_shape,
    parse_slice,
    plan_attention,
    shape_of,
    store_weights,
)
from gossamer.recipe import PRESETS
from tests.inference.tiny import tiny

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
    assert (named.pop("model"), given.pop("model")) == ("bert-base", None)
    assert given == named


@pytest.mark.parametrize("name", ["llama-3-8b", "t5-small", "vit-base-16", "config.json", "saved"])
def test_attention_is_of_any_model_that_is_known_or_can_be_read(gossamer, tmp_path, model, name):
    where, sizes = name, (32, 128)
    if name == "config.json":
        where = tmp_path / name
        fields = {"model_type": "llama", "hidden_size": 96, "num_attention_heads": 4}
        fields |= {"num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 64}
        fields |= {"vocab_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 64}
        fields |= {"rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True}
        where.write_text(json.dumps(fields))
        sizes = (4, 32)
    elif name == "saved":
        config = tiny("llama").config
        where, sizes = model, (config.num_heads, config.head_dim)
    elif name != "llama-3-8b":
        shape = find_shape(name)
        sizes = (shape.heads, shape.head_dim)
    options = ["--model", where, "--chip", "flat-cloud", "--sequence", 64, "--json"]
    got = gossamer("plan", "attention", *options).json()
    assert (got["heads"], got["head_dim"]) == sizes
    layers = got["plans"][0]["block"]["bf16"]["linear_seconds"]
    assert "attention.q_proj.kernel" in layers


def test_attentions_share_of_a_block_is_that_before_and_after_compression(gossamer):
    options = ["--chip", "tpu-v4", "--free-softmax", "--sequence", 64, "--batch", 1]
    line = ["plan", "attention", "--model", "llama-3-8b", *options]
    got = gossamer(*line, "--recipe", "int4", "--json").json()
    assert got["recipe"] == "int4"
    chip, model = find_chip("tpu-v4"), AttentionModel.of(find_shape("llama-3-8b"))
    plan = plan_attention(chip, model.shape(64, batch=1), charge_softmax=False)
    weights = block_weights(chip, model, PRESETS["int4"])
    block = got["plans"][0]["block"]
    for key, each in (("bf16", None), ("stored", weights)):
        cost = block_cost(chip, model, plan.best, weights=each)
        assert block[key]["linear_seconds"] == cost.linear_seconds
        assert block[key]["attention_share"] == cost.attention_share
    assert block["stored"]["attention_share"] > 2 * block["bf16"]["attention_share"]
    shown = gossamer(*line, "--recipe", "int4").out.splitlines()
    assert "int4, ms" in shown[-2]
    assert gossamer(*line, "--json").json()["plans"][0]["block"]["stored"] is None


def test_models_of_a_file_come_before_others(gossamer, tmp_path):
    file = tmp_path / "models.yaml"
    sizes = "layers: 1, d_model: 8, d_ff: 8, heads: 2, kv_heads: 1, head_dim: 4, vocabulary: 9"
    file.write_text(f"bert-base: {{{sizes}}}\n")
    options = ["--model-file", file, "--sequence", 512, "--json"]
    assert gossamer(*CLOUD, *options).json()["heads"] == 2


def test_slices_of_a_size_are_described_side_by_side(gossamer, tmp_path):
    options = ["--chips", 128, "--plot", tmp_path / "a.png", "--goodput-plot", tmp_path / "b.png"]
    got = gossamer("plan", "slice", *options, "--json").json()["slices"]
    assert [row["slice"] for row in got] == ["4x4x8", "4x4x8_T"]
    for row in got:
        assert row["max_link_load"] == parse_slice(row["slice"]).topology.max_link_load
    gain = got[1]["all_to_all_bytes_per_second"] / got[0]["all_to_all_bytes_per_second"]
    assert gain == pytest.approx(1.7455, abs=1e-4)
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert (tmp_path / "b.png").read_bytes().startswith(PNG)
    assert "4x4x8_T" in gossamer("plan", "slice", *options).out


@pytest.mark.parametrize(
    ("options", "weights", "fits"),
    [
        ([], "bf16", [False, True]),
        (["--weights", "int8"], "int8", [True, True]),
        (["--recipe", "2:4-int4"], PRESETS["2:4-int4"], [True, True]),
    ],
)
def test_weights_are_divided_over_a_slice_and_fit_or_not(gossamer, options, weights, fits):
    whole = store_weights(find_shape("palm-540b"), weights).nbytes
    for name, fit in zip(["2x2x4", "4x4x4"], fits, strict=True):
        line = ["plan", "slice", "--slice", name, "--model", "palm-540b", *options]
        [row] = gossamer(*line, "--json").json()["slices"]
        assert row["weight_bytes_per_chip"] == whole / row["chips"]
        assert row["fits"] == fit == (whole / row["chips"] <= find_chip("tpu-v4").memory_bytes)
        assert gossamer(*line).out.splitlines()[1].split()[-1] == ("yes" if fit else "no")


def test_a_slice_without_a_model_has_no_weights(gossamer):
    got = gossamer("plan", "slice", "--slice", "4x4x4", "--json").json()
    assert (got["weight_bytes"], got["slices"][0]["fits"]) == (None, None)
    assert "weights" not in gossamer("plan", "slice", "--slice", "4x4x4").out


def test_weights_of_a_compressed_model_are_those_of_its_own_recipe(gossamer, checkpoint, tmp_path):
    recipe = PRESETS["int8"]
    save(dataclasses.replace(checkpoint, recipe=recipe.to_dict()), tmp_path / "int8")
    line = ["--model", tmp_path / "int8", "--json"]
    got = gossamer("plan", "slice", "--slice", "1x1x1", *line).json()
    assert got["weight_bytes"] == store_weights(shape_of(checkpoint.config), recipe).nbytes
    options = ["--chip", "tpu-v4", "--free-softmax", "--sequence", 64]
    assert gossamer("plan", "attention", *options, *line).json()["recipe"] == "int8"


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
        (["slice", "--slice", "4x4x4", "--weights", "int8"], "are of a model: give --model too"),
        (["slice", "--slice", "4x4x4", "--model", "gpt"], "There is no model 'gpt'; known are"),
        (
            ["slice", "--slice", "4x4x4", "--model", "palm-8b", "--recipe", "none"],
            "neither a recipe file nor a preset",
        ),
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
