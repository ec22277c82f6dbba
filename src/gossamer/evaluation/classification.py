"""Accuracy of a model that classifies images."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gossamer.data import Images, read_images
from gossamer.inference.blockwise import batches, begin, group_size, run_blocks
from gossamer.loading import Checkpoint
from gossamer.models import ViT, ViTConfig, build_ends, classifier_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """An accuracy and how it came about.

    Attributes:
        accuracy: share of the images whose class has the highest score, 0 to 1.
        cross_entropy: mean negative log-likelihood of the classes, in nats an image.
        images: how many.
        by_class: the accuracy on the images of each class that has any.
        seconds: wall time, reading the weights and compiling included.
    """

    accuracy: float
    cross_entropy: float
    images: int
    by_class: Mapping[str, float]
    seconds: float


def accuracy(
    checkpoint: Checkpoint, images: Images, advance: Callable[[], None] = lambda: None
) -> Accuracy:
    """Measures how often the class with the highest score is the right one.

    Args:
        checkpoint: the model, dense or packed; blocks are read one at a time.
        images: of the model's size; `model_images` reads them so.
        advance: called `accuracy_steps(checkpoint, images)` times, for a progress bar.

    Raises:
        ValueError: see `check_images`; scores are not finite.
    """
    start = time.perf_counter()
    labels = check_images(checkpoint, images)
    scores = np.concatenate(list(_scores(checkpoint, images, advance)))[: len(images)]
    if not np.isfinite(scores).all():
        raise ValueError(
            f"The scores of model {checkpoint.source.get('name')!r} are not finite: its weights or "
            "activations hold NaN or Inf; check the source with `inspect`."
        )
    right = scores.argmax(axis=1) == labels
    losses = np.asarray(_losses(jnp.asarray(scores), jnp.asarray(labels)))
    return Accuracy(
        accuracy=float(right.mean()),
        cross_entropy=math.fsum(losses.tolist()) / len(images),
        images=len(images),
        by_class={
            name: float(right[mine].mean())
            for index, name in enumerate(images.names)
            if (mine := images.labels == index).any()
        },
        seconds=time.perf_counter() - start,
    )


def model_images(checkpoint: Checkpoint, source: str | Path) -> Images:
    """Reads labelled images for a model: files are resized to what it takes.

    Args:
        checkpoint: the model.
        source: a folder, an `.npz` or "digits", as `gossamer.data.read_images` takes them.

    Raises:
        ValueError: the model does not classify images or does not tell how they are prepared, or
            these do not do.
    """
    config = classifier_config(checkpoint.config)
    processing = checkpoint.require_image_processing()
    images = read_images(
        source,
        size=processing.size,
        channels=1 if config.channels == 1 else 3,
        resample=processing.resample,
    )
    processing.normalize(images.pixels[:1])  # raises where the size is another
    return images


def check_images(checkpoint: Checkpoint, images: Images) -> Int[np.ndarray, " N"]:
    """The labels as the model's classes; reads no weight.

    Classes are the model's by their names where it has labels of all those names, and else by
    their order.

    Raises:
        ValueError: the model does not classify images or does not tell how they are prepared; it
            takes others than these; the classes are not as many as the model's.
    """
    config = classifier_config(checkpoint.config)
    checkpoint.require_image_processing().normalize(images.pixels[:1])
    known = _label_names(checkpoint)
    if set(images.names) <= known.keys():
        places = np.asarray([known[name] for name in images.names], np.int32)
        return places[images.labels]
    numbers = images.names == tuple(str(index) for index in range(len(images.names)))
    count = len(images.names)
    if count != config.num_classes and not (numbers and count < config.num_classes):
        shown = ", ".join(images.names[:4]) + (", ..." if count > 4 else "")
        raise ValueError(
            f"The images are of {count} classes ({shown}), and the model tells "
            f"{config.num_classes} apart ({', '.join(list(known)[:4])}, ...); give as many, in the "
            "model's order, or name them as the model does."
        )
    return images.labels.astype(np.int32)


def accuracy_steps(checkpoint: Checkpoint, images: Images) -> int:
    """How often `accuracy` calls its `advance`."""
    config = classifier_config(checkpoint.config)
    return config.num_layers * -(-len(images) // _group_size(config, len(images)))


def _label_names(checkpoint: Checkpoint) -> dict[str, int]:
    """The model's classes by the names that its config gives them."""
    labels = checkpoint.hf_config.get("id2label")
    labels = labels if isinstance(labels, Mapping) else {}
    return {str(name): int(index) for index, name in labels.items() if str(index).isdigit()}


def _group_size(config: ViTConfig, count: int) -> int:
    """How many images walk together."""
    return group_size(count, config.num_patches + 1, config.hidden_size)


def _scores(
    checkpoint: Checkpoint, images: Images, advance: Callable[[], None]
) -> Iterator[Float[np.ndarray, "group classes"]]:
    """Scores of the images, and of some more that fill the last group."""
    config = classifier_config(checkpoint.config)
    processing = checkpoint.require_image_processing()
    size = _group_size(config, len(images))
    graph, state = nnx.split(build_ends(config, checkpoint.read))
    for start in range(0, len(images), size):
        pixels = images.pixels[start : start + size]
        # One compiled function serves all groups, and no group has a length without divisors.
        filled = np.concatenate([pixels, np.repeat(pixels[:1], size - len(pixels), axis=0)])
        flow = begin(checkpoint, jnp.asarray(processing.normalize(filled)))
        flow = run_blocks(checkpoint, flow, advance)
        yield np.concatenate([_logits(graph, state, part) for part in batches(flow)])


@functools.partial(jax.jit, static_argnums=0)
def _logits(
    graph: nnx.GraphDef, state: nnx.State, x: Float[Array, "B T D"]
) -> Float[Array, "B classes"]:
    model = nnx.merge(graph, state)
    assert isinstance(model, ViT)
    return model.logits(x)


@jax.jit
def _losses(scores: Float[Array, "N classes"], labels: Int[Array, " N"]) -> Float[Array, " N"]:
    picked = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(scores, axis=1) - picked
