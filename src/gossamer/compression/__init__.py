"""Making a model smaller without training it: pruning, quantization and their report.

Masks, formats and bytes come from `gossamer.sparsity`, `gossamer.quantization` and
`gossamer.packing`; here they are put together over a whole model.
"""

from gossamer.compression.calibration import Calibration
from gossamer.compression.compress import compress, one_shot
from gossamer.compression.hessian import gram, inverse_factor
from gossamer.compression.image_calibration import ImageCalibration
from gossamer.compression.job import CalibrationData, select_kernels
from gossamer.compression.kernel import KernelReport
from gossamer.compression.measure import Evaluation, EvaluationData, PairEvaluation
from gossamer.compression.methods import (
    AWQ,
    GPTQ,
    METHODS,
    OBR,
    RTN,
    Magnitude,
    Method,
    MethodName,
    Random,
    SmoothQuant,
    Solved,
    SparseGPT,
    Wanda,
    WandaGPTQ,
    gptq,
    magnitude_mask,
    make_method,
    obr,
    prune_codes,
    random_mask,
    sparsegpt,
    wanda_mask,
)
from gossamer.compression.pair_calibration import PairCalibration
from gossamer.compression.pytree import compress_pytree
from gossamer.compression.report import AccuracyChange, BleuChange, PerplexityChange, Report

__all__ = [
    "AWQ",
    "GPTQ",
    "METHODS",
    "OBR",
    "RTN",
    "AccuracyChange",
    "BleuChange",
    "Calibration",
    "CalibrationData",
    "Evaluation",
    "EvaluationData",
    "ImageCalibration",
    "KernelReport",
    "Magnitude",
    "Method",
    "MethodName",
    "PairCalibration",
    "PairEvaluation",
    "PerplexityChange",
    "Random",
    "Report",
    "SmoothQuant",
    "Solved",
    "SparseGPT",
    "Wanda",
    "WandaGPTQ",
    "compress",
    "compress_pytree",
    "gptq",
    "gram",
    "inverse_factor",
    "magnitude_mask",
    "make_method",
    "obr",
    "one_shot",
    "prune_codes",
    "random_mask",
    "select_kernels",
    "sparsegpt",
    "wanda_mask",
]
