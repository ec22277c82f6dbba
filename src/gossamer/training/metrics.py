"""What a run says of itself: lines of JSON and event files for TensorBoard."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FILE = "metrics.jsonl"
"""A line a step that is logged: `step`, and numbers by name."""


class MetricsWriter:
    """Writes `metrics.jsonl` and event files into a folder.

    Args:
        folder: of the run; None writes nothing.
        step: steps done; what an interrupted run wrote of later ones is taken out.
    """

    def __init__(self, folder: Path | None, *, step: int = 0) -> None:
        self._events: SummaryWriter | None = None
        self._file = None
        if folder is None:
            return
        import tensorboardX

        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILE
        _cut(file, step)
        self._file = file.open("a", encoding="utf-8")
        purge = step + 1 if step else None
        self._events = tensorboardX.SummaryWriter(str(folder / "events"), purge_step=purge)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a line; NaN and Infinity, which JSON does not have, are text there."""
        if self._file is None or self._events is None:
            return
        finite = {
            name: value if math.isfinite(value) else str(value) for name, value in metrics.items()
        }
        self._file.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is not on disk yet."""
        if self._file is not None and self._events is not None:
            self._file.close()
            self._events.close()


def _cut(file: Path, step: int) -> None:
    """Leaves the lines up to a step; a last line that a killed run left unfinished goes too."""
    if not file.exists():
        return
    kept = [
        line
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True)
        if line.endswith("\n") and json.loads(line)["step"] <= step
    ]
    new = file.with_suffix(".partial")
    new.write_text("".join(kept), encoding="utf-8")
    os.replace(new, file)
