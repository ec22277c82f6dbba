"""What experiments keep of their runs: a line of JSON a run, so that none is made twice."""

import json
import pathlib
from typing import Any


def finished(file: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The runs whose lines are there, by their `key`."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {(row := json.loads(line))["key"]: row for line in lines}


def add(file: pathlib.Path, row: dict[str, Any]) -> None:
    """Adds a run's line, and shows it without its curves."""
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps({k: v for k, v in row.items() if k != "curves"}), flush=True)
