"""Texts, and the token sequences cut from them."""

import gzip
import lzma
import os
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int


def read_text(path: str | Path) -> str:
    """Reads a UTF-8 text, decompressing names that end in `.xz` or `.gz`; line ends stay.

    Raises:
        ValueError: the file is missing, cut short, empty or not UTF-8.
    """
    path = Path(path)
    try:
        text = _decompress(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Text {path} is not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}); "
            "convert it first."
        ) from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(f"Text {path} cannot be read: {error}.") from error
    if not text:
        raise ValueError(f"Text {path} is empty.")
    return text


def _decompress(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    return gzip.decompress(content) if path.suffix == ".gz" else content


def windows(ids: Sequence[int], length: int, count: int | None) -> Int[np.ndarray, "count length"]:
    """Cuts the first `count` windows of `length` tokens, side by side; None takes all that fit.

    Raises:
        ValueError: the text has fewer tokens than that.

    Example:
        >>> windows([1, 2, 3, 4, 5], length=2, count=2)
        array([[1, 2],
               [3, 4]], dtype=int32)
    """
    _check_length(len(ids), length)
    fit = len(ids) // length
    wanted = fit if count is None else count
    if not 1 <= wanted <= fit:
        raise ValueError(
            f"A text of {len(ids)} tokens holds 1 to {fit} windows of {length}, got {count}; give "
            "a longer text, fewer windows or a shorter context."
        )
    return np.asarray(ids[: wanted * length], np.int32).reshape(wanted, length)


def sequences(
    ids: Sequence[int], length: int, count: int, seed: int
) -> Int[np.ndarray, "count length"]:
    """Draws `count` calibration sequences of `length` tokens that start anywhere in the text.

    Starts are drawn independently, so that sequences may overlap: the procedure of SparseGPT and
    Wanda (their released code), with numpy's generator.

    Raises:
        ValueError: the text is shorter than one sequence, or `count` is not positive.

    Example:
        >>> sequences([7, 8, 9], length=3, count=2, seed=0)
        array([[7, 8, 9],
               [7, 8, 9]], dtype=int32)
    """
    _check_length(len(ids), length)
    if count < 1:
        raise ValueError(f"Calibration needs at least 1 sequence, got {count}.")
    starts = np.random.default_rng(seed).integers(0, len(ids) - length + 1, count)
    return np.asarray(ids, np.int32)[starts[:, None] + np.arange(length)]


def _check_length(tokens: int, length: int) -> None:
    if length < 1:
        raise ValueError(f"A sequence needs at least 1 token, got a length of {length}.")
    if tokens < length:
        raise ValueError(
            f"The text has {tokens} tokens, shorter than one sequence of {length}; give a longer "
            "text or a shorter sequence."
        )


def builtin_text(part: Literal["calibration", "evaluation"]) -> str:
    """English prose that every Python has: the help topics of the language, in two disjoint parts.

    Topics alternate between the parts in the order of their names. Some topics quote paragraphs
    of others; those that the evaluation part has as well are left out of the calibration part.
    The words differ between versions of Python, so figures compare within one version only.

    Returns:
        About 200,000 characters.
    """
    from pydoc_data.topics import topics  # 0.7 MB, wanted by nobody else

    names = sorted(topics)
    evaluation = [topics[name] for name in names[1::2]]
    if part == "evaluation":
        return "\n\n".join(evaluation)
    quoted = {_words(paragraph) for text in evaluation for paragraph in text.split("\n\n")}
    return "\n\n".join(
        paragraph
        for name in names[::2]
        for paragraph in topics[name].split("\n\n")
        if _words(paragraph) not in quoted
    )


def python_sources() -> str:
    """The modules of this Python's standard library, in the order of their paths.

    Without its tests, which not every installation has, and without installed packages. The text
    differs between versions of Python, so figures compare within one version only.

    Returns:
        About 12,000,000 characters.

    Raises:
        ValueError: this Python came without sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages"}
    files: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = set(folders) - left_out  # not entered: packages may be a million files
        files += [Path(root, name) for name in names if name.endswith(".py")]
    if not files:
        raise ValueError(f"There are no Python sources in {folder}: name a text instead.")
    return "".join(file.read_bytes().decode("utf-8", errors="replace") for file in sorted(files))


def _words(paragraph: str) -> str:
    """A paragraph without the line ends and the indentation that differ between quotes of it."""
    return " ".join(paragraph.split())
