"""Pairs of texts: sentences and their translations."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from gossamer.data.text import read_text

_MOST_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Pair:
    """A text and what it is to become."""

    source: str
    target: str


def read_pairs(path: str | Path) -> list[Pair]:
    """Reads a text file with a pair a line, its first two columns, which a tab separates.

    Further columns are passed over, and so are empty lines; spaces around a text are taken off.

    Raises:
        ValueError: the file cannot be read or has no pair; a line has one column or an empty text,
            and its number is named.
    """
    pairs, faults = [], []
    # Not splitlines, which ends lines at signs that may be in a text.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) < 2 or not columns[0] or not columns[1]:
            faults.append(f"line {number} ({line.strip()[:40]!r})")
            continue
        pairs.append(Pair(columns[0], columns[1]))
    if faults:
        more = len(faults) - _MOST_NAMED
        named = ", ".join(faults[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        raise ValueError(
            f"Pairs {path}: each line needs two texts with a tab between them, and not so {named}."
        )
    if not pairs:
        raise ValueError(f"Pairs {path}: there is none; each line needs two texts and a tab.")
    return pairs


def split_pairs(pairs: Sequence[Pair], held_out: float) -> tuple[list[Pair], list[Pair]]:
    """Parts to learn from and to hold out, by a hash of the source.

    All translations of one source are in one part, whatever the order of the file, and a longer
    file leaves them there.

    Args:
        pairs: in any order.
        held_out: the share of the sources in the second part, about.
    """
    parts: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        digest = hashlib.blake2b(pair.source.encode(), digest_size=8).digest()
        parts[int.from_bytes(digest, "big") < held_out * 2**64].append(pair)
    return parts
