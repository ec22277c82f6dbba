"""How fast this machine multiplies and adds: the bound of products of many rows."""

import concurrent.futures
import time

import numpy as np

from gossamer.kernels import library

STEPS = 1_000_000
"""Steps of a call: a few milliseconds, against which calling costs nothing."""


def multiply_adds_per_second(
    *, floats: bool = False, threads: int = 1, seconds: float = 0.2
) -> float | None:
    """Multiplies numbers in registers, with nothing to wait for, and gives the best speed.

    Args:
        floats: float32 instead of int8 with sums of int32.
        threads: all multiply at once.
        seconds: how long to go on.

    Returns:
        multiply-adds a second, all threads together; None where there are no native kernels.
    """
    multiply = library.multiplier()
    if multiply is None:
        return None
    data = np.ones(64, np.uint8)
    results = [np.empty(192, np.float32) for _ in range(threads)]
    best = 0.0
    end = time.perf_counter() + seconds
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        while best == 0.0 or time.perf_counter() < end:
            start = time.perf_counter()
            # ctypes lets go of the interpreter's lock.
            jobs = [
                pool.submit(multiply, data.ctypes.data, STEPS, floats, result.ctypes.data)
                for result in results
            ]
            done = sum(job.result() for job in jobs)
            best = max(best, done / (time.perf_counter() - start))
    return best
