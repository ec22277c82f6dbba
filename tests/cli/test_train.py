import json

import pytest
import yaml

from gossamer.training import PRESETS
from tests.training.runs import RECIPE, run


@pytest.fixture
def config(tmp_path):
    """A YAML file of a run of seconds, sparse."""
    from gossamer.sparsity.methods import SRSTE

    text = tmp_path / "text.txt"
    text.write_text("hello, hello, he fell; " * 60)
    data = run(method=SRSTE(recipe=RECIPE), steps=4).to_dict()
    data["data"] |= {"text": str(text), "held_out": 0.2}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def test_a_model_is_trained_and_the_other_commands_take_it(gossamer, config, tmp_path):
    out = tmp_path / "run"
    got = gossamer("train", config, "--out", out, "--json").json()
    assert (got["steps"], got["skipped"], got["pruned_weights"]) == (4, 0, 3)
    assert got["sparsity"] == pytest.approx(0.5)
    assert got["flops"] > 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["evaluation_loss"] == got["loss"]

    text = tmp_path / "text.txt"
    small = ["--text", text, "--context", 16, "--windows", 2]
    evaluated = gossamer("eval", got["model"], *small, "--json").json()
    assert evaluated["predictions"] == 30
    packed = ["--recipe", "2:4", "--method", "magnitude", "--windows", 0]
    report = gossamer("compress", got["model"], *packed, "--out", tmp_path / "small", "--json")
    assert report.json()["bytes_on_disk"] > 0

    again = gossamer("train", config, "--out", out)
    assert again.status == 2
    assert "--resume goes on" in again.err
    resumed = gossamer("train", config, "--out", out, "--resume")
    assert resumed.status == 0, resumed.err
    assert "50.00% zeros in 3 pruned weights" in resumed.out
    other = gossamer("train", config, "--out", out, "--resume", "--seed", 1)
    assert other.status == 1
    assert "seed: 0, not 1" in other.err


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_can_be_shown_and_read_back(gossamer, preset):
    from gossamer.training import TrainingConfig

    shown = yaml.safe_load(gossamer("train", preset, "--show-config").out)
    assert TrainingConfig.from_dict(shown) == PRESETS[preset]


def test_the_help_names_every_preset(gossamer):
    words = " ".join(gossamer("train", "--help").out.replace("│", " ").split())
    assert [preset for preset in PRESETS if preset not in words] == []


def test_wrong_use_is_told_before_anything_is_done(gossamer, tmp_path):
    for arguments, message in {
        ("byte-lm",): "Training needs --out",
        ("byte-ml", "--out", tmp_path / "x"): "'byte-ml' is neither a file nor a preset",
        ("byte-lm", "--out", tmp_path): "exists: --resume goes on",
        ("byte-lm", "--out", tmp_path / "x", "--processes", 2): "need --coordinator and",
    }.items():
        got = gossamer("train", *arguments)
        assert got.status == 2
        assert message in " ".join(got.err.split())
