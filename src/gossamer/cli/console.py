"""What commands share: options, output, progress, and what counts as wrong use."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import rich.console
import rich.progress

_SECONDS_BETWEEN_LINES = 10.0
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2  # of the process, whatever sys.stdout is


class WrongUseError(Exception):
    """The command was called wrongly: nothing was done, and the exit status is 2."""


@contextlib.contextmanager
def arguments() -> Iterator[None]:
    """Turns a ValueError about the command's arguments into wrong use."""
    try:
        yield
    except ValueError as error:
        raise WrongUseError(str(error)) from error


@contextlib.contextmanager
def native_output_aside() -> Iterator[None]:
    """Sends what native code prints on standard output to standard error meanwhile.

    Gloo, by which JAX connects processes on CPUs, greets there; results alone belong there.
    """
    sys.stdout.flush()
    output = os.dup(_STANDARD_OUTPUT)
    os.dup2(_STANDARD_ERROR, _STANDARD_OUTPUT)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(output, _STANDARD_OUTPUT)
        os.close(output)


def check_free(out: pathlib.Path, overwrite: bool) -> None:
    """Refuses an output folder that exists before any work is done, as its writer would."""
    if out.exists() and not overwrite:
        raise WrongUseError(f"The output folder {out} exists; choose another, or add --overwrite.")


def check_sentences(count: int | None, pairs: str | None) -> None:
    """Refuses a number of sentences that is none, or is of no pairs."""
    if count is not None and pairs is None:
        raise WrongUseError("--sentences counts those of --pairs: give a file of pairs too.")
    if count is not None and count < 1:
        raise WrongUseError(f"--sentences needs 1 or more, got {count}.")


def aligned(rows: Sequence[Sequence[str]], *, words: int) -> Iterator[str]:
    """Rows as lines: so many columns of words, then numbers.

    Tried: a table of rich. It squeezes nine columns into the terminal, 80 characters for a file,
    and cuts the names.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if index < words else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """What every command has: its options, its work, and how its result is shown.

    Attributes:
        interrupted: what is said after Ctrl-C.
    """

    interrupted: ClassVar[str] = "Interrupted."

    json: bool = False
    """Print exactly one JSON object on standard output; everything else goes to standard error."""
    verbose: bool = False
    """Show where in the code an error arose."""

    def run(self, console: "Console") -> dict[str, Any]:
        """Does the work; returns what `--json` prints."""
        raise NotImplementedError

    def show(self, result: dict[str, Any], console: "Console") -> None:
        """Shows a result to a reader."""
        raise NotImplementedError

    def check(self, result: dict[str, Any]) -> None:
        """Raises ValueError where a result, which is shown by then, means that the command failed.

        Where nothing was raised before, most commands did their work.
        """


class Console:
    """Results on standard output, progress and messages on standard error."""

    def __init__(self) -> None:
        # Paths and generated text may hold brackets: nothing is markup.
        self.out, self.err = (
            rich.console.Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)
            for stderr in (False, True)
        )
        self._progress: rich.progress.Progress | None = None

    def note(self, text: str) -> None:
        """A line on standard error."""
        self.err.print(text)

    def json(self, result: dict[str, Any]) -> None:
        """The one JSON object of `--json`."""
        # Not through rich, which would wrap and style it.
        print(json.dumps(_plain(result), allow_nan=False))

    def stage(self, name: str, steps: int) -> Callable[[], None]:
        """Starts a stage of so many steps; returns what is to be called after each."""
        return self._bar(name, steps) if self.err.is_terminal else self._lines(name, steps)

    def _bar(self, name: str, steps: int) -> Callable[[], None]:
        if self._progress is None:
            self._progress = rich.progress.Progress(
                *rich.progress.Progress.get_default_columns(),
                rich.progress.TimeElapsedColumn(),
                console=self.err,
            )
            self._progress.start()
        task = self._progress.add_task(name, total=steps)
        progress = self._progress
        return lambda: progress.advance(task)

    def _lines(self, name: str, steps: int) -> Callable[[], None]:
        """For logs: a line at the end, and now and then before it."""
        begin = last = time.monotonic()
        done = 0

        def advance() -> None:
            nonlocal done, last
            done += 1
            now = time.monotonic()
            if done == steps or now - last > _SECONDS_BETWEEN_LINES:
                self.note(f"{name}: {done}/{steps}, {now - begin:.0f} s")
                last = now

        return advance

    def close(self) -> None:
        """Ends the progress bars, so that a result or an error comes below them."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _plain(value: Any) -> Any:
    """Plain data; NaN and Infinity, which JSON does not have, as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
