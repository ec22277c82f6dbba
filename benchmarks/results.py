"""What every benchmark takes, and what it leaves behind."""

import argparse
import json
import pathlib
import platform

import plots

from gossamer.kernels import processor, targets

THREADS = processor.threads()


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the result as JSON and a plot")
    return parser


def keep(name: str, result: dict, out: pathlib.Path | None) -> None:
    """Writes the result and its plot into the folder `out`, and prints the last line."""
    threads = "1 thread" if THREADS == 1 else f"{THREADS} threads"
    machine = f"{platform.machine()}, {threads}, {targets()[0]}"
    line = json.dumps({"machine": machine} | result)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{name}-{THREADS}.json"
        path.write_text(line + "\n")
        plots.draw(path)
    print(line)
