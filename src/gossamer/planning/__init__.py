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
from gossamer.planning.chips import Chip, builtin_chips, find_chip, read_chips

__all__ = [
    "FLAT_ENERGY",
    "FLAT_MODELS",
    "FRAME_ENERGY",
    "FUSEMAX_ENERGY",
    "AttentionCost",
    "AttentionMapping",
    "AttentionModel",
    "AttentionPlan",
    "AttentionShape",
    "BlockCost",
    "Chip",
    "EnergyCosts",
    "Operator",
    "OperatorMapping",
    "activation_bytes",
    "attend_operator",
    "attention_joules",
    "attention_latency_plot",
    "attention_plans",
    "attention_utilization_plot",
    "best_fused",
    "best_unfused",
    "block_cost",
    "builtin_chips",
    "find_chip",
    "fused_cost",
    "linear_seconds",
    "live_elements",
    "logit_operator",
    "plan_attention",
    "projection_operator",
    "read_chips",
    "unfused_cost",
]
