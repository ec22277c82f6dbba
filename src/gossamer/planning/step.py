"""Seconds of one forward pass of a partitioned model: prefill, or one step of decoding."""

import dataclasses
import math
from typing import get_args

import numpy as np

from gossamer.planning.batches import one_of
from gossamer.planning.chips import Chip
from gossamer.planning.layer_time import CALIBRATED, LayerPass, LayerTime, StepConstants
from gossamer.planning.layouts import (
    AttentionLayout,
    Count,
    Layout,
    check_divides,
    padded_heads,
)
from gossamer.planning.meshes import Mesh
from gossamer.planning.names import check_known
from gossamer.planning.partition_memory import CACHE_BYTES, CacheFormat, check_fits, memory_use
from gossamer.planning.shapes import ModelShape, Phase
from gossamer.planning.stored_weights import Weights, store_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a prefill, or one step of decoding, costs; arrays where the batch is one.

    Attributes:
        seconds: of the whole model.
        seconds_per_layer: of one block.
        compute_seconds: of all products with weights and in attention, in all blocks and the end.
        memory_seconds: of reading weights and cached keys and values, and of scores that do not
            stay on the chip.
        communication_seconds: of all collectives of activations and gathered weights.
        fixed_seconds: that do not depend on sizes: a layer's, and one for each hop.
        tokens: BL.
        mfu: model-FLOPs utilization, of nominal parameters at the peak of bf16.
        chip_ms_per_token: milliseconds of one chip for each token.
        memory_bytes_per_chip: see `memory_use`.
        heads: of queries, those of padding included.

    Compute, reading weights and gathering them go on at once, so that the parts add up to more than
    `seconds`.

    Source: Pope et al. 2022, arXiv 2211.05102, for its MFU: no FLOPs of attention, no parameters of
    padding.
    """

    seconds: Count
    seconds_per_layer: Count
    compute_seconds: Count
    memory_seconds: Count
    communication_seconds: Count
    fixed_seconds: Count
    tokens: Count
    mfu: Count
    chip_ms_per_token: Count
    memory_bytes_per_chip: Count
    heads: int


def step_cost(
    shape: ModelShape,
    chip: Chip,
    mesh: Mesh,
    *,
    layout: Layout,
    attention: AttentionLayout,
    phase: Phase,
    batch: int,
    context: int,
    tokens: int | None = None,
    weights: Weights = "bf16",
    cache: CacheFormat = "bf16",
    constants: StepConstants = CALIBRATED,
    ends: bool = True,
    pad_heads: bool = False,
) -> StepCost:
    """The cost of one forward pass.

    Args:
        shape: of the model.
        chip: of which the mesh is made.
        mesh: how many chips, and which axes.
        layout: of the feed-forward layer and of attention's projections.
        attention: what attention is divided over.
        phase: `prefill` reads a prompt, `decode` is one step.
        batch: B, sequences.
        context: tokens of each sequence behind the pass.
        tokens: new ones of each sequence; None: 1 in decoding, all of the context in prefill.
        weights: `bf16`, `int8`, `int4`, or a recipe.
        cache: format of keys and values.
        constants: calibrated by default; `IDEAL` has no losses.
        ends: whether scores of the vocabulary are computed, for one token of each sequence.
        pad_heads: whether heads are padded where the layout cannot divide them.

    Raises:
        ValueError: a size is not positive or does not divide, the model does not fit, or so many
            chips are not linked; it says what would do.

    Example:
        >>> from gossamer.planning import find_chip, find_shape
        >>> cost = step_cost(find_shape("palm-540b-padded"), find_chip("tpu-v4"), Mesh.of(4, 4, 4),
        ...                  layout="ws-2d", attention="batch", phase="decode", batch=512,
        ...                  context=2048)
        >>> print(f"{1e3 * cost.seconds:.0f} ms, {cost.mfu:.0%}")  # the paper measures 94 ms, 33 %
        91 ms, 35%
    """
    new = _new_tokens(phase, context, tokens)
    _check_pass(shape, phase, batch, context, new, cache)
    if pad_heads:
        shape = with_padded_heads(shape, mesh, layout)
    chip.check_linked(mesh.chips)
    check_divides(shape, mesh, layout, attention, batch)
    check_fits(
        shape,
        chip,
        mesh,
        layout,
        attention,
        batch=batch,
        context=context,
        tokens=batch * new,
        weights=weights,
        cache=cache,
    )
    costs = step_costs(
        shape,
        chip,
        mesh,
        layout=layout,
        attention=attention,
        phase=phase,
        batch=np.array([batch]),
        context=context,
        tokens=new,
        weights=weights,
        cache=cache,
        constants=constants,
        ends=ends,
    )
    return one_of(costs, 0)


def step_costs(
    shape: ModelShape,
    chip: Chip,
    mesh: Mesh,
    *,
    layout: Layout,
    attention: AttentionLayout,
    phase: Phase,
    batch: np.ndarray,
    context: int,
    tokens: int | None = None,
    weights: Weights = "bf16",
    cache: CacheFormat = "bf16",
    constants: StepConstants = CALIBRATED,
    ends: bool = True,
) -> StepCost:
    """Costs of many batches at once; nothing is checked, and what does not fit has a cost too.

    Arguments are those of `step_cost`.
    """
    new = _new_tokens(phase, context, tokens)
    stored = store_weights(shape, weights)
    layer = LayerPass(
        shape=shape,
        chip=chip,
        mesh=mesh,
        layout=layout,
        attention=attention,
        phase=phase,
        batch=batch,
        context=context,
        tokens=new,
        stored=stored,
        cache_bytes=CACHE_BYTES[cache],
        constants=constants,
    ).time()
    layers = shape.stacks[shape.stack(phase)]
    end = (
        _end_time(shape, chip, mesh, batch, stored.output_bytes, constants) if ends else (0.0, 0.0)
    )
    seconds = layers * layer.seconds + np.maximum(*end)
    use = memory_use(
        shape,
        mesh,
        layout,
        attention,
        batch=batch,
        context=context,
        tokens=batch * new,
        weights=weights,
        cache=cache,
    )
    return _cost(shape, chip, mesh, layer, layers, end, seconds, batch * new, use.nbytes)


def with_padded_heads(shape: ModelShape, mesh: Mesh, layout: Layout) -> ModelShape:
    """The model with as many heads as a layout divides; the same one where it does already.

    Example:
        >>> from gossamer.planning import find_shape
        >>> with_padded_heads(find_shape("palm-540b"), Mesh.of(4, 4, 4), "ws-1d").heads
        64
    """
    heads = padded_heads(shape, mesh, layout)
    return shape if heads == shape.heads else shape.with_heads(heads)


def model_flops_utilization(
    shape: ModelShape, chip: Chip, chips: int, *, tokens: Count, seconds: Count
) -> Count:
    """MFU, of nominal parameters at the peak of bf16.

    Example:
        >>> from gossamer.planning import find_chip, find_shape
        >>> mfu = model_flops_utilization(find_shape("palm-540b"), find_chip("tpu-v4"), 64,
        ...                               tokens=512 * 2048, seconds=85.2)
        >>> print(f"{mfu:.1%}")  # 76 % in the paper
        75.5%
    """
    return 2 * shape.counted_parameters * tokens / (chips * chip.bf16_flops * seconds)


def _check_pass(
    shape: ModelShape, phase: Phase, batch: int, context: int, new: int, cache: CacheFormat
) -> None:
    for name, size in (("batch", batch), ("context", context), ("tokens", new)):
        if size < 1:
            raise ValueError(f"{name} of a step needs 1 or more, got {size}.")
    if new > context:
        raise ValueError(f"{new} new tokens are more than the whole context of {context}.")
    check_known("format of the cache", cache, CACHE_BYTES)
    if phase == "decode" and not shape.generates:
        raise ValueError(f"{shape.name} generates no tokens: its only phase is prefill.")


def _new_tokens(phase: Phase, context: int, tokens: int | None) -> int:
    check_known("phase", phase, get_args(Phase))
    if tokens is not None:
        return tokens
    return context if phase == "prefill" else 1


def _end_time(
    shape: ModelShape,
    chip: Chip,
    mesh: Mesh,
    batch: Count,
    output_bytes: int,
    constants: StepConstants,
) -> tuple[Count, Count]:
    """Seconds of computing the scores of one token a sequence, and of reading their kernel."""
    size = math.prod(shape.end_kernels[shape.output_path])
    peak = mesh.chips * chip.bf16_flops * constants.matmul_efficiency
    return 2 * size * batch / peak, output_bytes / mesh.chips / chip.memory_bandwidth


def _cost(
    shape: ModelShape,
    chip: Chip,
    mesh: Mesh,
    layer: LayerTime,
    layers: int,
    end: tuple[Count, Count],
    seconds: Count,
    tokens: Count,
    memory_bytes: Count,
) -> StepCost:
    return StepCost(
        seconds=seconds,
        seconds_per_layer=layer.seconds,
        compute_seconds=layers * layer.compute_seconds + end[0],
        memory_seconds=layers * layer.memory_seconds + end[1],
        communication_seconds=layers * layer.communication_seconds,
        fixed_seconds=layers * layer.fixed_seconds,
        tokens=tokens,
        mfu=model_flops_utilization(shape, chip, mesh.chips, tokens=tokens, seconds=seconds),
        chip_ms_per_token=1e3 * mesh.chips * seconds / tokens,
        memory_bytes_per_chip=memory_bytes,
        heads=shape.heads,
    )
