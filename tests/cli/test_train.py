import json

import numpy as np
import pytest
import yaml
from PIL import Image

from gossamer.training import PRESETS
from tests.compression.tiny_t5 import random_pairs, write_pairs
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


def written(folder, name, **changes):
    """A YAML file of a run of a few steps."""
    data = run(steps=3).to_dict() | changes
    given = {key: value for key, value in data.items() if value is not None}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(given))
    return file


@pytest.fixture
def translation(tmp_path):
    """A run of a tiny encoder-decoder, whose pairs are named by --data."""
    model = {"type": "T5Config", "vocab_size": 272, "hidden_size": 32, "intermediate_size": 64}
    model |= {"num_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "head_dim": 16}
    data = {"type": "PairsConfig", "vocab_size": 272, "held_out": 0.3}
    return written(tmp_path, "translation", model=model, data=data, context=40)


@pytest.fixture
def digits(tmp_path):
    """A run of a tiny vision transformer."""
    model = {"type": "ViTConfig", "image_size": [8, 8], "patch_size": [4, 4], "channels": 1}
    model |= {"hidden_size": 32, "intermediate_size": 64, "num_layers": 1, "num_heads": 2}
    data = {"type": "ImagesConfig", "channels": 1}
    changes = {"model": model | {"num_classes": 10}, "data": data, "context": None}
    return written(tmp_path, "digits", evaluation_windows=8, **changes)


def contents(folder):
    """All files and their bytes."""
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def refused(gossamer, *arguments):
    """What is said on standard error by a command that fails."""
    outcome = gossamer("train", *arguments)
    assert (outcome.status, outcome.out) == (1, "")
    assert "Unexpected" not in outcome.err
    return " ".join(outcome.err.split())


def test_translation_learns_from_the_pairs_of_data_and_tells_its_bleu(
    gossamer, translation, tmp_path
):
    pairs = write_pairs(tmp_path / "pairs.tsv", random_pairs(30))
    command = ("train", translation, "--data", pairs, "--out", tmp_path / "run")
    got = gossamer(*command, "--json").json()
    assert 0 <= got["bleu"] <= 100
    assert got["signature"].startswith("nrefs:")
    assert 0 < got["sentences"] < 30
    again = gossamer("eval", got["model"], "--pairs", pairs, "--sentences", 2, "--json").json()
    assert again["sentences"] == 2
    shown = gossamer(*command, "--resume")
    assert f"BLEU {got['bleu']:.2f} on {got['sentences']} sentences held out" in shown.out


def test_a_vision_transformer_learns_digits_and_eval_takes_it(gossamer, digits, tmp_path):
    got = gossamer("train", digits, "--out", tmp_path / "run", "--json").json()
    assert "bleu" not in got
    assert 0 <= got["accuracy"] <= 1
    found = gossamer("eval", got["model"], "--images", "digits", "--json").json()
    assert found["images"] == 1797


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pairs.tsv is empty"),
        ("\n\n", "there is none; each line needs two texts and a tab"),
        ("hello\nhe\n", "each line needs two texts with a tab between them, and not so line 1"),
        ("a\tb\n", "it has no pairs"),
    ],
)
def test_files_without_pairs_are_refused(gossamer, translation, tmp_path, text, message):
    (tmp_path / "pairs.tsv").write_text(text)
    arguments = (translation, "--data", tmp_path / "pairs.tsv", "--out", tmp_path / "run")
    assert message in refused(gossamer, *arguments)
    assert not (tmp_path / "run").exists()


def test_images_that_do_not_do_are_refused(gossamer, digits, tmp_path):
    for index, size in enumerate([(8, 8), (8, 9)]):
        for name in ("cat", "dog"):
            folder = tmp_path / "mixed" / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("L", size).save(folder / f"{index}.png")
    pixels = np.zeros((6, 8, 8), np.uint8)
    np.savez(tmp_path / "minus.npz", x=pixels, y=np.array([0, 1, 2, -3, 4, 5]))
    np.savez(tmp_path / "large.npz", x=np.zeros((20, 9, 9), np.uint8), y=np.arange(20) % 2)
    np.savez(tmp_path / "many.npz", x=np.repeat(pixels, 6, 0), y=np.arange(36) // 3)
    for source, message in {
        "mixed": "Images differ in size: ",
        "minus.npz": "y[3] is -3, outside the 6 classes from 0 on",
        "many.npz": "they are of 12 classes, and the model tells only 10 apart",
        "large.npz": "they have (9, 9, 1) pixels and channels, and the model takes (8, 8, 1)",
        "nothing.npz": "nothing.npz",
    }.items():
        arguments = (digits, "--data", tmp_path / source, "--out", tmp_path / "run")
        assert message in refused(gossamer, *arguments)
        assert not (tmp_path / "run").exists()


def test_a_run_of_another_model_is_not_resumed_and_stays_as_it_was(
    gossamer, config, digits, tmp_path
):
    out = tmp_path / "run"
    assert gossamer("train", config, "--out", out).status == 0
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    data = yaml.safe_load(config.read_text())
    data["model"]["intermediate_size"] = 128
    wider = tmp_path / "wider.yaml"
    wider.write_text(yaml.safe_dump(data))
    said = refused(gossamer, wider, "--out", out, "--resume")
    assert "belongs to another run, with model.intermediate_size: 64, not 128" in said
    assert contents(out) == before
    said = refused(gossamer, digits, "--out", out, "--resume")
    assert "belongs to another run, with" in said
    assert contents(out) == before
    assert gossamer("train", config, "--out", out, "--resume").status == 0
