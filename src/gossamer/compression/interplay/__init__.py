"""How sparsity and quantization interact: measured on tensors, on dot products and on models.

The mathematics are functions of arrays; the grid compresses a model cell by cell, through the same
pipeline as `gossamer.compression`, and says what the cells mean.

Source: Harma et al. 2024, arXiv 2405.20935, Effective Interplay between Sparsity and Quantization.
"""

from gossamer.compression.interplay.bounds import step_bound, swap_bound, why_no_guarantee
from gossamer.compression.interplay.catalogue import (
    FORMATS,
    GRID_FORMATS,
    GRID_PATTERNS,
    PATTERNS,
)
from gossamer.compression.interplay.cells import (
    DENSE,
    NUMERICS,
    PRUNING_METHODS,
    Cell,
    Numerics,
    PruningMethod,
    Result,
    grid,
)
from gossamer.compression.interplay.depth import DepthErrors, error_by_depth
from gossamer.compression.interplay.errors import (
    DotErrors,
    OrderErrors,
    additional_error,
    dot_errors,
    lp_norm,
    order_errors,
    relative_error,
    transformation_error,
)
from gossamer.compression.interplay.experiment import Experiment, compress_cell, run_cell, run_grid
from gossamer.compression.interplay.gaussian import GaussianRow, gaussian_table
from gossamer.compression.interplay.journal import Journal
from gossamer.compression.interplay.orders import (
    ORDERS,
    Composed,
    Order,
    compose,
    quantize_then_sparsify,
    sparsify_then_quantize,
)
from gossamer.compression.interplay.recommend import Budget, Recommendation, recommend
from gossamer.compression.interplay.report import to_markdown, write_report
from gossamer.compression.interplay.threshold import (
    excess,
    excess_of_perplexity,
    jackknife,
    orthogonality_threshold,
    paired_difference,
)
from gossamer.compression.interplay.verdicts import (
    NOISE,
    OrderComparison,
    SizePair,
    ThresholdCheck,
    check_thresholds,
    compact_bits,
    compare_orders,
    pair_sizes,
    summarize,
)

__all__ = [
    "DENSE",
    "FORMATS",
    "GRID_FORMATS",
    "GRID_PATTERNS",
    "NOISE",
    "NUMERICS",
    "ORDERS",
    "PATTERNS",
    "PRUNING_METHODS",
    "Budget",
    "Cell",
    "Composed",
    "DepthErrors",
    "DotErrors",
    "Experiment",
    "GaussianRow",
    "Journal",
    "Numerics",
    "Order",
    "OrderComparison",
    "OrderErrors",
    "PruningMethod",
    "Recommendation",
    "Result",
    "SizePair",
    "ThresholdCheck",
    "additional_error",
    "check_thresholds",
    "compact_bits",
    "compare_orders",
    "compose",
    "compress_cell",
    "dot_errors",
    "error_by_depth",
    "excess",
    "excess_of_perplexity",
    "gaussian_table",
    "grid",
    "jackknife",
    "lp_norm",
    "order_errors",
    "orthogonality_threshold",
    "pair_sizes",
    "paired_difference",
    "quantize_then_sparsify",
    "recommend",
    "relative_error",
    "run_cell",
    "run_grid",
    "sparsify_then_quantize",
    "step_bound",
    "summarize",
    "swap_bound",
    "to_markdown",
    "transformation_error",
    "why_no_guarantee",
    "write_report",
]
