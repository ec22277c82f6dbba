"""Clients with their own digits, written or spoken, and a network for them.

Written: scikit-learn's digits lie one writer after another, so thirteen stretches of the file are
taken for thirteen writers. Each is two clients: one has what is below five, one the rest, so that
no client has all classes and few are alike. A fifth of every client's digits is held out.

Spoken: `--data recordings.tar.xz`, the `recordings` of the Free Spoken Digit Dataset as an archive
or a folder of `{digit}_{speaker}_{index}.wav`. Each speaker is a client; held out are, as is the
custom, those with an index below five.
"""

import dataclasses
import io
import itertools
import pathlib
import sys
import tarfile
import wave
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from outcome import Run, options

__all__ = ["Clients", "Run", "accuracy", "initialize", "loss", "options"]

KERNELS = r"(first|second)\.kernel"
BATCH = 20


@dataclasses.dataclass(frozen=True)
class Clients:
    """What each client has, and what all of them are tested with.

    Attributes:
        local: the features and labels of each client.
        held_out: features and labels.
    """

    local: list[tuple[np.ndarray, np.ndarray]]
    held_out: tuple[np.ndarray, np.ndarray]

    @classmethod
    def load(cls, path: str | None) -> "Clients":
        """Spoken digits if there is a path to them, else written ones."""
        return spoken(pathlib.Path(path)) if path else written()

    def round(self, rng: np.random.Generator, count: int, steps: int) -> tuple[np.ndarray, ...]:
        """Batches `[count, steps, BATCH, ...]` of clients drawn at random."""
        drawn = rng.choice(len(self.local), count, replace=False)
        rounds = [self._batches(rng, client, steps) for client in drawn]
        return tuple(np.stack(column) for column in zip(*rounds, strict=True))

    def _batches(self, rng: np.random.Generator, client: int, steps: int) -> list[np.ndarray]:
        features, labels = self.local[client]
        chosen = rng.integers(0, len(labels), (steps, BATCH))
        return [features[chosen], labels[chosen]]


def written() -> Clients:
    """Twenty-six clients."""
    images, labels = load_digits(return_X_y=True)
    features = (images / 16).astype(np.float32)
    writers = np.array_split(np.arange(len(labels)), 13)
    low = [writer[labels[writer] < 5] for writer in writers]
    high = [writer[labels[writer] >= 5] for writer in writers]
    return divide(features, labels, low + high, np.arange(len(labels)) % 5 == 0)


def divide(
    features: np.ndarray, labels: np.ndarray, clients: list[np.ndarray], held_out: np.ndarray
) -> Clients:
    """Each client without what is held out."""
    labels = labels.astype(np.int32)
    kept = [client[~held_out[client]] for client in clients]
    return Clients(
        [(features[client], labels[client]) for client in kept],
        (features[held_out], labels[held_out]),
    )


def spoken(path: pathlib.Path) -> Clients:
    """A client for each speaker."""
    names, features = [], []
    for name, file in recordings(path):
        names.append(name.removesuffix(".wav").split("_"))
        features.append(spectrum(file))
    digits, speakers, numbers = zip(*names, strict=True)
    clients = [np.flatnonzero(np.asarray(speakers) == speaker) for speaker in sorted(set(speakers))]
    held_out = np.asarray(numbers, int) < 5
    return divide(np.stack(features), np.asarray(digits, int), clients, held_out)


def recordings(path: pathlib.Path) -> Iterator[tuple[str, io.IOBase]]:
    """Every file's name with its content, from a folder or an archive."""
    if path.is_dir():
        for file in sorted(path.rglob("*.wav")):
            with file.open("rb") as opened:
                yield file.name, opened
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.endswith(".wav") and (content := archive.extractfile(member)):
                yield pathlib.PurePath(member.name).name, content


def spectrum(file: io.IOBase, frames: int = 24, bands: int = 24) -> np.ndarray:
    """Log energies, scaled to mean 0 and deviation 1: `frames` windows spread over the sound."""
    with wave.open(file) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 2**15
    samples = np.pad(samples, (0, max(256 - len(samples), 0)))
    starts = np.linspace(0, len(samples) - 256, frames).astype(int)
    windows = np.stack([samples[start : start + 256] for start in starts]) * np.hanning(256)
    power = np.abs(np.fft.rfft(windows))[:, 1:] ** 2
    edges = np.unique(np.geomspace(1, 129, 2 * bands).astype(int) - 1)
    edges = edges[np.linspace(0, len(edges) - 1, bands + 1).astype(int)]
    energies = [power[:, low:high].mean(axis=1) for low, high in itertools.pairwise(edges)]
    logs = np.log(np.stack(energies, axis=1) + 1e-8)
    return ((logs - logs.mean()) / logs.std()).astype(np.float32).ravel()


def initialize(key: jax.Array, features: int) -> dict:
    """Kernels `[in, out]` and biases of three layers."""
    sizes = {"first": (features, 200), "second": (200, 200), "last": (200, 10)}
    keys = jax.random.split(key, len(sizes))
    kernel = jax.nn.initializers.he_normal()
    return {
        name: {"kernel": kernel(key, size), "bias": jnp.zeros(size[1])}
        for key, (name, size) in zip(keys, sizes.items(), strict=True)
    }


def logits(params: dict, x: jax.Array) -> jax.Array:
    for name in ("first", "second"):
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["last"]["kernel"] + params["last"]["bias"]


def loss(params: dict, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    features, labels = batch
    scores = logits(params, features)
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


def accuracy(params: dict, clients: Clients) -> float:
    """On what is held out, of all clients."""
    features, labels = clients.held_out
    return float(jnp.mean(jnp.argmax(logits(params, features), axis=-1) == labels))
