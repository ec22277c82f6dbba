"""Vision transformers by the command line."""

import json

import numpy as np
import pytest

from gossamer.evaluation import accuracy, model_images
from gossamer.loading import load, save
from tests.compression.tiny_vit import random_images, tiny_vit


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """The folder of a dense model."""
    folder = tmp_path_factory.mktemp("models") / "vit"
    save(tiny_vit(), folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An `.npz` of images for it."""
    file = tmp_path_factory.mktemp("images") / "ramps.npz"
    found = random_images(21)
    np.savez(file, x=found.pixels, y=found.labels, names=np.array(found.names))
    return file


def test_eval_gives_the_accuracy(gossamer, vit, images):
    got = gossamer("eval", vit, "--images", images, "--json").json()
    checkpoint = load(vit)
    want = accuracy(checkpoint, model_images(checkpoint, images))
    assert got["accuracy"] == want.accuracy
    assert got["cross_entropy"] == pytest.approx(want.cross_entropy)
    assert (got["images"], got["source"]) == (21, "ramps.npz")
    shown = gossamer("eval", vit, "--images", images)
    assert shown.out.startswith(f"accuracy {want.accuracy:.2%}, cross-entropy")


def test_compress_reports_the_accuracy_before_and_after(gossamer, vit, images, tmp_path):
    options = ["--recipe", "2:4-int4", "--method", "gptq", "--out", tmp_path / "bad"]
    refused = gossamer("compress", vit, *options, "--calibration", images)
    assert "Method 'gptq' rounds and does not prune" in refused.err.replace("\n", " ")
    options = ["--recipe", "2:4-int4", "--calibration", images, "--sequences", 8]
    shown = gossamer("compress", vit, *options, "--images", images, "--out", tmp_path / "small")
    assert shown.status == 0, shown.err
    assert "21 images of ramps.npz" in shown.out
    report = json.loads((tmp_path / "small" / "report.json").read_text())
    assert (report["method"], report["calibration"]["count"]) == ("sparsegpt", 8)
    after = gossamer("eval", tmp_path / "small", "--images", images, "--json").json()
    assert report["accuracy"]["after"] == after["accuracy"]
    assert report["perplexity"] is None


def test_compress_without_images_leaves_accuracy_out(gossamer, vit, tmp_path):
    options = ["--recipe", "int8", "--out", tmp_path / "small", "--json"]
    got = gossamer("compress", vit, *options).json()
    assert got["accuracy"] is got["perplexity"] is None
    account = gossamer("inspect", tmp_path / "small", "--json").json()
    assert account["bytes_on_disk"] == got["bytes_on_disk"]
    assert {"patch_embedding.kernel", "head.kernel"} <= {t["path"] for t in account["tensors"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "VIT"], "classifies images: give some by --images"),
        (["eval", "VIT", "--text", "a.txt"], "--text is for language models: give --images"),
        (["eval", "VIT", "--context", "64"], "--context is for language models: give --images"),
        (
            ["compress", "VIT", "--recipe", "int8", "--out", "OUT", "--windows", "2"],
            "--windows is for language models: give --images",
        ),
        (["eval", "LLAMA", "--images", "digits"], "is a language model, and --images is for"),
        (["eval", "VIT", "--images", "digits"], "got 8 x 8 pixels"),
        (["generate", "VIT", "--prompt", "a"], "continue a text, and a ViTConfig is of another"),
        (
            ["compress", "VIT", "--recipe", "2:4", "--out", "OUT"],
            "Method 'sparsegpt' needs calibration images; give a folder",
        ),
        (["interplay", "VIT", "--out", "OUT"], "continue a text, and a ViTConfig is of another"),
        (
            ["demo", "--model", "VIT", "--out", "OUT"],
            "continue a text, and a ViTConfig is of another",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_options_for_another_kind_of_model_are_refused(
    gossamer, vit, model, tmp_path, arguments, message
):
    places = {"VIT": vit, "LLAMA": model, "OUT": tmp_path / "out"}
    outcome = gossamer(*(places.get(each, each) for each in arguments))
    assert outcome.status == 1
    assert message in " ".join(outcome.err.split())
    assert not (tmp_path / "out").exists()
