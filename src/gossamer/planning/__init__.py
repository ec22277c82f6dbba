"""What a model would cost on chips that are not at hand: seconds, bytes, joules.

Everything is arithmetic on shapes, recipes and chips: nothing here runs a model or needs a device.
"""

from gossamer.planning.bisection import Cut, best_cut
from gossamer.planning.chips import Chip, builtin_chips, find_chip, read_chips
from gossamer.planning.popularity import POPULARITY, TwistShares, twist_shares
from gossamer.planning.slices import Slice, all_slices, parse_slice, slices_of
from gossamer.planning.symmetry import is_edge_symmetric, is_vertex_symmetric
from gossamer.planning.topology import Topology, mesh, torus, twisted_torus
from gossamer.planning.wiring import (
    Fabric,
    Switch,
    Wiring,
    machine_states,
    switches,
    topology_links,
    wired_links,
)

__all__ = [
    "POPULARITY",
    "Chip",
    "Cut",
    "Fabric",
    "Slice",
    "Switch",
    "Topology",
    "TwistShares",
    "Wiring",
    "all_slices",
    "best_cut",
    "builtin_chips",
    "find_chip",
    "is_edge_symmetric",
    "is_vertex_symmetric",
    "machine_states",
    "mesh",
    "parse_slice",
    "read_chips",
    "slices_of",
    "switches",
    "topology_links",
    "torus",
    "twist_shares",
    "twisted_torus",
    "wired_links",
]
