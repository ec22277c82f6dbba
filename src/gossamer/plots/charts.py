"""Line, bar and scatter plots as PNG bytes, without a display and without global state."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def line_plot(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, title: str
) -> bytes:
    """Draws a line per name through its (x, y) points, in order."""
    figure, axes = _axes(x, y, title)
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    if lines:
        axes.legend(fontsize="small")
    return _png(figure)


def bar_plot(bars: Mapping[str, Mapping[str, float]], *, y: str, title: str) -> bytes:
    """Draws groups of bars: `bars[series][group]` is a height; all series have the same groups."""
    figure, axes = _axes("", y, title)
    width = 0.8 / max(1, len(bars))
    for place, (name, heights) in enumerate(bars.items()):
        at = [group + width * (place - (len(bars) - 1) / 2) for group in range(len(heights))]
        axes.bar(at, list(heights.values()), width, label=name)
        axes.set_xticks(range(len(heights)), list(heights), rotation=20)
    axes.legend()
    return _png(figure)


def scatter_plot(
    points: Mapping[str, tuple[float, float]], *, x: str, y: str, title: str, log_y: bool = False
) -> bytes:
    """Draws a labelled dot per name at its (x, y)."""
    figure, axes = _axes(x, y, title)
    for name, (left, up) in points.items():
        axes.plot(left, up, "o")
        axes.annotate(name, (left, up), textcoords="offset points", xytext=(6, 4), fontsize=8)
    if log_y:
        axes.set_yscale("log")
    axes.margins(x=0.2, y=0.1)
    return _png(figure)


def _axes(x: str, y: str, title: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: nothing global is touched and no backend is chosen.
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(alpha=0.3)
    return figure, axes


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
