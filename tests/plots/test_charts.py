import io

import matplotlib.image
import pytest

from gossamer.plots import Bar, bar_panels

RED, BLACK = (214, 39, 40), (0, 0, 0)


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
