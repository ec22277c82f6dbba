"""The few plots that reports draw, as PNG bytes; matplotlib is imported when one is drawn."""

from gossamer.plots.charts import (
    Bar,
    Line,
    bar_panels,
    bar_plot,
    equality_plot,
    heat_panels,
    line_panels,
    line_plot,
    scatter_plot,
)

__all__ = [
    "Bar",
    "Line",
    "bar_panels",
    "bar_plot",
    "equality_plot",
    "heat_panels",
    "line_panels",
    "line_plot",
    "scatter_plot",
]
