"""What the bits of a code stand for, where that is not two's complement: a book.

A book is sixteen integers of choice, or the name of a small float, whose bits are stored as they
are. Native kernels multiply by integers: E2M1 is to them a book of its numbers times 2.
"""

import functools

import numpy as np

from gossamer.quantization.codebook import E2M1, Codebook
from gossamer.quantization.formats import Book
from gossamer.quantization.minifloat import MINIFLOATS, MinifloatName

HALVES: dict[MinifloatName, tuple[int, ...]] = {"e2m1": E2M1}
"""Small floats that are halves of integers in a byte, and these integers."""


def code_name(bits: int, book: Book | None) -> str:
    """What codes are in words, for tables.

    Example:
        >>> code_name(4, None), code_name(6, "e2m3")
        ('int4', 'E2M3 float')
    """
    if isinstance(book, str):
        return f"{book.upper()} float"
    return f"int{bits}" if book is None else Codebook(book).name


@functools.cache
def codes_of(book: Book) -> np.ndarray:
    """The code that each number of `bits` bits stands for.

    Example:
        >>> tuple(codes_of("e2m1")[:8].astype(float).tolist())
        (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    """
    if not isinstance(book, str):
        return np.array(book, np.int8)
    kind = MINIFLOATS[book]
    numbers = np.arange(2**kind.bits, dtype=np.uint8).view(kind.kind)
    return numbers.astype(np.float32).astype(kind.holder)


@functools.cache
def fields_of(book: Book) -> np.ndarray:
    """The number that stands for each code, by the code as a byte, `[256]`; the first of several.

    Bytes that stand for no code of the book have 0: see `strange`.
    """
    fields = np.zeros(256, np.uint8)
    codes = codes_of(book).view(np.uint8)
    for field in reversed(range(len(codes))):
        fields[codes[field]] = field
    return fields


def strange(codes: np.ndarray, book: Book) -> np.ndarray:
    """Those of `codes` that are no finite number of the book."""
    known = codes_of(book)
    if isinstance(book, str):
        known = known[np.isfinite(known.astype(np.float32))]
    octets = np.setdiff1d(codes.view(np.uint8), known.view(np.uint8))
    return octets.view(codes.dtype)
