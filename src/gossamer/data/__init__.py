"""Texts, tokens and labelled images: what models are calibrated and measured on.

Nothing here knows of a model or of weights; reading those is `gossamer.loading`.
"""

from gossamer.data.image_files import read_images
from gossamer.data.images import ImageProcessing, Images
from gossamer.data.pair_rows import PairRows, PairTokens, encode_pairs, pack_pairs
from gossamer.data.pairs import Pair, read_pairs, split_pairs
from gossamer.data.text import builtin_text, python_sources, read_text, sequences, windows
from gossamer.data.tokenizers import Tokenizer

__all__ = [
    "ImageProcessing",
    "Images",
    "Pair",
    "PairRows",
    "PairTokens",
    "Tokenizer",
    "builtin_text",
    "encode_pairs",
    "pack_pairs",
    "python_sources",
    "read_images",
    "read_pairs",
    "read_text",
    "sequences",
    "split_pairs",
    "windows",
]
