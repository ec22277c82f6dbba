"""The few plots that reports draw, as PNG bytes; matplotlib is imported when one is drawn."""

from gossamer.plots.charts import Bar, bar_panels, bar_plot, line_plot, scatter_plot

__all__ = ["Bar", "bar_panels", "bar_plot", "line_plot", "scatter_plot"]
