import io

import matplotlib.image
import numpy as np
import pytest

from gossamer.plots import (
    Bar,
    Line,
    bar_panels,
    equality_plot,
    heat_panels,
    line_panels,
    line_plot,
)

RED, BLACK, ORANGE, BLUE = (214, 39, 40), (0, 0, 0), (255, 127, 14), (31, 119, 180)


def pixels(plot: bytes, color: tuple[int, int, int]) -> int:
    image = (255 * matplotlib.image.imread(io.BytesIO(plot))[..., :3]).round()
    return int((image == color).all(-1).sum())


@pytest.mark.parametrize("log_x", [False, True])
def test_bars_of_a_series_share_a_colour_and_longer_ones_have_more_of_it(log_x):
    def plot(length: float) -> bytes:
        others = [Bar("first", 10.0, "a"), Bar("second", 1.0, "b"), Bar("third", 1.0, "c")]
        panels = {"one": others, "other": [Bar("first", 10.0, "a"), Bar("fourth", length, "d")]}
        return bar_panels(panels, x="ms", title="times", log_x=log_x)

    assert pixels(plot(8.0), RED) > pixels(plot(2.0), RED) > 0


def test_a_bound_is_marked_and_named():
    def plot(bound: float | None) -> bytes:
        return bar_panels({"": [Bar("first", 10.0, "a", "10", bound)]}, x="ms", title="times")

    assert pixels(plot(5.0), BLACK) > pixels(plot(None), BLACK)


def test_lines_of_a_colour_are_told_apart_by_their_dashes_and_panels_share_a_legend():
    def plot(dashed: bool, color: int = 1) -> bytes:
        lines = [Line("one", [(0.0, 1.0), (9.0, 10.0)], color, dashed)]
        panels = {"left": lines, "right": [Line("two", [(0.0, 2.0), (9.0, 2.0)], 0)]}
        return line_panels(panels, x="block", y="error", title="depth")

    assert pixels(plot(False), ORANGE) > pixels(plot(True), ORANGE) > 0
    assert pixels(plot(False, color=3), ORANGE) == 0


def test_a_plot_of_nothing_is_empty_and_not_an_error():
    assert pixels(line_panels({}, x="block", y="error", title="depth"), ORANGE) == 0
    assert pixels(equality_plot({}, x="x", y="y", title="none"), ORANGE) == 0


def test_points_are_drawn_against_the_line_of_equality():
    def plot(points: list[tuple[float, float]]) -> bytes:
        series = {"first": [(1.0, 100.0)], "second": points}
        return equality_plot(series, x="threshold", y="measured", title="t")

    few, many = ([(10.0, 10.0 + i) for i in range(n)] for n in (1, 30))
    assert pixels(plot(many), BLACK) > 500  # the line and the text
    assert plot(few) != plot(many)


def test_a_power_law_is_straight_on_logarithmic_axes_and_bent_on_linear_ones():
    def bend(log: bool) -> float:
        points = [(2.0**i, 8.0**i) for i in range(10)]
        plot = line_plot({"law": points}, x="x", y="y", title="t", log_x=log, log_y=log)
        image = (255 * matplotlib.image.imread(io.BytesIO(plot))[..., :3]).round()
        blue = (image == BLUE).all(-1)
        rows = np.array([np.median(column.nonzero()) for column in blue.T if column.any()])
        slopes = rows[60:] - rows[:-60]
        low, middle, high = np.percentile(slopes, [25, 50, 75])  # few of them are the legend's
        return float(abs((high - low) / middle))

    assert bend(log=True) < 0.2 < 1 < bend(log=False)


YELLOW = (253, 231, 36)  # the end of the scale


def test_heat_panels_share_a_scale_and_leave_out_what_is_no_number():
    def plot(right: float) -> bytes:
        tables = {"left": [[1.0, 2.0]], "right": [[right, float("nan")]]}
        return heat_panels(tables, columns=2, x="x", y="y", value="load", title="t")

    # Half of the left panel is the largest value; with 2.0 half of the right one too.
    assert pixels(plot(2.0), YELLOW) > 1.8 * pixels(plot(1.0), YELLOW) > 0
    assert pixels(plot(100.0), YELLOW) < pixels(plot(2.0), YELLOW)


def test_heat_panels_of_nothing_are_empty_and_not_an_error():
    for panels in ({}, {"odd": [[float("nan")]]}):
        plot = heat_panels(panels, columns=2, x="x", y="y", value="load", title="t")
        assert pixels(plot, BLACK) > 0
