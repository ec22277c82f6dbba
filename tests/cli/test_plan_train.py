"""`gossamer plan train` by the command line: what is given, and what is searched."""

import pytest

from gossamer.planning import (
    find_chip,
    find_shape,
    search_training,
    store_weights,
    training_meshes,
)
from gossamer.recipe import Recipe

RUN = ["plan", "train", "--chip", "tpu-v4", "--chips", 64, "--mfu", 0.4, "--parameters", 1e9]
SEARCH = ["plan", "train", "--chip", "tpu-v4", "--tokens", 300e9]
GPT = [*SEARCH, "--model", "gpt-3-175b", "--chips", 512, "--batch", 1536, "--sequence", 2048]
LLAMA = ["plan", "train", "--chip", "tpu-v5e", "--chips", 64, "--tokens", 1e9, "--watts", 200]
LLAMA += ["--model", "llama-2-7b", "--batch", 64, "--sequence", 2048]


def test_a_training_run_has_the_energy_of_its_chip_hours(gossamer):
    options = ["--tokens", 2e10, "--goodput", 0.5, "--pue", 1.2, "--offset", 0.25]
    got = gossamer(*RUN, *options, "--json").json()
    seconds = 6e9 * 2e10 / (64 * 275e12 * 0.4) / 0.5
    assert got["chip_hours"] == pytest.approx(64 * seconds / 3600)
    assert got["footprint"]["joules"] == pytest.approx(64 * seconds * 170 * 1.2)
    assert got["footprint"]["net_grams"] == pytest.approx(0.75 * got["footprint"]["grams"])
    assert "after offsets" in gossamer(*RUN, *options).out


def test_parameters_have_no_partitions_and_the_mfu_that_is_given(gossamer):
    got = gossamer(*RUN, "--tokens", 2e10, "--json").json()
    assert (got["partitions"], got["mfu"], got["model"]) == ([], 0.4, None)
    assert got["stored_bytes"] is None


def test_a_model_is_searched_and_the_run_has_the_speed_of_the_best(gossamer):
    got = gossamer(*GPT, "--json").json()
    chip = find_chip("tpu-v4")
    found = search_training(
        find_shape("gpt-3-175b"),
        chip,
        meshes=training_meshes(chip, 512),
        batch=1536,
        sequence=2048,
    )
    rows = got["partitions"]
    assert [(row["slice"], row["partition"]) for row in rows] == [
        (str(plan.mesh), str(plan.partition)) for plan in found.plans
    ]
    best = found.plans[0].step
    assert rows[0]["seconds"] == best.seconds
    assert got["mfu"] == best.mfu
    assert got["tokens_per_second"] == pytest.approx(2048 * best.sequences_per_second)
    assert got["hours"] == pytest.approx(300e9 / got["tokens_per_second"] / 3600)
    shown = gossamer(*GPT).out.splitlines()
    assert shown[1].split()[:2] == [rows[0]["slice"], rows[0]["partition"].split()[0]]
    assert f"MFU {best.mfu:.1%}" in shown[-3]


def test_one_slice_and_partition_is_asked_about_as_it_is_printed(gossamer):
    got = gossamer(*GPT, "--slice", "8x8x8", "--partition", "[8,1,8,8] 2D/2D", "--json").json()
    [row] = got["partitions"]
    assert (row["slice"], row["partition"]) == ("8x8x8", "[8,1,8,8] 2D/2D")
    everything = gossamer(*GPT, "--json").json()["partitions"]
    assert row in everything
    on_slice = gossamer(*GPT, "--slice", "8x8x8", "--json").json()["partitions"]
    assert on_slice == [each for each in everything if each["slice"] == "8x8x8"]


def test_without_overlap_of_what_weights_move_a_step_takes_longer(gossamer):
    way = [*GPT, "--slice", "8x8x8", "--partition", "[8,1,8,8] 2D/2D", "--json"]
    assert gossamer(*way, "--no-overlap").json()["mfu"] < gossamer(*way).json()["mfu"]


def test_a_recipe_of_integers_trains_faster_and_stores_less(gossamer):
    way = ["--slice", "8x8x1", "--partition", "1,1,8,8 1D/2D"]
    dense, packed = (
        gossamer(*LLAMA, *way, *recipe, "--json").json() for recipe in ([], ["--recipe", "w8a8"])
    )
    assert packed["hours"] < dense["hours"]
    shape = find_shape("llama-2-7b")
    assert packed["weights"] == "w8a8"
    assert packed["stored_bytes"] == store_weights(shape, Recipe.load("w8a8")).nbytes
    assert packed["bf16_bytes"] == dense["stored_bytes"] == 2 * shape.parameters
    assert "as w8a8, 13.5 GB in bf16" in gossamer(*LLAMA, *way, "--recipe", "w8a8").out


def test_a_saved_model_is_read_off_its_folder(gossamer, model):
    sizes = ["--tokens", 1e6, "--chips", 1, "--batch", 8, "--sequence", 16]
    got = gossamer("plan", "train", "--chip", "tpu-v4", "--model", model, *sizes, "--json").json()
    assert got["model"] == model.name
    assert [row["partition"] for row in got["partitions"]] == ["[1,1,1,1] 1D/1D"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chips", 64], "Give either --model"),
        (["--chips", 64, "--model", "palm-8b", "--parameters", 8e9], "Give either --model"),
        (["--chips", 64, "--parameters", 8e9], "give --mfu too, or --model"),
        (
            ["--chips", 64, "--parameters", 8e9, "--mfu", 0.4, "--recipe", "int4", "--batch", 8],
            "give --batch, --recipe with --model",
        ),
        (["--chips", 64, "--model", "palm-8b", "--mfu", 0.4], "leave out --mfu"),
        (["--chips", 64, "--model", "palm-8b", "--batch", 8], "needs --sequence too"),
        ([*GPT[6:], "--partition", "1,1,64,8"], "give --slice too"),
        ([*GPT[6:], "--slice", "4x8x16_T"], "planned for 4x4x32, 4x8x16, 8x8x8, without twists"),
        ([*GPT[6:], "--slice", "8x8x8", "--partition", "8x8"], "A partition is named by"),
        ([*GPT[6:], "--slice", "8x8x8", "--partition", "1,8,8,8"], "82 chips or more"),
        ([*GPT[6:], "--slice", "8x8x8", "--partition", "8,1,1,64"], "96 heads do not divide"),
        ([*GPT[6:], "--recipe", "nothing"], "nothing"),
        ([*GPT[6:], "--chips", 8], "GiB more than it has"),
        ([*GPT[6:], "--chips", 100], "No slice has 100 chips"),
        ([*GPT[6:], "--chip", "h100-sxm"], "h100-sxm is on none"),
    ],
    ids=lambda value: " ".join(map(str, value[-4:])) if isinstance(value, list) else "",
)
def test_wrong_combinations_are_named_with_the_way_out(gossamer, arguments, message):
    outcome = gossamer(*SEARCH, *arguments)
    assert outcome.status == 2
    assert message in " ".join(outcome.err.split())


def test_a_training_run_without_tokens_or_watts_is_wrong_use(gossamer):
    assert "tokens needs to be positive" in gossamer(*RUN, "--tokens", 0).err
    outcome = gossamer(*RUN, "--tokens", 1e9, "--chip", "tpu-v5e")
    assert outcome.status == 2
    assert "give its mean power" in " ".join(outcome.err.split())
