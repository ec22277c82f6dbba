"""Weights in huge pages: a core that reads them in a row translates fewer addresses."""

import ctypes
import pathlib
import sys
from collections.abc import Iterable, Iterator

import jax

_SETTINGS = pathlib.Path("/sys/kernel/mm/transparent_hugepage")
_COLLAPSE = 25  # MADV_COLLAPSE of Linux 6.1: moves what is there, without being asked before


def use_huge_pages(arrays: Iterable[jax.Array], settings: pathlib.Path = _SETTINGS) -> int:
    """Moves arrays in the machine's own memory to huge pages; where they lie does not change.

    Does nothing where the system has no huge pages for it: on other systems than Linux, before
    Linux 6.1, and where an administrator has switched them off.

    Args:
        arrays: those on other devices are passed over, as is what fills no huge page.
        settings: where Linux says what it allows.

    Returns:
        How many bytes are in huge pages now.

    Example:
        >>> import jax.numpy as jnp
        >>> use_huge_pages([jnp.zeros(1000)])
        0
    """
    size = _page_bytes(settings)
    if size is None:
        return 0
    madvise = ctypes.CDLL(None).madvise
    moved = 0
    for start, end in (span for each in arrays for span in _spans(each)):
        first, last = -(-start // size) * size, end // size * size
        if first < last:
            failed = madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _COLLAPSE)
            moved += 0 if failed else last - first
    return moved


def _page_bytes(settings: pathlib.Path) -> int | None:
    """How large a huge page is; None if there are none to be had."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        if "[never]" in (settings / "enabled").read_text():
            return None
        return int((settings / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return None


def _spans(array: jax.Array) -> Iterator[tuple[int, int]]:
    """The addresses where its parts in the machine's own memory begin and end."""
    for shard in array.addressable_shards:
        if shard.device.platform == "cpu" and shard.data is not None:
            start = shard.data.unsafe_buffer_pointer()
            yield start, start + shard.data.nbytes
