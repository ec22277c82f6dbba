"""Whether all chips, or all links, of a topology are alike: whether an automorphism swaps any two.

An automorphism maps chips to chips and links to links. Where a topology is symmetric in its links,
minimal routing spreads uniform traffic over all of them, and none is a bottleneck.

Source: the notions are those of Camarero, Martinez and Beivide 2013, arXiv 1311.2019; the search is
ours, and exact: it finds an automorphism or has tried all.
"""

from collections.abc import Iterator

import numpy as np

from gossamer.planning.topology import Topology


def is_vertex_symmetric(topology: Topology) -> bool:
    """Whether some automorphism takes any chip to any other.

    Example:
        >>> from gossamer.planning import mesh, torus
        >>> is_vertex_symmetric(torus((4, 4))), is_vertex_symmetric(mesh((4, 4)))
        (True, False)
    """
    if topology.translates:
        return True
    degrees = (topology.neighbours >= 0).sum(1)
    if len(set(degrees.tolist())) > 1 or len(set(topology.distance_sums.tolist())) > 1:
        return False  # an automorphism keeps both
    links = _links(topology)
    return all(_maps(links, [0], [image]) for image in range(1, topology.chips))


def is_edge_symmetric(topology: Topology) -> bool:
    """Whether some automorphism takes any link to any other, in one direction or the other.

    Example:
        >>> from gossamer.planning import torus, twisted_torus
        >>> is_edge_symmetric(torus((4, 4, 8))), is_edge_symmetric(twisted_torus((4, 4, 8)))
        (False, True)
    """
    links = _links(topology)
    edges = [(here, there) for here, around in enumerate(links) for there in around if here < there]
    if not edges:
        return True
    loads = topology.link_loads[topology.neighbours >= 0]
    if not np.allclose(loads, loads[0], rtol=1e-9, atol=0.0):
        return False  # an automorphism keeps the loads of all shortest paths
    if is_vertex_symmetric(topology):  # every link then has its like at the first chip
        edges = [(0, there) for there in sorted(links[0])]
    first, *others = edges
    return all(
        _maps(links, list(first), [here, there]) or _maps(links, list(first), [there, here])
        for here, there in others
    )


def _links(topology: Topology) -> list[frozenset[int]]:
    return [frozenset(row[row >= 0].tolist()) for row in topology.neighbours]


def _maps(links: list[frozenset[int]], sources: list[int], images: list[int]) -> bool:
    """Whether an automorphism takes these chips, linked if they are two, to those.

    A depth-first search: chips in an order in which each is linked to an earlier one, each mapped
    to a chip around the image of that one. All have as many links as their images, so a mapping
    that keeps every link between mapped chips is an automorphism once it is complete.
    """
    if any(len(links[a]) != len(links[b]) for a, b in zip(sources, images, strict=True)):
        return False
    order, parents = _walk(links, sources)
    image = dict(zip(sources, images, strict=True))
    taken = set(images)

    def candidates(chip: int) -> Iterator[int]:
        mapped = {image[other] for other in links[chip] if other in image}
        free = links[image[parents[chip]]] - taken
        fitting = [
            a for a in sorted(free) if len(links[a]) == len(links[chip]) and mapped <= links[a]
        ]
        return iter(fitting)

    untried: list[Iterator[int]] = []  # of each chip that was chosen an image, and of the next
    while len(image) < len(order):
        chip = order[len(image)]
        if len(sources) + len(untried) == len(image):
            untried.append(candidates(chip))
        found = next(untried[-1], None)
        if found is not None:
            image[chip] = found
            taken.add(found)
            continue
        untried.pop()
        if not untried:
            return False
        taken.remove(image.popitem()[1])  # the latest
    return True


def _walk(links: list[frozenset[int]], starts: list[int]) -> tuple[list[int], dict[int, int]]:
    """The chips in breadth-first order, and the earlier chip through which each was found."""
    order, parents, seen = list(starts), {}, set(starts)
    for chip in order:  # grows while it is read
        for other in sorted(links[chip] - seen):
            order.append(other)
            seen.add(other)
            parents[other] = chip
    return order, parents
