"""How fast this machine reads memory: the bound of decoding."""

import concurrent.futures
import time

import numpy as np

from gossamer.kernels import library

READERS = tuple((streams, ahead) for streams in (1, 2, 4) for ahead in (0, 1024, 4096))
"""Parts read side by side, and bytes that are asked for ahead: the best of them counts."""


def read_gb_per_second(
    *, threads: int = 1, megabytes: int = 256, seconds: float = 1.0
) -> float | None:
    """Reads far more than caches hold, in every way of `READERS`, and gives the best speed.

    Args:
        threads: each reads its share.
        megabytes: 10^6 bytes read in one pass, all threads together.
        seconds: how long to go on; every reader reads at least once.

    Returns:
        10^9 bytes a second; None where there are no native kernels.
    """
    reader = library.reader()
    if reader is None:
        return None
    data = np.ones(megabytes * 1_000_000, np.uint8)
    share = len(data) // threads
    starts = [data.ctypes.data + index * share for index in range(threads)]
    best = 0.0
    end = time.perf_counter() + seconds
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        while best == 0.0 or time.perf_counter() < end:
            for streams, ahead in READERS:
                start = time.perf_counter()
                # ctypes lets go of the interpreter's lock.
                jobs = [pool.submit(reader, at, share, streams, ahead) for at in starts]
                concurrent.futures.wait(jobs)
                best = max(best, share * threads / (time.perf_counter() - start) / 1e9)
    return best
