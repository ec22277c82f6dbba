r"""Seconds of one layer of a partitioned model, ideal or with the losses of real programs.

.. math::
    T = t_0 + t_h \sum h
        + \max\Big(\frac{T_{matmul}}{\eta_m}, T_{weights}, \frac{T_{gather}}{\eta_l}\Big)
        + T_{cache} + \frac{T_{attention}}{\eta_m} + T_{scores} + \frac{T_{comm}}{\eta_l}

Products with weights hide the reading of weights, and the gathering of weights that come from other
chips. Attention follows by itself, and so do the collectives of activations, each of which has h
hops. Scores that a chip's own memory cannot hold go through the large one.

Source: a reconstruction: Pope et al. 2022, arXiv 2211.05102, write no formula for all parts. Its
five constants are fitted in `gossamer.planning.calibration`.
"""

import dataclasses
import functools
import math
from typing import Literal, TypeAlias, get_args

import numpy as np

from gossamer.planning.chips import Chip
from gossamer.planning.collectives import (
    Axis,
    all_gather_seconds,
    all_to_all_seconds,
)
from gossamer.planning.layouts import (
    AttentionLayout,
    Collective,
    Count,
    Layout,
    gathered_axes,
    gathered_share,
    layer_collectives,
)
from gossamer.planning.meshes import Mesh, chips_along
from gossamer.planning.names import check_known
from gossamer.planning.partition_memory import ACTIVATION_BYTES, cache_elements_per_chip
from gossamer.planning.shapes import ModelShape, Phase
from gossamer.planning.stored_weights import StoredWeights

Network: TypeAlias = Literal["flat", "axes-together", "axis-by-axis"]
"""How collectives use links. `flat`: all of a chip's, as in the paper. `axes-together`: those of
the axes that take part, all at once, as in the scaling book. `axis-by-axis`: one axis after the
other, which the paper's measurements agree with best."""

_SCORE_BYTES = 4
"""Of a score while it is on the chip: float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConstants:
    """What a program loses against the chip's own constants.

    Attributes:
        fixed_seconds: of a layer, whatever its sizes: t_0.
        hop_seconds: of each hop of each collective of activations: t_h. Above a link's own
            microsecond where transfers are cut into steps that alternate with products.
        matmul_efficiency: of products, of the peak: eta_m.
        link_efficiency: of links: eta_l.
        score_traffic: bytes that each score moves to and from the large memory, where a layer's
            scores do not fit on the chip together.
        network: how collectives use links.
        gather_links: whose bandwidth gathering weights gets; None: as other collectives.
        name: of where they are from.

    Raises:
        ValueError: one is negative, or an efficiency not in (0, 1].
    """

    fixed_seconds: float = 0.0
    hop_seconds: float = 0.0
    matmul_efficiency: float = 1.0
    link_efficiency: float = 1.0
    score_traffic: float = 0.0
    network: Network = "axes-together"
    gather_links: float | None = None
    name: str = "ideal"

    def __post_init__(self) -> None:
        for name in ("fixed_seconds", "hop_seconds", "score_traffic"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} needs 0 or more, got {getattr(self, name)}.")
        for name in ("matmul_efficiency", "link_efficiency"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} needs to be above 0 and at most 1, got {self!r}.")
        check_known("network", self.network, get_args(Network))
        if self.gather_links is not None and self.gather_links <= 0:
            raise ValueError(f"gather_links needs to be above 0, got {self.gather_links}.")


IDEAL = StepConstants()
"""Without losses: no real program is faster."""

IDEAL_FLAT = StepConstants(network="flat", name="ideal, flat bandwidth")
"""Without losses, and with all links for every collective, as the paper's formulas have it."""

CALIBRATED = StepConstants(
    fixed_seconds=43.4e-6,
    hop_seconds=3.69e-6,
    matmul_efficiency=0.854,
    link_efficiency=0.887,
    score_traffic=30.8,
    network="axis-by-axis",
    gather_links=1.0,
    name="fitted to TPU v4",
)
"""As `gossamer.planning.calibration` fits them to TPU v4. For other chips they are a guess."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerTime:
    """Parts of a layer's seconds; see `StepCost`.

    Attributes:
        seconds: in all.
        compute_seconds: of products, in attention too.
        memory_seconds: of weights, cache and scores.
        communication_seconds: of activations and gathered weights.
        fixed_seconds: of the layer and of hops.
    """

    seconds: Count
    compute_seconds: Count
    memory_seconds: Count
    communication_seconds: Count
    fixed_seconds: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerPass:
    """One block's forward pass in a layout: all that its seconds depend on.

    Attributes:
        shape: of the model.
        chip: of which the mesh is made.
        mesh: chips.
        layout: of the feed-forward layer and the projections.
        attention: what attention is divided over.
        phase: which of an encoder-decoder's stacks.
        batch: B; may be an array.
        context: S, tokens of each sequence.
        tokens: L, new ones of each sequence.
        stored: the model's weights.
        cache_bytes: of an element of keys and values.
        constants: losses.
    """

    shape: ModelShape
    chip: Chip
    mesh: Mesh
    layout: Layout
    attention: AttentionLayout
    phase: Phase
    batch: Count
    context: int
    tokens: int
    stored: StoredWeights
    cache_bytes: int
    constants: StepConstants

    def time(self) -> LayerTime:
        """Seconds of the block, and of its parts."""
        matmul, reading, gathering = self._weight_seconds()
        attending, looking = self._attention_seconds()
        collectives = layer_collectives(
            self.shape,
            self.mesh,
            self.layout,
            self.attention,
            phase=self.phase,
            batch=self.batch,
            tokens=self.batch * self.tokens,
        )
        moving = sum(map(self._collective_seconds, collectives))
        fixed = self.constants.fixed_seconds + self.constants.hop_seconds * sum(
            each.rounds * hops(each.axes) * (np.asarray(each.elements) > 0) for each in collectives
        )
        hidden = np.maximum(np.maximum(matmul, reading), gathering)
        return LayerTime(
            seconds=fixed + hidden + attending + looking + moving,
            compute_seconds=matmul + attending,
            memory_seconds=reading + looking,
            communication_seconds=gathering + moving,
            fixed_seconds=fixed,
        )

    @property
    def _peak(self) -> float:
        return self.chip.bf16_flops * self.constants.matmul_efficiency

    def _weight_seconds(self) -> tuple[Count, float, float]:
        """Seconds of products with weights, of reading them, and until they have come."""
        stack = self.shape.stack(self.phase)
        nbytes = self.stored.block_bytes[stack] / self.shape.stacks[stack]
        elements = sum(map(math.prod, self.shape.block_kernels(stack).values()))
        flops = 2 * elements * self.batch * self.tokens * self.stored.relative_compute(self.chip)
        share = gathered_share(self.shape, self.mesh, self.layout, self.phase)
        return (
            flops / (self.mesh.chips * self._peak),
            nbytes / self.mesh.chips / self.chip.memory_bandwidth,
            self._gather_seconds(share * nbytes),
        )

    def _attention_seconds(self) -> tuple[Count, Count]:
        """Seconds of scores and mixtures, and of what they read and write in the large memory.

        Every new token looks at the whole context, as papers count it.
        """
        modules = sum(sublayer.attends for sublayer in self.shape.sublayers(self.phase))
        scores = self.batch * self.tokens * self.context * self.shape.heads / self.mesh.chips
        products, spilling = score_seconds(scores, self.shape.head_dim, self.chip, self.constants)
        cached = self.cache_bytes * cache_elements_per_chip(
            self.shape,
            self.mesh,
            self.layout,
            self.attention,
            batch=self.batch,
            context=self.context,
        )
        looking = cached / self.chip.memory_bandwidth + spilling
        return modules * products, modules * looking

    def _gather_seconds(self, gathered_bytes: float) -> float:
        """Seconds until a layer's weights have come."""
        axes = gathered_axes(self.layout, self.mesh)
        chips, constants = chips_along(axes), self.constants
        if chips == 1:
            return 0.0
        if constants.gather_links is None or not self.chip.torus_axes:
            each = seconds_per_byte("all-gather", axes, self.chip, self.mesh, constants)
            return gathered_bytes * each
        links = constants.gather_links * _link_bandwidth(self.chip)
        return gathered_bytes / (links * constants.link_efficiency) * (chips - 1) / chips

    def _collective_seconds(self, collective: Collective) -> Count:
        per_byte = seconds_per_byte(
            collective.kind, collective.axes, self.chip, self.mesh, self.constants
        )
        return ACTIVATION_BYTES * collective.elements * collective.rounds * per_byte


def score_seconds(
    scores: Count, head_dim: int, chip: Chip, constants: StepConstants
) -> tuple[Count, Count]:
    """Seconds of attention's products, and of what scores move to and from the large memory.

    Args:
        scores: of a chip, of all its heads and sequences together.
        head_dim: Q.
        chip: where a chip's own memory is not known, attention is taken to be fused.
        constants: losses.
    """
    products = 4 * scores * head_dim / (chip.bf16_flops * constants.matmul_efficiency)
    spill = _SCORE_BYTES * scores > (chip.on_chip_bytes or math.inf)
    return products, constants.score_traffic * scores * spill / chip.memory_bandwidth


def seconds_per_byte(
    kind: str, axes: tuple[Axis, ...], chip: Chip, mesh: Mesh, constants: StepConstants
) -> float:
    """Seconds of a byte that a collective leaves on a chip, or takes from it, in one round."""
    if mesh.chips == 1:
        return 0.0
    if constants.network == "flat" or not chip.torus_axes:
        # Switches give every pair of chips all links of both.
        chips = chips_along(axes)
        seconds = (chips - 1) / chips / chip.links_bandwidth
    else:
        seconds = _torus_seconds_per_byte(kind, axes, constants.network, _link_bandwidth(chip))
    return seconds / constants.link_efficiency


@functools.lru_cache(maxsize=65536)
def _torus_seconds_per_byte(
    kind: str, axes: tuple[Axis, ...], network: Network, link_bandwidth: float
) -> float:
    axes = tuple(axis for axis in axes if axis.size > 1)
    if not axes:
        return 0.0
    if kind == "all-to-all":
        return float(all_to_all_seconds(1.0, axes, link_bandwidth=link_bandwidth))
    if network == "axes-together":
        return float(all_gather_seconds(1.0, axes, link_bandwidth=link_bandwidth))
    # What one axis has gathered, the next one gathers: the last axis moves the most.
    seconds, share = 0.0, 1.0
    for axis in axes:
        seconds += float(all_gather_seconds(share, (axis,), link_bandwidth=link_bandwidth))
        share /= axis.size
    return seconds


def _link_bandwidth(chip: Chip) -> float:
    assert chip.link_bandwidth is not None, "checked where the step is planned"
    return chip.link_bandwidth


@functools.cache
def hops(axes: tuple[Axis, ...]) -> float:
    """Links that data crosses one after the other, all axes together."""
    return sum((axis.hops for axis in axes), start=0.0)
