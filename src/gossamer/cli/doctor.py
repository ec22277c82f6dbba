"""`gossamer doctor`: what gossamer runs on here, and whether its kernels are right."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Iterator
from typing import Any

from gossamer import __version__
from gossamer.cli.console import Command, Console

_SECONDS_READING = 0.4
_MEGABYTES = 256
_MEGABYTES_PER_THREAD = 8
"""More than caches hold for each thread of a processor: 2 on most servers, 6 on some."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Say what gossamer runs on here, and check its native kernels against exact arithmetic.

    The exit status is 1 where a kernel is wrong, and without kernels where GOSSAMER_REQUIRE_KERNELS
    is set.

    Example: gossamer doctor
    """

    def run(self, console: Console) -> dict[str, Any]:
        """Looks, measures and computes; without kernels it only looks."""
        from gossamer.kernels import library, processor

        found, threads = processor.read(), processor.threads()
        reason = library.why_unavailable()
        return {
            "versions": _versions(),
            "processor": {**dataclasses.asdict(found), "threads": threads},
            "kernels": {
                "target": library.chosen(),
                "targets": list(library.targets()),
                "why_unavailable": reason,
                "required": library.required(),
            },
            "read_gb_per_second": None if reason else _read(threads, console),
            "selftest": [] if reason else _selftest(library.targets(), threads, console),
        }

    def show(self, result: dict[str, Any], console: Console) -> None:
        """A few lines, and a table of what was computed."""
        for line in (*_machine(result), *_kernels(result), *_computed(result["selftest"])):
            console.out.print(line)

    def check(self, result: dict[str, Any]) -> None:
        """Fails for wrong kernels, and for missing ones where they are required."""
        kernels = result["kernels"]
        if kernels["required"] and kernels["why_unavailable"]:
            raise ValueError("GOSSAMER_REQUIRE_KERNELS is set, but there are no native kernels.")
        right, wrong = (
            [outcome["target"] for outcome in result["selftest"] if outcome["passed"] == passed]
            for passed in (True, False)
        )
        if wrong:
            # A name that no machine has leaves no kernels.
            instead = " or ".join(right) or "none, which leaves the slower reference path"
            raise ValueError(
                f"The self-test failed: the kernels of {', '.join(wrong)} are wrong here. Set "
                f"GOSSAMER_TARGET to {instead}, and report what was found."
            )


def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    return {"gossamer": __version__, **found, "python": platform.python_version()}


def _read(threads: int, console: Console) -> dict[str, float | None]:
    from gossamer.kernels.bandwidth import read_gb_per_second

    counts = sorted({1, threads})
    advance = console.stage("reading memory", len(counts))
    speeds = []
    for count in counts:
        size = max(_MEGABYTES, _MEGABYTES_PER_THREAD * count)
        speeds.append(read_gb_per_second(threads=count, megabytes=size, seconds=_SECONDS_READING))
        advance()
    return {"one_thread": speeds[0], "all_threads": speeds[-1]}


def _selftest(targets: tuple[str, ...], threads: int, console: Console) -> list[dict[str, Any]]:
    from gossamer import selftest

    advance = console.stage("computing with each instruction set", len(targets))
    at_once = min(threads, len(targets))
    return [
        {
            "target": outcome.target,
            "passed": outcome.passed,
            "failure": outcome.failure,
            "comparisons": [
                {**dataclasses.asdict(each), "passed": each.passed} for each in outcome.comparisons
            ],
        }
        for outcome in selftest.run(selftest.draw_cases(), targets, at_once=at_once, done=advance)
    ]


def _machine(result: dict[str, Any]) -> Iterator[str]:
    processor = result["processor"]
    yield ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    yield f"processor: {processor['name'] or 'unknown'}; threads to use: {processor['threads']}"
    features = processor["features"]
    if features is None:
        yield "features: unknown"
        return
    has, lacks = (
        " ".join(name for name, there in features.items() if there == wanted) or "none"
        for wanted in (True, False)
    )
    yield f"features: {has}; missing: {lacks}"


def _kernels(result: dict[str, Any]) -> Iterator[str]:
    kernels, speeds = result["kernels"], result["read_gb_per_second"]
    if kernels["why_unavailable"]:
        yield f"native kernels: none. {kernels['why_unavailable']}"
        yield "Everything runs without them, on the slower reference path."
        return
    yield f"native kernels: {kernels['target']}; available: {', '.join(kernels['targets'])}"
    yield (
        f"memory: {speeds['one_thread']:.1f} GB/s are read by one thread, "
        f"{speeds['all_threads']:.1f} by all"
    )


def _computed(outcomes: list[dict[str, Any]]) -> Iterator[str]:
    """A row for each kind of case, a column for each instruction set; then what went wrong."""
    columns = [outcome for outcome in outcomes if outcome["comparisons"]]
    if columns:
        yield "self-test: the largest error, relative to the sizes of what is summed"
        kinds = list(dict.fromkeys(each["what"] for each in columns[0]["comparisons"]))
        rows = [["", *(column["target"] for column in columns)]]
        rows += [[kind, *(_cell(column, kind) for column in columns)] for kind in kinds]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            yield f"  {'  '.join(cells).rstrip()}"
    for outcome in outcomes:
        if outcome["failure"] is not None:
            yield f"{outcome['target']} FAILED: {outcome['failure']}"
        for each in outcome["comparisons"]:
            if not each["passed"]:
                yield (
                    f"{outcome['target']} FAILED: {each['what']}, {each['shape']}: off by "
                    f"{each['relative_error']:.1e}, allowed are {each['allowed']:.1e}"
                )


def _cell(outcome: dict[str, Any], kind: str) -> str:
    """The worst of a kind."""
    mine = [each for each in outcome["comparisons"] if each["what"] == kind]
    worst = max(mine, key=lambda each: (not each["passed"], each["relative_error"]))
    return f"{'passed' if worst['passed'] else 'FAILED'} {worst['relative_error']:.1e}"
