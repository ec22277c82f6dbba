"""Computes cases by the kernels of every instruction set, each in a process of its own.

A process chooses its instruction set once; and a kernel that crashes ends no process but its own.
"""

import concurrent.futures
import dataclasses
import functools
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from gossamer.selftest.cases import Case
from gossamer.selftest.comparison import Comparison

MOST_SECONDS = 60.0
"""Of a process, which takes one or two: after so long a kernel hangs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an instruction set's kernels computed.

    Attributes:
        target: its name.
        comparisons: one for each case; empty where the process failed.
        failure: how the process failed, in words, or None.
    """

    target: str
    comparisons: tuple[Comparison, ...]
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether everything was computed, and right."""
        return self.failure is None and all(each.passed for each in self.comparisons)


def run(
    cases: Sequence[Case],
    targets: Sequence[str],
    *,
    at_once: int = 1,
    done: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Computes `cases` by the kernels of `targets`.

    Args:
        cases: what is computed.
        targets: names from `gossamer.kernels.targets()`.
        at_once: processes side by side.
        done: called after each.

    Returns:
        An outcome for each target, in their order.
    """
    sent = pickle.dumps(list(cases))
    outcomes = []
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for outcome in pool.map(functools.partial(_run, sent), targets):
            outcomes.append(outcome)
            done()
    return outcomes


def _run(sent: bytes, target: str) -> Outcome:
    forced = {
        "GOSSAMER_TARGET": target,
        "JAX_PLATFORMS": "cpu",  # starting an accelerator takes time and memory
        "JAX_TRACEBACK_FILTERING": "off",  # filtered ones do not end with the error
    }
    try:
        # -P: no module in the current folder stands in for one of ours.
        child = subprocess.run(
            [sys.executable, "-P", "-m", "gossamer.selftest"],
            input=sent,
            env=os.environ | forced,
            capture_output=True,
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        failure = f"not done after {MOST_SECONDS:.0f} s"
    else:
        if child.returncode == 0:
            return Outcome(target=target, comparisons=tuple(pickle.loads(child.stdout)))
        failure = _words(child.returncode, child.stderr.decode(errors="replace"))
    return Outcome(target=target, comparisons=(), failure=failure)


def _words(status: int, written: str) -> str:
    """Why a process ended: the signal, or the error that Python shows last."""
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    lines = written.strip().splitlines()
    return lines[-1] if lines else f"exit status {status}"
