"""The folder of a grid: its protocol, and each finished cell on a line of its own.

A cell is on disk before the next begins. What a run was interrupted in is done again; what is
finished is not. Cells of another protocol never get into the same folder.
"""

import json
import os
import pathlib
from typing import Any

from gossamer.compression.interplay.cells import Cell, Result

PROTOCOL, CELLS = "protocol.json", "cells.jsonl"


class Journal:
    """The finished cells in a folder.

    Attributes:
        folder: where they are.
        protocol: all that decides a cell's result besides the cell, as plain data.
        results: what is finished, in the order in which it was.

    Args:
        folder: made when the first cell is finished, or taken up if it has the same protocol.
        protocol: see above.

    Raises:
        ValueError: the folder holds something else, cells of another protocol, or damaged ones.
    """

    def __init__(self, folder: pathlib.Path, protocol: dict[str, Any]) -> None:
        self.folder, self.protocol = folder, json.loads(json.dumps(protocol))
        self.results: dict[Cell, Result] = {}
        if not folder.exists():
            return
        if not folder.is_dir() or (any(folder.iterdir()) and not self._file(PROTOCOL).is_file()):
            raise ValueError(f"{folder} is no folder of a grid; choose another for this one.")
        if self._file(PROTOCOL).is_file():
            self._check_protocol()
            self._read_cells()

    def append(self, result: Result) -> None:
        """Keeps a finished cell; when it returns, an interruption cannot lose it."""
        if not self.results:
            self._begin()
        with self._file(CELLS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(result.to_dict(), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.results[result.cell] = result

    def _file(self, name: str) -> pathlib.Path:
        return self.folder / name

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._file(PROTOCOL + ".partial")
        partial.write_text(json.dumps(self.protocol, indent=1) + "\n", encoding="utf-8")
        partial.replace(self._file(PROTOCOL))

    def _check_protocol(self) -> None:
        try:
            found = json.loads(self._file(PROTOCOL).read_text(encoding="utf-8"))
            differing = sorted(
                key for key in {*found, *self.protocol} if found.get(key) != self.protocol.get(key)
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._file(PROTOCOL)} is damaged: {error}.") from error
        if differing:
            changes = "; ".join(
                f"{key} {found.get(key)!r} there, {self.protocol.get(key)!r} here"
                for key in differing
            )
            raise ValueError(
                f"{self.folder} holds cells of another protocol, which do not compare: {changes}. "
                "Choose another folder, or ask for the same again."
            )

    def _read_cells(self) -> None:
        file = self._file(CELLS)
        if not file.is_file():
            return
        content = file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # a run was interrupted while it wrote
            with file.open("r+b") as stream:
                stream.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                result = _result(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{file} is damaged in line {number}: {error}. Delete the line, and its cell "
                    "is done again."
                ) from error
            self.results[result.cell] = result


def _result(data: Any) -> Result:
    if not isinstance(data, dict):
        raise ValueError(f"{data!r} is no result")
    return Result.from_dict(data)
