"""What runs learn from: texts, pairs of texts; a file a kind."""

from gossamer.training.corpora.corpus import Corpus
from gossamer.training.corpora.pairs import PairCorpus
from gossamer.training.corpora.read import read_corpus
from gossamer.training.corpora.text import TextCorpus, Windows

__all__ = ["Corpus", "PairCorpus", "TextCorpus", "Windows", "read_corpus"]
