"""What a model would cost on chips that are not at hand: seconds, bytes, joules.

Everything is arithmetic on shapes, recipes and chips: nothing here runs a model or needs a device.
"""

from gossamer.planning.attention_blocks import (
    BlockCost,
    attention_latency_plot,
    attention_plans,
    attention_utilization_plot,
    block_cost,
    linear_seconds,
)
from gossamer.planning.attention_costs import AttentionCost, fused_cost, unfused_cost
from gossamer.planning.attention_dataflow import (
    AttentionPlan,
    best_fused,
    best_unfused,
    plan_attention,
)
from gossamer.planning.attention_energy import (
    FLAT_ENERGY,
    FRAME_ENERGY,
    FUSEMAX_ENERGY,
    EnergyCosts,
    attention_joules,
)
from gossamer.planning.attention_footprints import activation_bytes, live_elements
from gossamer.planning.attention_mappings import AttentionMapping, OperatorMapping
from gossamer.planning.attention_shapes import (
    FLAT_MODELS,
    AttentionModel,
    AttentionShape,
    Operator,
    attend_operator,
    logit_operator,
    projection_operator,
)
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
    "FLAT_ENERGY",
    "FLAT_MODELS",
    "FRAME_ENERGY",
    "FUSEMAX_ENERGY",
    "PACKET_BYTES",
    "POPULARITY",
    "AttentionCost",
    "AttentionMapping",
    "AttentionModel",
    "AttentionPlan",
    "AttentionShape",
    "Axis",
    "BlockCost",
    "Chip",
    "Cut",
    "EnergyCosts",
    "Fabric",
    "Operator",
    "OperatorMapping",
    "PacketRun",
    "Slice",
    "Switch",
    "Topology",
    "TwistShares",
    "Wiring",
    "activation_bytes",
    "all_gather_seconds",
    "all_reduce_seconds",
    "all_slices",
    "all_to_all_seconds",
    "attend_operator",
    "attention_joules",
    "attention_latency_plot",
    "attention_plans",
    "attention_utilization_plot",
    "best_cut",
    "best_fused",
    "best_unfused",
    "block_cost",
    "builtin_chips",
    "find_chip",
    "fused_cost",
    "is_edge_symmetric",
    "is_vertex_symmetric",
    "linear_seconds",
    "link_load_map",
    "live_elements",
    "logit_operator",
    "machine_states",
    "mesh",
    "parse_slice",
    "plan_attention",
    "plot_link_loads",
    "projection_operator",
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
    "unfused_cost",
    "wired_links",
]
