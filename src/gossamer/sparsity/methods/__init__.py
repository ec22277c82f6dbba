"""Sparse-training methods: what happens to masks and gradients around an optax optimizer's step.

A method is a value of hyper-parameters; `method.wrap(optimizer)` is an optax optimizer.
"""

from gossamer.sparsity.methods.asp import ASP
from gossamer.sparsity.methods.frozen import Frozen
from gossamer.sparsity.methods.global_pruning import GlobalMagnitude, GlobalSaliency
from gossamer.sparsity.methods.gradient_flow import MdGf, SdGf
from gossamer.sparsity.methods.gradual_magnitude import GradualMagnitude
from gossamer.sparsity.methods.mask_decay import MaskDecay
from gossamer.sparsity.methods.method import Method, SparseOptimizer, SparseState, WrappedState
from gossamer.sparsity.methods.one_shot import OneShot
from gossamer.sparsity.methods.random_pruning import RandomPruning
from gossamer.sparsity.methods.rigl import RigL
from gossamer.sparsity.methods.saliency import Saliency
from gossamer.sparsity.methods.set import SET
from gossamer.sparsity.methods.sr_ste import SRSTE
from gossamer.sparsity.methods.static_random import StaticRandom
from gossamer.sparsity.methods.ste import STE
from gossamer.sparsity.methods.step import STEP
from gossamer.sparsity.methods.structure_decay import StructureDecay

__all__ = [
    "ASP",
    "SET",
    "SRSTE",
    "STE",
    "STEP",
    "Frozen",
    "GlobalMagnitude",
    "GlobalSaliency",
    "GradualMagnitude",
    "MaskDecay",
    "MdGf",
    "Method",
    "OneShot",
    "RandomPruning",
    "RigL",
    "Saliency",
    "SdGf",
    "SparseOptimizer",
    "SparseState",
    "StaticRandom",
    "StructureDecay",
    "WrappedState",
]
