"""`gossamer plan step` and `serve` by the command line: figures are those of the library."""

import json

import pytest

from gossamer.loading import save
from gossamer.planning import (
    IDEAL,
    Mesh,
    best_of,
    builtin_shapes,
    find_chip,
    find_shape,
    meshes_of,
    search_serving,
    shape_of,
    step_cost,
    store_weights,
)
from gossamer.recipe import Recipe

TPU = find_chip("tpu-v4")
STEP = ["plan", "step", "--model", "palm-540b", "--chip", "tpu-v4", "--chips", 64]
DECODE = [*STEP, "--phase", "decode", "--context", 2048, "--batch", 64]
SERVE = ["plan", "serve", "palm-62b", "--chips", "tpu-v4", "--context", 2048, "--max-chips", 32]
PNG = b"\x89PNG"


def test_a_step_has_the_figures_of_the_library(gossamer, tmp_path):
    options = ["--layout", "ws-2d", "--attention", "batch", "--weights", "int8", "--cache", "int8"]
    got = gossamer(*DECODE, *options, "--plot", tmp_path / "a.png", "--json").json()
    want = step_cost(
        find_shape("palm-540b"),
        TPU,
        Mesh.of(4, 4, 4),
        layout="ws-2d",
        attention="batch",
        phase="decode",
        batch=64,
        context=2048,
        weights="int8",
        cache="int8",
    )
    for name in (
        "seconds",
        "seconds_per_layer",
        "compute_seconds",
        "memory_seconds",
        "communication_seconds",
        "mfu",
        "chip_ms_per_token",
        "memory_bytes_per_chip",
    ):
        assert got[name] == getattr(want, name)
    assert sum(got["memory_bytes"].values()) == pytest.approx(got["memory_bytes_per_chip"])
    # 170 W, and 1.57 of the world's mean building for each.
    joules = want.chip_ms_per_token / 1e3 * 170 * 1.57
    assert got["joules_per_token"] == pytest.approx(joules)
    assert got["grams_per_token"] == pytest.approx(joules / 3.6e6 * 475)
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    energy = ["--pue", 1.1, "--grams-per-kwh", 100, "--offset", 0.25]
    given = gossamer(*DECODE, *options, *energy, "--json").json()
    assert given["grams_per_token"] == pytest.approx(joules / 1.57 * 1.1 / 3.6e6 * 100)
    assert given["net_grams_per_token"] == pytest.approx(0.75 * given["grams_per_token"])
    assert "after offsets" in gossamer(*DECODE, *options, *energy).out
    shown = gossamer(*DECODE, *options).out
    assert f"{1e3 * want.seconds:.2f} ms" in shown
    assert "GiB a chip: weights" in shown


def test_a_step_by_a_mesh_without_losses_and_with_a_recipe(gossamer):
    mesh = ["plan", "step", "--model", "palm-540b", "--chip", "tpu-v4", "--mesh", "8x2x4"]
    options = ["--context", 2048, "--batch", 64, "--recipe", "2:4-int4", "--losses", "ideal"]
    got = gossamer(*mesh, *options, "--json").json()
    want = step_cost(
        find_shape("palm-540b"),
        TPU,
        Mesh.of(8, 2, 4),
        layout="ws-2d",
        attention="batch",
        phase="decode",
        batch=64,
        context=2048,
        weights=Recipe.load("2:4-int4"),
        constants=IDEAL,
    )
    assert (got["seconds"], got["weights"]) == (want.seconds, "2:4-int4")
    assert got["fixed_seconds"] == 0


def test_heads_are_padded_if_told(gossamer):
    options = [*DECODE, "--layout", "ws-1d", "--weights", "int8"]
    assert "pad them to 64" in " ".join(gossamer(*options).err.split())
    got = gossamer(*options, "--pad-heads", "--json").json()
    assert (got["heads"], got["mesh"]) == (64, "4x4x4")


def test_a_compressed_model_is_planned_as_it_is_stored(gossamer, tmp_path, checkpoint):
    recipe = Recipe.of(r".*\.kernel", weights=Recipe.load("int8").rules[0].weights)
    named = type(checkpoint)(**{**vars(checkpoint), "recipe": recipe.to_dict()})
    save(named, tmp_path / "small")
    options = ["--chip", "cpu", "--chips", 1, "--batch", 1, "--context", 16, "--json"]
    got = gossamer("plan", "step", "--model", tmp_path / "small", *options).json()
    stored = store_weights(shape_of(checkpoint.config), recipe)
    assert got["memory_bytes"]["weights"] == stored.nbytes
    dense = gossamer(
        "plan", "step", "--model", tmp_path / "small", *options, "--weights", "bf16"
    ).json()
    assert dense["memory_bytes"]["weights"] == 2 * shape_of(checkpoint.config).parameters


def test_models_come_from_a_config_and_from_a_file_of_sizes(gossamer, tmp_path, checkpoint):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dict(checkpoint.hf_config)))
    file = tmp_path / "models.yaml"
    file.write_text(
        "mine: {layers: 2, d_model: 64, d_ff: 256, heads: 4, kv_heads: 4, head_dim: 16, "
        "vocabulary: 100}\n"
    )
    options = ["--chip", "cpu", "--chips", 1, "--batch", 1, "--context", 16, "--json"]
    read = gossamer("plan", "step", "--model", config, *options).json()
    assert read["memory_bytes"]["weights"] == 2 * shape_of(checkpoint.config).parameters
    mine = gossamer("plan", "step", "--model", "mine", "--model-file", file, *options).json()
    assert mine["memory_bytes"]["weights"] == 2 * (2 * (4 * 64 * 64 + 3 * 64 * 256) + 64 * 100)


def test_a_search_has_the_fronts_of_the_library(gossamer, tmp_path):
    weights = ["--weights", "bf16", "--recipe", "2:4-int4", "--latency-ms", 30]
    got = gossamer(*SERVE, *weights, "--plot", tmp_path / "a.png", "--json").json()
    found = {
        name: search_serving(
            find_shape("palm-62b"),
            TPU,
            phase="decode",
            context=2048,
            meshes=meshes_of(TPU, 32),
            weights=[each],
            max_seconds=0.03,
        )
        for name, each in (("bf16", "bf16"), ("2:4-int4", Recipe.load("2:4-int4")))
    }
    for name, search in found.items():
        listed = got["weights"][name]
        assert [plan["seconds"] for plan in listed["front"]] == [
            plan.cost.seconds for plan in search.front
        ]
        assert listed["smallest"]["chips"] == search.smallest.mesh.chips
        dense, cheapest = (each.front[-1].cost for each in (found["bf16"], search))
        saved = 1 - cheapest.chip_ms_per_token / dense.chip_ms_per_token
        assert listed["chips_saved"] == pytest.approx(saved)
    want = best_of(search.front for search in found.values())
    assert [(p["mesh"], p["batch"], p["weights"]) for p in got["front"]] == [
        (str(plan.mesh), plan.batch, plan.weights) for plan in want
    ]
    assert got["considered"] == sum(search.considered for search in found.values())
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    shown = gossamer(*SERVE, *weights).out.splitlines()
    assert [line.split()[:2] for line in shown if line.startswith("2:4")] == [["2:4-int4", "1x1x1"]]


def test_weights_that_fit_nowhere_are_said_and_others_are_planned(gossamer):
    outcome = gossamer(*SERVE, "--max-chips", 2, "--weights", "bf16", "--weights", "int4", "--json")
    got = outcome.json()
    assert list(got["weights"]) == ["int4"]
    assert "fits on none of the meshes" in got["impossible"]["bf16"]
    alone = gossamer(*SERVE, "--max-chips", 2, "--weights", "bf16")
    assert alone.status == 2
    assert "GiB more than it has" in " ".join(alone.err.split())


def test_every_model_that_is_known_is_planned(gossamer):
    for name, shape in builtin_shapes().items():
        phase = "decode" if shape.generates else "prefill"
        options = ["--chips", "tpu-v5p", "--context", 64, "--max-chips", 64, "--phase", phase]
        options += ["--batch", 8, "--layout", "ws-2d", "--json"]
        assert gossamer("plan", "serve", name, *options).json()["front"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*STEP, "--context", 8, "--batch", 0], "batch of a step needs 1 or more"),
        ([*STEP, "--context", 8, "--batch", 1, "--mesh", "4x4x4"], "either --chips"),
        ([*STEP[:-2], "--context", 8, "--batch", 1, "--mesh", "4x4"], "three sizes of 1 or more"),
        (
            [*STEP, "--context", 8, "--batch", 1, "--weights", "int8", "--recipe", "int8"],
            "either --weights or --recipe",
        ),
        ([*STEP, "--context", 8, "--batch", 1, "--recipe", "int9"], "neither a recipe file nor"),
        ([*STEP, "--context", 10**8, "--batch", 4], "GiB more than it has"),
        (["plan", "serve", "palm-540c", *SERVE[3:]], "There is no model 'palm-540c'; known are"),
        ([*SERVE, "--chips", "tpu-v9"], "known are a100-80gb"),
        ([*SERVE, "--latency-ms", 0], "--latency-ms needs to be above 0"),
        ([*SERVE, "--latency-ms", 0.1], "the fastest that fits takes"),
        ([*SERVE, "--max-chips", 0], "1 chip or more"),
        ([*SERVE, "--site", "moon"], "no site 'moon'"),
    ],
)
def test_what_cannot_be_served_is_wrong_use_that_names_the_way_out(gossamer, arguments, message):
    outcome = gossamer(*arguments)
    assert outcome.status == 2
    assert message in " ".join(outcome.err.split())
