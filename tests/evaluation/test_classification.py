import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.data import Images, read_images
from gossamer.evaluation import accuracy, accuracy_steps, check_images, classification, model_images
from gossamer.inference import blockwise
from gossamer.models import build
from tests.compression.tiny_vit import CONFIG, PROCESSING, random_images, tiny_vit
from tests.inference.tiny import tiny


@pytest.fixture(scope="module")
def model():
    return tiny_vit()


def scores_of(model, images):
    """All images at once through the whole model."""
    whole = build(model.config, model.read)
    return np.asarray(whole(jnp.asarray(PROCESSING.normalize(images.pixels))), np.float64)


def test_accuracy_and_cross_entropy_are_those_of_the_whole_model(model):
    images = random_images(13)
    scores = scores_of(model, images)
    found = accuracy(model, images)
    right = scores.argmax(1) == images.labels
    log = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    assert found.images == 13
    assert found.accuracy == right.mean()
    want = -log[np.arange(13), images.labels].mean()
    assert found.cross_entropy == pytest.approx(want, rel=1e-5)
    assert found.by_class == {
        str(label): right[images.labels == label].mean() for label in np.unique(images.labels)
    }


def test_right_labels_give_an_accuracy_of_one(model):
    images = random_images(7)
    best = scores_of(model, images).argmax(1).astype(np.int32)
    assert accuracy(model, dataclasses.replace(images, labels=best)).accuracy == 1
    worst = dataclasses.replace(images, labels=(best + 1) % CONFIG.num_classes)
    assert accuracy(model, worst).accuracy == 0


@pytest.mark.parametrize("count", [1, 101, 211])  # primes: no batch divides them
def test_images_in_groups_count_as_all_at_once(model, monkeypatch, count):
    images = random_images(count)
    calls = []
    whole = accuracy(model, images, advance=lambda: calls.append(1))
    assert len(calls) == accuracy_steps(model, images) == 2
    monkeypatch.setattr(blockwise, "GROUP_BYTES", 100 * 4 * 10 * 64)  # tokens of 100 images
    calls.clear()
    parts = accuracy(model, images, advance=lambda: calls.append(1))
    assert len(calls) == accuracy_steps(model, images) == 2 * -(-count // 102)
    assert parts.accuracy == whole.accuracy
    assert parts.cross_entropy == pytest.approx(whole.cross_entropy, rel=1e-6)


def labelled(names, count=4):
    labels = (np.arange(count) % len(names)).astype(np.int32)
    return Images(np.zeros((count, 12, 12, 1), np.uint8), labels, tuple(names))


def test_classes_are_matched_by_the_names_that_the_model_gives_them(model):
    animals = {str(index): name for index, name in enumerate("jihgfedcba")}
    named = dataclasses.replace(model, hf_config={**model.hf_config, "id2label": animals})
    assert check_images(named, labelled("abc")).tolist() == [9, 8, 7, 9]
    assert check_images(named, labelled("0123456789", 3)).tolist() == [0, 1, 2]  # in their order
    assert check_images(named, labelled("012", 3)).tolist() == [0, 1, 2]  # numbers, not all there
    with pytest.raises(ValueError, match=r"of 3 classes \(a, b, x\), and the model tells 10 apart"):
        check_images(named, labelled("abx"))
    with pytest.raises(ValueError, match=r"of 11 classes \(0, 1, 2, 3, \.\.\.\)"):
        check_images(named, labelled([str(index) for index in range(11)]))


def test_files_are_resized_for_the_model_and_arrays_refused(model, tmp_path):
    from PIL import Image

    for name in "0123456789":
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((5, 9, 3), 90, np.uint8)).save(tmp_path / name / "a.png")
    images = model_images(model, tmp_path)
    assert images.pixels.shape == (10, 12, 12, 1)
    assert 0 <= accuracy(model, images).accuracy <= 1
    with pytest.raises(ValueError, match=r"12 x 12 pixels and 1 channels .*, got 8 x 8 pixels"):
        model_images(model, "digits")
    with pytest.raises(ValueError, match="got 8 x 8 pixels"):
        accuracy(model, read_images("digits"))


def test_a_model_of_something_else_is_refused():
    for run in (lambda m: accuracy(m, random_images(2)), lambda m: model_images(m, "digits")):
        with pytest.raises(ValueError, match="classify images, and a LlamaConfig is of another"):
            run(tiny("llama"))


def test_a_model_that_does_not_tell_how_images_are_prepared_is_refused():
    with pytest.raises(ValueError, match="does not tell how its images are prepared"):
        accuracy(tiny_vit(image_processing=None), random_images(2))


def test_scores_that_are_not_finite_are_refused(model):
    broken = model.with_tensors({"head.bias": np.full(10, np.nan, np.float32)})
    with pytest.raises(ValueError, match="scores of model 'tiny-vit' are not finite"):
        accuracy(broken, random_images(2))


def test_one_compilation_serves_all_batches_and_blocks(model):
    images = random_images(205)  # two batches of 102 and one image
    with jax.log_compiles(False):
        accuracy(model, images)
    before = classification._logits._cache_size()
    accuracy(model, random_images(205, seed=5))
    assert classification._logits._cache_size() == before
