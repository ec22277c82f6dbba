"""What runs learn from: texts, pairs of texts, images; a file a kind."""

from gossamer.training.corpora.corpus import Corpus
from gossamer.training.corpora.images import ImageCorpus
from gossamer.training.corpora.pairs import PairCorpus
from gossamer.training.corpora.read import read_corpus
from gossamer.training.corpora.text import TextCorpus, Windows

__all__ = ["Corpus", "ImageCorpus", "PairCorpus", "TextCorpus", "Windows", "read_corpus"]
