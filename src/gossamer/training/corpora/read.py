"""One door to all kinds of data."""

from gossamer.training.config import Data, ImagesConfig, PairsConfig
from gossamer.training.corpora.corpus import Corpus
from gossamer.training.corpora.images import ImageCorpus
from gossamer.training.corpora.pairs import PairCorpus
from gossamer.training.corpora.text import TextCorpus


def read_corpus(data: Data) -> Corpus:
    """Reads what a run learns from.

    Raises:
        ValueError: it cannot be read, or is not what the config says.
    """
    if isinstance(data, PairsConfig):
        return PairCorpus.read(data)
    return ImageCorpus.read(data) if isinstance(data, ImagesConfig) else TextCorpus.read(data)
