"""What a model would cost on chips that are not at hand: seconds, bytes, joules.

Everything is arithmetic on shapes, recipes and chips: nothing here runs a model or needs a device.
"""

from gossamer.planning.bisection import Cut, best_cut
from gossamer.planning.chips import Chip, builtin_chips, find_chip, read_chips
from gossamer.planning.collectives import (
    Axis,
    all_gather_seconds,
    all_reduce_seconds,
    all_to_all_seconds,
    reduce_scatter_seconds,
    routed_all_to_all_seconds,
)
from gossamer.planning.load_maps import link_load_map, plot_link_loads
from gossamer.planning.packets import PACKET_BYTES, PacketRun, simulate_all_to_all
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
    "PACKET_BYTES",
    "POPULARITY",
    "Axis",
    "Chip",
    "Cut",
    "Fabric",
    "PacketRun",
    "Slice",
    "Switch",
    "Topology",
    "TwistShares",
    "Wiring",
    "all_gather_seconds",
    "all_reduce_seconds",
    "all_slices",
    "all_to_all_seconds",
    "best_cut",
    "builtin_chips",
    "find_chip",
    "is_edge_symmetric",
    "is_vertex_symmetric",
    "link_load_map",
    "machine_states",
    "mesh",
    "parse_slice",
    "plot_link_loads",
    "read_chips",
    "reduce_scatter_seconds",
    "routed_all_to_all_seconds",
    "simulate_all_to_all",
    "slices_of",
    "switches",
    "topology_links",
    "torus",
    "twist_shares",
    "twisted_torus",
    "wired_links",
]
