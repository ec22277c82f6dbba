"""Maps of what links carry, one topology beside another."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from gossamer.planning.topology import Topology
from gossamer.plots import heat_panels


def link_load_map(topology: Topology, axis: int) -> Float[np.ndarray, "rows columns"]:
    """What the link up along an axis from each chip carries in a uniform all-to-all.

    Returns:
        One column a place along the last axis, one row a place along the others, row-major; NaN
        where there is no such link.

    Raises:
        ValueError: there is no such axis.

    Example:
        >>> from gossamer.planning import mesh
        >>> link_load_map(mesh((4,)), 0)
        array([[ 3.,  4.,  3., nan]])
    """
    if not 0 <= axis < len(topology.sizes):
        raise ValueError(f"The axes of {topology} are 0 to {len(topology.sizes) - 1}, got {axis}.")
    there = topology.neighbours[:, 2 * axis] >= 0
    loads = np.where(there, topology.link_loads[:, 2 * axis], np.nan)
    return loads.reshape(-1, topology.sizes[-1])


def plot_link_loads(topologies: Mapping[str, Topology]) -> bytes:
    """Draws the link loads of topologies side by side, a row of maps for each axis, as a PNG.

    Args:
        topologies: by the names that stand over them, such as a slice and the same twisted.

    Raises:
        ValueError: there are none, or they have different numbers of axes.
    """
    counts = {len(topology.sizes) for topology in topologies.values()}
    if len(counts) != 1:
        raise ValueError(
            f"Maps of link loads need topologies with equally many axes, got {sorted(counts)}."
        )
    panels = {}
    for axis in range(counts.pop()):
        for name, topology in topologies.items():
            most = f"{topology.axis_loads[axis]:.4g}"
            panels[f"{name}, links along {'xyz'[axis]}: at most {most}"] = link_load_map(
                topology, axis
            ).tolist()
    return heat_panels(
        panels,
        columns=len(topologies),
        x="chip along the last axis",
        y="chip along the others",
        value="units, one a pair of chips",
        title="What links carry in an all-to-all",
    )
