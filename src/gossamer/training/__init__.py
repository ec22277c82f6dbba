"""Training models that are pruned and quantized: what goes around weights, and the loop.

The loop is for models of ours; what goes around weights is for any.
"""

from gossamer.data import PairRows
from gossamer.training.aware import fake_quantize, quantize_aware
from gossamer.training.checkpoints import Checkpoints
from gossamer.training.config import (
    Data,
    DataConfig,
    ImagesConfig,
    MeshConfig,
    PairsConfig,
    QuantizationConfig,
    TrainingConfig,
    differences,
)
from gossamer.training.corpora import (
    Corpus,
    ImageCorpus,
    PairCorpus,
    TextCorpus,
    Windows,
    read_corpus,
)
from gossamer.training.flops import (
    StepDensities,
    attention_flops,
    kernels,
    model_flops,
    patterns_of,
    products_flops,
    step_densities,
    steps_within,
    training_flops,
    utilization,
)
from gossamer.training.injection import quantized_dot_general
from gossamer.training.loop import Trained, train
from gossamer.training.losses import LabelledImages, Losses
from gossamer.training.metrics import MetricsWriter
from gossamer.training.optimizers import SGD, Adafactor, AdamW, Lion, Optimizer, chain, is_decayed
from gossamer.training.pipeline import Batches, Examples
from gossamer.training.presets import PRESETS
from gossamer.training.saving import as_checkpoint, zeros_of
from gossamer.training.scores import task_scores, translations
from gossamer.training.sharding import (
    check_batch,
    leaf_sharding,
    make_mesh,
    put_batch,
    start_processes,
    state_shardings,
)
from gossamer.training.step import Step, TrainState

__all__ = [
    "PRESETS",
    "SGD",
    "Adafactor",
    "AdamW",
    "Batches",
    "Checkpoints",
    "Corpus",
    "Data",
    "DataConfig",
    "Examples",
    "ImageCorpus",
    "ImagesConfig",
    "LabelledImages",
    "Lion",
    "Losses",
    "MeshConfig",
    "MetricsWriter",
    "Optimizer",
    "PairCorpus",
    "PairRows",
    "PairsConfig",
    "QuantizationConfig",
    "Step",
    "StepDensities",
    "TextCorpus",
    "TrainState",
    "Trained",
    "TrainingConfig",
    "Windows",
    "as_checkpoint",
    "attention_flops",
    "chain",
    "check_batch",
    "differences",
    "fake_quantize",
    "is_decayed",
    "kernels",
    "leaf_sharding",
    "make_mesh",
    "model_flops",
    "patterns_of",
    "products_flops",
    "put_batch",
    "quantize_aware",
    "quantized_dot_general",
    "read_corpus",
    "start_processes",
    "state_shardings",
    "step_densities",
    "steps_within",
    "task_scores",
    "train",
    "training_flops",
    "translations",
    "utilization",
    "zeros_of",
]
