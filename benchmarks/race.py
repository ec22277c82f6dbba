"""Our products timed in turns with those of peers."""

import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from products import Case, Peers, Timed, ours
from results import THREADS
from xla_peer import xla_peers


def race(
    cases: Sequence[Case], budget: float, between: Callable[[], object] = lambda: None
) -> Iterator[dict]:
    """Rows of the table, of cases that differ in our kernel alone: seconds of a single product.

    The peers of all these cases are the same dense products, so that they are made only once, and
    their least times count for every row. `between` is called after each case.
    """
    case = cases[0]
    x = jax.random.normal(jax.random.key(0), (case.rows, case.size))
    values = np.random.default_rng(0).standard_normal((case.size, case.out), np.float32)
    peers = [peer for find in libraries() for peer in find(case, x, values)]
    for peer in peers:
        check(peer, x, values)
    seconds: dict[str, float] = {}
    mine = []
    for case in cases:
        timed, nbytes = ours(case, x)
        timed.call()  # compiles
        take_turns([timed, *peers], seconds, budget)
        between()
        mine.append((case, seconds.pop(timed.name), nbytes))
    for case, least, nbytes in mine:
        yield {
            "case": str(case),
            "kernel": case.kernel,
            "inputs": case.inputs,
            "shape": case.shape,
            "ours_seconds": least,
            "peers": seconds,
            "bytes": nbytes,
            "from_memory": case.from_memory,
        }


def libraries() -> Iterator[Callable[[Case, jax.Array, np.ndarray], Peers]]:
    """XLA, and which others are installed."""
    yield xla_peers
    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
        from onnx_peer import onnx_peers

        yield onnx_peers
    if importlib.util.find_spec("torch"):
        from torch_peer import torch_peers

        yield torch_peers


def check(peer: Timed, x: jax.Array, values: np.ndarray) -> None:
    """That it multiplies by `values`, whatever it rounds them to and scales the result by.

    A product with four bits has a cosine of 0.99, one with another kernel or order of it about 0.
    """
    want = np.asarray(x[0]) @ values
    got = np.array(peer.call()[0][0].tolist())  # the first row; any library's array has the method
    cosine = got @ want / np.linalg.norm(got) / np.linalg.norm(want)
    assert cosine > 0.98, f"{peer.name} is another product: cosine {cosine:.3f}."


def let_others_sleep() -> None:
    """Waits until no peer's threads wait for work by spinning, which takes a core from the next."""
    if THREADS > 1:
        time.sleep(0.02)


def take_turns(timed: Sequence[Timed], seconds: dict[str, float], budget: float) -> None:
    """Notes the least time of one product of each, from calls in turns and from before.

    Those more than eight times as slow as the fastest take one turn, those more than twice as slow
    three; the others go on until the budget is used up.
    """

    def within(factor: float) -> list[Timed]:
        most = factor * min(seconds.values(), default=0)
        return [one for one in timed if seconds.get(one.name, 0) <= most]

    racing, turn, end = within(8), 0, math.inf
    while time.perf_counter() < end:
        for one in racing:
            let_others_sleep()
            start = time.perf_counter()
            one.call()
            now = (time.perf_counter() - start) / one.products
            seconds[one.name] = min(now, seconds.get(one.name, math.inf))
        turn += 1
        if turn == 1:
            racing = within(8)
        elif turn == 3:
            racing, end = within(2), time.perf_counter() + budget


def peers_text(row: dict) -> str:
    """How many times as long each peer takes."""
    return ", ".join(f"{name} {s / row['ours_seconds']:.2f}" for name, s in row["peers"].items())
