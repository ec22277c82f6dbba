import json

import pytest

from gossamer.cli import demo
from gossamer.loading import save
from tests.inference.tiny import tiny

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "head_dim": 16,
    "num_layers": 1,
    "max_positions": 512,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that every recipe of the demo suits."""
    folder = tmp_path_factory.mktemp("models") / "dense"
    save(tiny("llama", **SIZES), folder)
    return folder


def test_the_demo_compares_its_recipes_and_lets_the_smallest_speak(gossamer, model, tmp_path):
    out = tmp_path / "demo"
    outcome = gossamer("demo", "--model", model, "--out", out)
    assert outcome.status == 0, outcome.err
    result = json.loads((out / "demo.json").read_text())
    assert [(row["recipe"], row["method"]) for row in result["rows"]] == list(demo.RECIPES)
    smallest = min(result["rows"], key=lambda row: row["bytes_on_disk"])
    assert result["generation"]["model"] == smallest["folder"]
    assert f"{smallest['folder']} continues:\n  {demo.PROMPT}" in outcome.out
    for row in result["rows"]:
        assert f"{row['perplexity']:.2f}" in outcome.out
        assert row["bytes_on_disk"] < result["bytes_float32"]
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_uses_no_result_of_the_first(gossamer, model, tmp_path):
    out = tmp_path / "demo"
    first = gossamer("demo", "--model", model, "--out", out, "--json").json()
    for row in first["rows"]:  # were one read again, this would fail
        for file in (out / row["folder"].split("/")[-1]).iterdir():
            file.write_bytes(b"broken")
    second = gossamer("demo", "--model", model, "--out", out, "--json").json()
    keys = ("recipe", "method", "perplexity", "bytes_on_disk")
    assert [[row[key] for key in keys] for row in second["rows"]] == [
        [row[key] for key in keys] for row in first["rows"]
    ]


def test_an_output_that_is_a_file_fails_before_any_work(gossamer, model, tmp_path):
    (tmp_path / "demo").write_text("mine")
    outcome = gossamer("demo", "--model", model, "--out", tmp_path / "demo")
    assert (outcome.status, outcome.out) == (1, "")
    assert str(tmp_path / "demo") in outcome.err
    assert "perplexity" not in outcome.err
    assert (tmp_path / "demo").read_text() == "mine"


def test_a_model_that_a_recipe_does_not_suit_fails_before_any_work(gossamer, tmp_path):
    save(tiny("llama", max_positions=512), tmp_path / "dense")
    outcome = gossamer("demo", "--model", tmp_path / "dense", "--out", tmp_path / "demo")
    assert outcome.status == 1
    assert "'int4' does not suit this model" in outcome.err
    assert not (tmp_path / "demo").exists()
