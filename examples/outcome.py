"""What the trainers of these folders share: their options, and how they say what came out."""

import argparse
import dataclasses
import json
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


def options(
    description: str | None, argv: Sequence[str] | None, steps: int, **more: dict[str, Any]
) -> argparse.Namespace:
    """`--steps`, `--json`, and what a task has besides, such as `data={"default": None}`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=steps, help="%(default)s unless told")
    parser.add_argument("--json", action="store_true", help="the last line is a JSON object")
    for name, settings in more.items():
        parser.add_argument(f"--{name}", **settings)
    return parser.parse_args(argv)


@dataclasses.dataclass(kw_only=True)
class Run:
    """One training run, from when it is made: it shows progress, and ends with one line.

    Attributes:
        metric: what the result is, such as "accuracy".
        kernels: a regular expression for the paths of the weights that may be pruned.
        steps: how many there will be.
        as_json: the last line is a JSON object.
        started: in seconds of the process's CPU time, which other processes do not lengthen.
    """

    metric: str
    kernels: str
    steps: int
    as_json: bool
    started: float = dataclasses.field(default_factory=time.process_time)

    def show(self, step: int, **numbers: Any) -> None:
        """Ten times a run, how far it is; on stderr, so that the result stands alone."""
        if (step + 1) % max(self.steps // 10, 1) == 0:
            told = ", ".join(f"{name} {float(value):.3f}" for name, value in numbers.items())
            print(f"step {step + 1} of {self.steps}: {told}", file=sys.stderr)

    def finish(self, result: float, weights: Any) -> dict[str, Any]:
        """Prints the result and what share of the weights that were evaluated is exactly 0."""
        outcome = {
            "result": round(float(result), 4),
            "metric": self.metric,
            "sparsity": round(float(sparsity(weights, self.kernels)), 4),
            "seconds": round(time.process_time() - self.started, 1),
        }
        words = "{metric} {result:g}, sparsity {sparsity:g}, {seconds:g} seconds of CPU time"
        print(json.dumps(outcome) if self.as_json else words.format(**outcome))
        return outcome


def sparsity(weights: Any, kernels: str) -> float:
    """The fraction of zeros in the weights whose path matches."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    named = [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves
    ]
    chosen = [np.asarray(leaf) for path, leaf in named if re.fullmatch(kernels, path)]
    zeros = sum(leaf.size - np.count_nonzero(leaf) for leaf in chosen)
    return zeros / sum(leaf.size for leaf in chosen)
