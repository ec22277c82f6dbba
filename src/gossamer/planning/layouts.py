"""The layouts of Pope et al.: where weights and activations lie, and which collectives that costs.

B sequences of L tokens, E d_model, F d_ff, H heads of Q, a mesh of X x Y x Z chips.

| layout | weights at rest | activations between blocks | gathered |
|---|---|---|---|
| ws-1d | E F_xyz | BL E_xyz | activations over xyz |
| ws-2d | E_x F_yz | BL E_xyz | activations over yz; sums are scattered and gathered over x |
| wg-x | E_x F_yz | B_x L E_yz | weights over x, activations over yz |
| wg-xy | E_x F_yz | B_xy L E_z | weights over xy, activations over z |
| wg-xyz | E_x F_yz | B_xyz L E | weights over xyz |

Attention is divided over heads, or over sequences: then queries are exchanged for it and its output
back.

Source: Pope et al. 2022, arXiv 2211.05102, sections 3.2 and 3.3 and appendix A.
"""

import dataclasses
import itertools
import math
from typing import Literal, TypeAlias, get_args

import numpy as np

from gossamer.planning.collectives import Axis
from gossamer.planning.meshes import Mesh, chips_along
from gossamer.planning.names import check_known
from gossamer.planning.shapes import ModelShape, Phase

Layout: TypeAlias = Literal["ws-1d", "ws-2d", "wg-x", "wg-xy", "wg-xyz"]
AttentionLayout: TypeAlias = Literal["heads", "batch"]
Kind: TypeAlias = Literal["all-gather", "reduce-scatter", "all-reduce", "all-to-all"]
Count: TypeAlias = int | float | np.integer | np.floating | np.ndarray
"""A number, or one for each of many candidates."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
ATTENTION_LAYOUTS: tuple[AttentionLayout, ...] = get_args(AttentionLayout)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of activations in one layer.

    Attributes:
        kind: what it does.
        elements: that an all-gather leaves on a chip, a reduce-scatter takes from it, an
            all-reduce or an all-to-all takes and leaves. 0 where it does not take place.
        axes: of the mesh that it runs over.
    """

    kind: Kind
    elements: Count
    axes: tuple[Axis, ...]

    @property
    def rounds(self) -> int:
        """How often data goes along the axes: an all-reduce scatters and gathers."""
        return 2 if self.kind == "all-reduce" else 1


def gathered_axes(layout: Layout, mesh: Mesh) -> tuple[Axis, ...]:
    """The axes over which a layout gathers weights, and divides sequences."""
    return mesh.axes[: {"wg-x": 1, "wg-xy": 2, "wg-xyz": 3}.get(layout, 0)]


def width_chips(layout: Layout, mesh: Mesh) -> int:
    """Over how many chips a layout divides F and heads while it multiplies."""
    if layout == "ws-2d":
        return chips_along((mesh.y, mesh.z))
    return mesh.chips // chips_along(gathered_axes(layout, mesh))


def attention_steps(
    layout: Layout, attention: AttentionLayout, mesh: Mesh
) -> tuple[tuple[Axis, ...], ...]:
    """The axes that queries may be exchanged over, from none to all: as many as a batch divides.

    Example:
        >>> [len(axes) for axes in attention_steps("ws-2d", "batch", Mesh.of(4, 4, 4))]
        [0, 1, 2, 3]
    """
    rest = mesh.axes[len(gathered_axes(layout, mesh)) :]
    order = tuple(axis for axis in reversed(rest) if axis.size > 1)
    if attention == "heads":
        return ((),)
    return tuple(order[:count] for count in range(len(order) + 1))


def batch_chips(batch: Count, layout: Layout, attention: AttentionLayout, mesh: Mesh) -> Count:
    """Over how many chips attention divides the sequences.

    As many axes take part, z first, as the batch fills; the paper sees no gain below a batch that
    fills one axis.

    Example:
        >>> batch_chips(np.array([1, 4, 32, 512]), "ws-2d", "batch", Mesh.of(4, 4, 4))
        array([ 1,  4, 16, 64])
    """
    whole = chips_along(gathered_axes(layout, mesh))
    options = [whole * chips_along(axes) for axes in attention_steps(layout, attention, mesh)]
    return np.array(options)[_step(batch, options)]


def layer_collectives(
    shape: ModelShape,
    mesh: Mesh,
    layout: Layout,
    attention: AttentionLayout,
    *,
    phase: Phase,
    batch: Count,
    tokens: Count,
) -> tuple[Collective, ...]:
    """What one layer communicates of its activations; weights are `gathered_share`'s.

    Args:
        shape: of the model.
        mesh: chips.
        layout: of the feed-forward layer and of the projections.
        attention: what attention is divided over.
        phase: which of an encoder-decoder's stacks.
        batch: B; may be an array.
        tokens: BL, of the forward pass, of all sequences.

    Source: Pope et al. 2022, appendix A; gates, the fused projections of attention and the sum of
    keys and values are as its released program has them.
    """
    found: list[Collective] = []
    for sublayer in shape.sublayers(phase):
        found += _stream_collectives(shape, mesh, layout, tokens)
        if layout == "ws-2d":
            over = (mesh.x,)
            yz = width_chips(layout, mesh)
            found.append(Collective("reduce-scatter", tokens * sublayer.in_width / yz, over))
            found.append(Collective("all-gather", tokens * sublayer.out_width / yz, over))
            if sublayer.key_value_width:
                keys = 2 * shape.head_dim * -(-shape.kv_heads // yz)
                found.append(Collective("all-reduce", tokens * keys, over))
        if sublayer.attends:
            found += _exchanges(shape, mesh, layout, attention, batch, tokens)
    return tuple(found)


def gathered_share(shape: ModelShape, mesh: Mesh, layout: Layout, phase: Phase) -> float:
    """The fraction of a layer's weights that comes to each chip before it is used.

    Keys' and values' kernels are divided along E over x, and over y and z as far as there are
    heads.

    Example:
        >>> from gossamer.planning import find_shape
        >>> gathered_share(find_shape("palm-540b"), Mesh.of(4, 4, 4), "wg-xyz", "prefill")
        1.0
    """
    if not gathered_axes(layout, mesh):
        return 0.0
    rest = width_chips(layout, mesh)
    sublayers = shape.sublayers(phase)
    wide = sum(sublayer.in_width + sublayer.out_width for sublayer in sublayers)
    keys = sum(sublayer.key_value_width for sublayer in sublayers)
    return (wide / rest + keys / min(rest, shape.kv_heads)) / (wide + keys)


def check_divides(
    shape: ModelShape, mesh: Mesh, layout: Layout, attention: AttentionLayout, batch: Count
) -> None:
    """Raises where a layout cannot divide a model over a mesh.

    Raises:
        ValueError: a layout is unknown, or a size does not divide; it says what would.
    """
    check_known("layout", layout, LAYOUTS)
    check_known("layout of attention", attention, ATTENTION_LAYOUTS)
    over = f"{layout} on a mesh {mesh} divides"
    stored = mesh.chips if layout == "ws-1d" else chips_along((mesh.y, mesh.z))
    stationary = layout in ("ws-1d", "ws-2d")
    streamed = mesh.chips if stationary else math.lcm(mesh.x.size, width_chips(layout, mesh))
    for name, chips in (("d_model", streamed), ("d_ff", stored)):
        size = getattr(shape, name)
        if size % chips:
            raise ValueError(
                f"{over} {name} over {chips} chips, and {size} of {shape.name} is no multiple; "
                "take another mesh."
            )
    wide = width_chips(layout, mesh)
    if shape.heads % wide:
        padded = padded_heads(shape, mesh, layout)
        raise ValueError(
            f"{over} heads over {wide} chips, and {shape.heads} of {shape.name} are no multiple; "
            f"pad them to {padded}, or take another mesh or layout."
        )
    sequences = chips_along(gathered_axes(layout, mesh))
    if np.min(batch) < sequences:
        raise ValueError(
            f"{over} sequences over {sequences} chips, and a batch of {np.min(batch)} is less; "
            "use ws-2d for it."
        )


def padded_heads(shape: ModelShape, mesh: Mesh, layout: Layout) -> int:
    """The least heads that a layout divides: as many as there are, or with padding.

    Example:
        >>> from gossamer.planning import find_shape
        >>> palm = find_shape("palm-540b")
        >>> for layout in ("ws-2d", "ws-1d"):
        ...     print(padded_heads(palm, Mesh.of(4, 4, 4), layout))
        48
        64
    """
    wide = width_chips(layout, mesh)
    heads = -(-shape.heads // wide) * wide
    # Key-value heads have to divide what there is then.
    while shape.kv_heads != shape.heads and heads % shape.kv_heads:
        heads += wide
    return heads


def _stream_collectives(
    shape: ModelShape, mesh: Mesh, layout: Layout, tokens: Count
) -> list[Collective]:
    """The residual stream gathered before a sublayer, and its sums scattered behind."""
    if layout == "ws-1d":
        axes, elements = mesh.axes, tokens * shape.d_model
    elif layout == "ws-2d":
        axes, elements = (mesh.y, mesh.z), tokens * shape.d_model / mesh.x.size
    else:
        gathered = gathered_axes(layout, mesh)
        axes = mesh.axes[len(gathered) :]
        elements = tokens * shape.d_model / chips_along(gathered)
    if chips_along(axes) == 1:
        return []
    return [Collective("all-gather", elements, axes), Collective("reduce-scatter", elements, axes)]


def _exchanges(
    shape: ModelShape,
    mesh: Mesh,
    layout: Layout,
    attention: AttentionLayout,
    batch: Count,
    tokens: Count,
) -> list[Collective]:
    """Queries from heads to sequences, and what attention gives back again."""
    whole = chips_along(gathered_axes(layout, mesh))
    steps = attention_steps(layout, attention, mesh)
    chosen = _step(batch, [whole * chips_along(axes) for axes in steps])
    held = tokens * shape.heads * shape.head_dim / mesh.chips
    each = [
        Collective("all-to-all", held * (chosen == index), axes)
        for index, axes in enumerate(steps)
        if axes
    ]
    return list(itertools.chain(each, each))


def _step(batch: Count, options: list[int]) -> np.ndarray | np.integer:
    """Which of the rising options is the last that the batch fills; the first always is."""
    return np.maximum(np.searchsorted(options, batch, side="right") - 1, 0)
