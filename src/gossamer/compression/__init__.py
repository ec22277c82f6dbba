"""Making a model smaller without training it: pruning, quantization and their report.

Masks, formats and bytes come from `gossamer.sparsity`, `gossamer.quantization` and
`gossamer.packing`; here they are put together over a whole model.
"""

from gossamer.compression.calibration import Calibration
from gossamer.compression.compress import Evaluation, compress, one_shot
from gossamer.compression.hessian import gram, inverse_factor
from gossamer.compression.kernel import CALIBRATED, METHODS, KernelReport, Method
from gossamer.compression.one_shot import select_kernels
from gossamer.compression.prune import magnitude_mask, random_mask, wanda_mask
from gossamer.compression.pytree import compress_pytree
from gossamer.compression.report import PerplexityChange, Report
from gossamer.compression.sparsegpt import Solved, sparsegpt

__all__ = [
    "CALIBRATED",
    "METHODS",
    "Calibration",
    "Evaluation",
    "KernelReport",
    "Method",
    "PerplexityChange",
    "Report",
    "Solved",
    "compress",
    "compress_pytree",
    "gram",
    "inverse_factor",
    "magnitude_mask",
    "one_shot",
    "random_mask",
    "select_kernels",
    "sparsegpt",
    "wanda_mask",
]
