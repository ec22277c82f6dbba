"""Draws what a benchmark measured, as a PNG beside its JSON file.

python benchmarks/plots.py docs/results/matvec-1.json
"""

import argparse
import json
import pathlib

from gossamer.plots import Bar, bar_panels

LIBRARIES = ("XLA", "ONNX Runtime", "PyTorch")


def draw(path: pathlib.Path) -> None:
    """Draws the result of the benchmark that the file is named after."""
    result = json.loads(path.read_text())
    name = path.stem.partition("-")[0]
    kinds = {"training_step": training, "sparse_training_step": sparsity, "decode": decoding}
    plot = kinds[name](result) if name in kinds else products(result, name)
    path.with_suffix(".png").write_bytes(plot)


def products(result: dict, name: str) -> bytes:
    """A panel for every shape: ours, kernel by kernel, then what peers take for a dense one."""
    panels: dict[str, list[Bar]] = {}
    for row in result["rows"]:
        bounded = name == "matmul" or row["from_memory"]  # from cache memory bounds nothing
        bar = Bar(
            f"{row['kernel']} x {row['inputs']}",
            1e3 * row["ours_seconds"],
            f"gossamer x {row['inputs']}",
            _text(row["ours_seconds"]),
            1e3 * row["bound_seconds"] if bounded else None,
        )
        panels.setdefault(row["shape"], []).append(bar)
    # The same in all rows of a shape.
    for shape, peers in {row["shape"]: row["peers"] for row in result["rows"]}.items():
        for peer, seconds in peers.items():
            library = next(library for library in LIBRARIES if peer.startswith(library))
            panels[shape].append(Bar(peer, 1e3 * seconds, library, _text(seconds)))
    title = f"{name}, peers with dense kernels; {result['machine']}"
    return bar_panels(panels, x="ms, logarithmic", title=title, log_x=True)


def _text(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


def decoding(result: dict) -> bytes:
    """Tokens a second of every model, and of the peer."""
    bars = [
        _speed(
            row["case"],
            row["ours_seconds"],
            row["perplexity"],
            f"gossamer, {row['case'].rpartition(', ')[2]}",
            1 / row["bound_seconds"],
        )
        for row in result["rows"]
    ]
    last = result["rows"][-1]  # the peer runs the same model beside each of ours
    for peer, seconds in last["peers"].items():
        bars.append(_speed(peer, seconds, last["peers_perplexity"][peer], peer))
    title = f"Tokens of decoding; {result['machine']}"
    return bar_panels({"": bars}, x="tokens/s", title=title)


def _speed(
    name: str, seconds: float, perplexity: float | None, series: str, bound: float | None = None
) -> Bar:
    label = name if perplexity is None else f"{name}, perplexity {perplexity:.2f}"
    return Bar(label, 1 / seconds, series, f"{1 / seconds:.0f}", bound)


def training(result: dict) -> bytes:
    """Two panels for every model: whole steps, and forward passes alone."""
    panels: dict[str, list[Bar]] = {}
    for row in result["rows"]:
        for part in ("step", "forward"):
            seconds, speedup = row[f"{part}_seconds"], row[f"{part}_speedup"]
            peer = next((name for name in ("qwix", "AQT") if name in row["variant"]), "gossamer")
            series = "XLA float32" if row["variant"] == "float32" else peer
            bar = Bar(row["variant"], 1e3 * seconds, series, f"{speedup:.2f} x float32")
            panels.setdefault(f"{row['model']}, {part}", []).append(bar)
    title = f"Training with int8 products, {result['tokens']} tokens; {result['machine']}"
    return bar_panels(panels, x="ms", title=title)


def sparsity(result: dict) -> bytes:
    """A panel for every kind of step: how many times as long as a dense one it takes."""
    panels: dict[str, list[Bar]] = {}
    for row in sorted(result["rows"], key=lambda row: row["ratio"]):
        series, _, method = row["variant"].partition(" ")
        if series == "dense":
            series, method = "control", row["variant"]
        bar = Bar(method, row["ratio"], series, f"{row['ratio']:.2f}")
        panels.setdefault(row["kind"].removesuffix(" step") + " step", []).append(bar)
    title = f"CPU time over that of a dense step; {result['machine']}"
    return bar_panels(panels, x="times a dense step", title=title)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", type=pathlib.Path, nargs="+", help="what benchmarks wrote")
    for path in parser.parse_args().paths:
        draw(path)
