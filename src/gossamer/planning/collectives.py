"""Seconds that collectives take on the axes of a torus, and all-to-all on any topology.

Sizes in bytes may be arrays: what is asked of many candidates is asked once.
"""

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from gossamer.planning.topology import Topology

Bytes: TypeAlias = int | float | np.ndarray
Seconds: TypeAlias = float | np.ndarray


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a torus or mesh.

    Attributes:
        size: chips along it.
        wrapped: whether its ends are joined. An axis of two chips has one link, not two.
    """

    size: int
    wrapped: bool = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"An axis needs 1 chip or more, got {self.size}.")

    def bandwidth(self, link_bandwidth: float) -> float:
        """Bytes a second that leave a chip along the axis, both directions together."""
        if self.size == 1:
            return 0.0
        return link_bandwidth * (2 if self.wrapped and self.size > 2 else 1)

    @property
    def hops(self) -> float:
        """Links between the two chips farthest apart, if both directions are used."""
        return self.size / 2 if self.wrapped and self.size > 1 else self.size - 1.0


def all_gather_seconds(
    gathered_bytes: Bytes,
    axes: Sequence[Axis],
    *,
    link_bandwidth: float,
    hop_seconds: float = 0.0,
) -> Seconds:
    r"""Seconds until every chip has what all chips along the axes had.

    .. math:: \max \Big( t_{hop} \sum_a h_a,\;
        \frac{D}{\sum_a W_a} \cdot \frac{K - 1}{K} \Big), \quad K = \prod_a k_a

    Args:
        gathered_bytes: D, what each chip holds afterwards.
        axes: that are gathered over.
        link_bandwidth: of one link, one direction, in bytes a second.
        hop_seconds: of one link.

    Source: Pope et al. 2022, arXiv 2211.05102, appendix A.1, with the bandwidth of the axes that
    take part instead of the whole chip's, and the floor by hops, as the scaling book has them.
    """
    sizes = [axis for axis in axes if axis.size > 1]
    if not sizes:
        return 0.0 * gathered_bytes
    chips = np.prod([axis.size for axis in sizes])
    bandwidth = sum(axis.bandwidth(link_bandwidth) for axis in sizes)
    floor = hop_seconds * sum(axis.hops for axis in sizes)
    return np.maximum(floor, gathered_bytes / bandwidth * (chips - 1) / chips)


def reduce_scatter_seconds(
    input_bytes: Bytes,
    axes: Sequence[Axis],
    *,
    link_bandwidth: float,
    hop_seconds: float = 0.0,
) -> Seconds:
    """Seconds until every chip has its part of the sum of what all have; see `all_gather_seconds`.

    Args:
        input_bytes: what each chip holds before.
        axes: that are summed over.
        link_bandwidth: of one link, one direction, in bytes a second.
        hop_seconds: of one link.
    """
    return all_gather_seconds(
        input_bytes, axes, link_bandwidth=link_bandwidth, hop_seconds=hop_seconds
    )


def all_reduce_seconds(
    input_bytes: Bytes,
    axes: Sequence[Axis],
    *,
    link_bandwidth: float,
    hop_seconds: float = 0.0,
) -> Seconds:
    """A reduce-scatter and an all-gather."""
    settings = {"link_bandwidth": link_bandwidth, "hop_seconds": hop_seconds}
    scattered = reduce_scatter_seconds(input_bytes, axes, **settings)
    return scattered + all_gather_seconds(input_bytes, axes, **settings)


def all_to_all_seconds(
    held_bytes: Bytes,
    axes: Sequence[Axis],
    *,
    link_bandwidth: float,
    hop_seconds: float = 0.0,
) -> Seconds:
    r"""Seconds until every chip has sent an equal part of what it holds to each chip on the axes.

    .. math:: \max \Big( t_{hop} \sum_a h_a,\; \max_a \frac{v k_a}{4 W_a} \Big)

    Args:
        held_bytes: v, what each chip holds before and after.
        axes: whose chips exchange.
        link_bandwidth: of one link, one direction, in bytes a second.
        hop_seconds: of one link.

    Source: the scaling book, for one ring; its extension to several axes is a reconstruction, which
    the link loads of `gossamer.planning.topology` confirm for regular tori with even sizes. On a
    mesh of several axes it holds if packets finish one axis before the next; equal splits over all
    shortest paths crowd the middle, and take up to 1.8 times as long on 8x8x8.
    """
    sizes = [axis for axis in axes if axis.size > 1]
    if not sizes:
        return 0.0 * held_bytes
    floor = hop_seconds * sum(axis.hops for axis in sizes)
    slowest = max(axis.size / (4 * axis.bandwidth(link_bandwidth)) for axis in sizes)
    return np.maximum(floor, held_bytes * slowest)


def routed_all_to_all_seconds(
    pair_bytes: Bytes, topology: Topology, *, link_bandwidth: float, hop_seconds: float = 0.0
) -> Seconds:
    r"""Seconds until every chip of a topology has sent its part to each other chip.

    .. math:: \max \Big( t_{hop} D,\; \frac{m L}{b} \Big)

    Args:
        pair_bytes: m, what each chip sends to each other one.
        topology: with the diameter D and the largest link load L of minimal routing.
        link_bandwidth: b, of one link, one direction, in bytes a second.
        hop_seconds: of one link.

    Example:
        >>> from gossamer.planning import torus, twisted_torus
        >>> for topology in (torus((4, 4, 8)), twisted_torus((4, 4, 8))):
        ...     seconds = routed_all_to_all_seconds(16384, topology, link_bandwidth=50e9)
        ...     print(f"{1e6 * seconds:.2f} us")
        41.94 us
        24.03 us

    Source: a reconstruction: all shortest paths carry equal parts, and the busiest link is the
    limit. Jouppi et al. 2023, arXiv 2304.01433, figure 6, measure 0.93 to 0.94 of the gain by a
    twist that follows from it.
    """
    floor = hop_seconds * topology.diameter
    return np.maximum(floor, pair_bytes * topology.max_link_load / link_bandwidth)
