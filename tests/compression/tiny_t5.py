"""Small random encoder-decoders in memory, and pairs of texts for them."""

import numpy as np

from gossamer.compression import PairCalibration
from gossamer.data import Pair
from tests.inference.tiny import tiny

WORDS = ["hello", "he", "tells", "a", "story", "of", "three", "rivers", "and", "hell"]
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "head_dim": 16}


def tiny_t5(family="t5", **sizes):
    """Wide enough for the groups of the presets; one block on either side.

    Kernels of blocks keep the size of what they multiply, and queries are as small as T5's, so that
    attention looks at more than one token.
    """
    blocks = {"num_layers": 1, "num_decoder_layers": 1}
    model = tiny(family, **SIZES | blocks | sizes)
    size = {"q_proj": model.config.head_dim**-0.5}
    kernels = {
        path: model.read(path) / model.read(path).std() * size.get(path.split(".")[-2], 1)
        for path in model.paths
        if ".layers." in path and path.endswith(".kernel")
    }
    return model.with_tensors(
        {path: kernel / np.sqrt(np.float32(len(kernel))) for path, kernel in kernels.items()}
    )


def random_pairs(count=40, seed=0):
    """Short sentences, and their words from last to first in place of a translation."""
    rng = np.random.default_rng(seed)
    texts = [rng.choice(WORDS, rng.integers(1, 5)).tolist() for _ in range(count)]
    return [Pair(" ".join(words), " ".join(words[::-1][:3])) for words in texts]


def write_pairs(file, pairs):
    """A file as `read_pairs` takes it."""
    file.write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in pairs))
    return file


def pair_calibration(checkpoint, folder, count=8, length=32, seed=0):
    """Rows of pairs, some of it padding."""
    return PairCalibration.from_pairs(
        write_pairs(folder / "pairs.tsv", random_pairs()),
        checkpoint.tokenizer,
        count=count,
        length=length,
        seed=seed,
        config=checkpoint.config,
    )
