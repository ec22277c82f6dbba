"""Training a vision transformer on labelled images."""

import dataclasses

import numpy as np
import pytest

from gossamer.data import Images
from gossamer.evaluation import accuracy
from gossamer.models import ViTConfig
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from gossamer.sparsity.methods import SRSTE
from gossamer.training import (
    PRESETS,
    AdamW,
    ImagesConfig,
    MeshConfig,
    TrainingConfig,
    as_checkpoint,
    model_flops,
    read_corpus,
    train,
)
from gossamer.training.corpora.images import standardized
from tests.training.runs import run as text_run

MODEL = ViTConfig(
    image_size=(8, 8),
    patch_size=(4, 4),
    channels=1,
    hidden_size=32,
    intermediate_size=64,
    num_layers=1,
    num_heads=2,
    num_classes=10,
)


def run(**changes) -> TrainingConfig:
    settings = {
        "model": MODEL,
        "data": ImagesConfig(),
        "steps": 4,
        "batch": 32,
        "optimizer": AdamW(learning_rate=3e-3, warmup=2),
        "log_every": 1,
        "checkpoint_every": 2,
        "mesh": MeshConfig(data=1),
    }
    return TrainingConfig(**(settings | changes))


def sparse() -> Recipe:
    return Recipe(rules=(Rule(path=r"layers\..*\.mlp\..*\.kernel", pattern=NM(2, 4)),))


def test_a_model_learns_digits_and_the_saved_one_is_as_accurate():
    config = run(steps=150, method=SRSTE(recipe=sparse()), evaluation_windows=None)
    corpus = read_corpus(config.data)
    trained = train(config, corpus=corpus)
    assert trained.accuracy > 0.8
    checkpoint = as_checkpoint(config, trained.weights, corpus)
    found = accuracy(checkpoint, corpus.held_out)
    assert found.images == 359  # a fifth of each class, rounded
    # Another program sums in another order: an image on the edge between two classes may differ.
    assert found.accuracy == pytest.approx(trained.accuracy, abs=0.01)
    assert found.cross_entropy == pytest.approx(trained.evaluation, rel=1e-4)
    assert list(found.by_class) == [str(digit) for digit in range(10)]


def test_a_resumed_run_sees_the_same_images(tmp_path):
    config = run()
    whole = train(config, folder=tmp_path / "whole")
    train(dataclasses.replace(config, checkpoint_every=2), folder=tmp_path / "again")
    resumed = train(config, folder=tmp_path / "again", resume=True)
    for path, weight in whole.params.items():
        np.testing.assert_array_equal(resumed.params[path], weight, err_msg=path)


def test_what_is_learned_from_has_mean_0_and_deviation_1_in_every_channel():
    pixels = np.random.default_rng(0).integers(0, 200, (9, 4, 5, 3)).astype(np.uint8)
    pixels[..., 2] = 7
    images = Images(pixels, np.zeros(9, np.int32), ("a",))
    numbers = standardized(images).normalize(pixels)
    np.testing.assert_allclose(numbers.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(numbers.std(axis=(0, 1, 2)), [1, 1, 0], atol=1e-5)


def test_a_forward_pass_costs_what_its_products_do():
    tokens, hidden, wide = 5, 32, 64
    blocks = tokens * (4 * hidden * hidden + 2 * hidden * wide) + 2 * tokens**2 * hidden
    ends = 4 * 16 * hidden + hidden * 10  # four patches of 16 pixels, and the class
    assert model_flops(MODEL, 1) == 2 * (blocks + ends)


def test_images_that_are_not_the_models_are_refused():
    corpus = read_corpus(ImagesConfig())
    larger = dataclasses.replace(MODEL, image_size=(16, 16))
    with pytest.raises(ValueError, match=r"have \(8, 8, 1\) pixels .* takes \(16, 16, 1\)"):
        corpus.check(run(model=larger))
    few = dataclasses.replace(MODEL, num_classes=4)
    with pytest.raises(ValueError, match="of 10 classes, and the model tells only 4 apart"):
        corpus.check(run(model=few))


def test_settings_that_images_do_not_have_are_refused():
    with pytest.raises(ValueError, match="images have no context; leave it out"):
        run(context=8)
    with pytest.raises(ValueError, match=r"the data are images, .* is a LlamaConfig"):
        text_run(data=ImagesConfig())
    with pytest.raises(ValueError, match="a context is needed: tokens of a sequence"):
        text_run(context=None)


def test_a_run_survives_the_way_to_plain_data_and_back():
    config = run(data=ImagesConfig(images="x.npz", size=(8, 8), channels=1))
    assert TrainingConfig.from_dict(config.to_dict()) == config
    assert TrainingConfig.from_dict(PRESETS["digits"].to_dict()) == PRESETS["digits"]
