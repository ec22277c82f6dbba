"""Line, bar and scatter plots as PNG bytes, without a display and without global state."""

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def line_plot(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x: str,
    y: str,
    title: str,
    log_x: bool = False,
    log_y: bool = False,
) -> bytes:
    """Draws a line per name through its (x, y) points, in order."""
    from matplotlib.ticker import LogFormatter

    figure, axes = _axes(x, y, title)
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    for axis, is_log in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
        if is_log:  # 20 and 30 rather than 2 x 10^1 and 3 x 10^1
            axis.set_major_formatter(LogFormatter())
            axis.set_minor_formatter(LogFormatter())
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
        axes.set_xticks(range(len(heights)), list(heights), rotation=20, ha="right")
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


@dataclasses.dataclass(frozen=True)
class Bar:
    """One of the bars that `bar_panels` draws."""

    label: str
    """What stands before it."""
    length: float
    series: str
    """What gives it its colour, named in the legend."""
    text: str = ""
    """What stands behind it."""
    bound: float | None = None
    """The best that its length could be, marked by a line."""


def bar_panels(
    panels: Mapping[str, Sequence[Bar]], *, x: str, title: str, log_x: bool = False
) -> bytes:
    """Draws a panel per name, two side by side, whose bars lie in order from the top down."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = 1 + rows * (1 + 0.22 * max(map(len, panels.values())))
    figure = Figure(figsize=(8 * columns, height), layout="constrained")
    figure.suptitle(title)
    bars = [bar for panel in panels.values() for bar in panel]
    colors = {name: f"C{place}" for place, name in enumerate(dict.fromkeys(b.series for b in bars))}
    for place, (name, panel) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.set(xlabel=x, title=name, xscale="log" if log_x else "linear")
        axes.grid(alpha=0.3, axis="x")
        _lay(axes, panel, colors)
    handles: list[Patch | Line2D] = [Patch(color=c, label=name) for name, c in colors.items()]
    if any(bar.bound is not None for bar in bars):
        handles.append(Line2D([], [], color="black", label="bound"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return _png(figure)


def _lay(axes: "Axes", bars: Sequence[Bar], colors: Mapping[str, str]) -> None:
    lengths = [bar.length for bar in bars]
    axes.barh(range(len(bars)), lengths, color=[colors[bar.series] for bar in bars], zorder=2)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize="small")
    axes.set_ylim(len(bars) - 0.4, -0.6)
    marks = [*lengths, *(bar.bound for bar in bars if bar.bound is not None)]
    low, high = min(marks), max(marks)
    if axes.get_xscale() == "log":  # a bar begins where the axis does
        axes.set_xlim(low / 2, high * (high / low) ** 0.15)
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        # A character is some 0.6 to 0.95 % of the axis; the longest text ends inside it.
        text = max(len(bar.text) for bar in bars)
        axes.set_xlim(0, high / max(0.98 - 0.0095 * text, 0.5))
    for place, bar in enumerate(bars):
        end = (bar.length, place)
        axes.annotate(bar.text, end, (4, 0), textcoords="offset points", va="center", fontsize=8)
        if bar.bound is not None:
            axes.vlines(bar.bound, place - 0.4, place + 0.4, color="black", zorder=3)


@dataclasses.dataclass(frozen=True)
class Line:
    """One of the lines that `line_panels` draws."""

    label: str
    """What the legend says."""
    points: Sequence[tuple[float, float]]
    """(x, y), in order."""
    color: int
    """Which colour of the cycle; lines of one thing share one."""
    dashed: bool = False
    """Whether it is broken, to tell it from another of its colour."""


def line_panels(panels: Mapping[str, Sequence[Line]], *, x: str, y: str, title: str) -> bytes:
    """Draws a panel of lines per name, side by side, with one scale and one legend for all.

    What x counts are whole numbers.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 * max(1, len(panels)), 5), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)
    for axes, (name, lines) in zip(grid[0], panels.items(), strict=False):
        axes.set(xlabel=x, ylabel=y, title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        for line in lines:
            style = "--" if line.dashed else "-"
            color = f"C{line.color % 10}"
            axes.plot(*zip(*line.points, strict=True), style, color=color, label=line.label)
    named = {
        label: handle
        for axes in grid[0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if named:
        place = "outside right center"
        figure.legend(list(named.values()), list(named), loc=place, fontsize="small")
    return _png(figure)


def heat_panels(
    panels: Mapping[str, Sequence[Sequence[float]]],
    *,
    columns: int,
    x: str,
    y: str,
    value: str,
    title: str,
) -> bytes:
    """Draws a table of values per name as colours, so many side by side, with one scale for all.

    The first row is on top. What is NaN is left blank.
    """
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 1 + 3 * rows), layout="constrained")
    figure.suptitle(title)
    finite = [v for table in panels.values() for row in table for v in row if not math.isnan(v)]
    grid = figure.subplots(max(1, rows), columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    drawn = None
    for axes, (name, table) in zip(grid.flat, panels.items(), strict=False):
        axes.set(xlabel=x, ylabel=y, title=name)
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(integer=True)
        # From 0, so that a colour twice as far along the scale is twice the value.
        drawn = axes.imshow(table, aspect="auto", vmin=0.0, vmax=max(finite, default=1.0))
    if drawn is not None:
        figure.colorbar(drawn, ax=figure.axes, label=value)
    return _png(figure)


def equality_plot(
    series: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, title: str
) -> bytes:
    """Draws the points of each series against the line where y is x, on logarithmic axes."""
    from matplotlib.ticker import LogFormatter

    figure, axes = _axes(x, y, title)
    points = [point for each in series.values() for point in each]
    for name, each in series.items():
        axes.plot(*zip(*each, strict=True), "o", alpha=0.7, label=name)
    if points:
        ends = [pick(value for point in points for value in point) for pick in (min, max)]
        axes.plot(ends, ends, color="black", linewidth=1, label="equal")
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):  # 200 and not 2 x 10^2
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.4)))
        axes.legend(fontsize="small")
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
