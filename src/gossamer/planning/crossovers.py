r"""Volumes of Pope et al.'s layouts in closed form, their optima, and where one beats another.

Elements a chip and layer, without the factor (K-1)/K:

.. math::
    V_{1D} = 2 B L E, \quad V_{2D} = 2 B L (E / X + G / (Y Z)), \quad
    V_{WG} = 2 E G N / n + 2 B L E / N

with N the chips gathered over, and none of the last term where N = n. G is F for the paper's layer
of two matrices; a block with other widths has half of what its kernels have beside E.

Source: Pope et al. 2022, arXiv 2211.05102, sections 3.2 and 3.3, appendix A.2, figure 3. The paper
gives the form with two matrices; with widths of whole blocks it is a derivation.
"""

import math

from gossamer.planning.layouts import Count, Layout
from gossamer.planning.meshes import Mesh, chips_along
from gossamer.planning.shapes import ModelShape


def half_width(shape: ModelShape) -> float:
    """G of a whole block: half the columns of all its kernels that E goes to, keys' left out.

    Example:
        >>> from gossamer.planning import find_shape
        >>> half_width(find_shape("palm-540b-padded"))  # (3 F + 2 H Q) / 2
        126976.0
    """
    return sum(each.in_width + each.out_width for each in shape.sublayers("decode")) / 2


def layout_volume(
    layout: Layout,
    mesh: Mesh,
    *,
    tokens: Count,
    d_model: int | float,
    width: int | float,
    sublayers: int = 1,
) -> Count:
    """Elements that a chip moves in a layer: of activations, and of gathered weights.

    Args:
        layout: of the layer.
        mesh: chips.
        tokens: BL.
        d_model: E.
        width: F of a layer of two matrices, or `half_width`.
        sublayers: that gather E one after the other: 2 in blocks that are not parallel.

    Example:
        >>> volume = layout_volume("ws-2d", Mesh.of(4, 4, 4), tokens=2048, d_model=16384,
        ...                        width=65536)
        >>> print(f"{2 * volume / 1e9:.4f} GB")  # figure 3
        0.0671 GB
    """
    stream = 2 * sublayers * tokens * d_model
    if layout == "ws-1d":
        return stream
    if layout == "ws-2d":
        return stream / mesh.x.size + 2 * tokens * width / chips_along((mesh.y, mesh.z))
    gathered = {"wg-x": 1, "wg-xy": 2, "wg-xyz": 3}[layout]
    rest = chips_along(mesh.axes[gathered:])
    weights = 2 * d_model * width / rest
    return weights if gathered == 3 else weights + stream / chips_along(mesh.axes[:gathered])


def best_x(chips: int, *, d_model: int | float, width: int | float, sublayers: int = 1) -> float:
    """X* of WS-2D: the chips over which E is best divided.

    Example:
        >>> best_x(64, d_model=16384, width=65536)  # 0.5 sqrt(n) where F is 4 E
        4.0
    """
    return math.sqrt(sublayers * chips * d_model / width)


def best_volume_2d(
    chips: int, *, tokens: Count, d_model: int | float, width: int | float, sublayers: int = 1
) -> Count:
    """V_2D at X*, 8 BL E / sqrt(n) where F is 4 E.

    Example:
        >>> best_volume_2d(64, tokens=1, d_model=16384, width=65536) / 16384
        1.0
    """
    return 4 * tokens * math.sqrt(sublayers * d_model * width / chips)


def chips_from_which_2d_wins(
    *, d_model: int | float, width: int | float, sublayers: int = 1
) -> float:
    """n above which WS-2D moves less than WS-1D: 16 where F is 4 E.

    With the bandwidth of each axis instead of the whole chip's it takes more: see `step_cost` with
    the network `axes-together`.

    Example:
        >>> chips_from_which_2d_wins(d_model=16384, width=65536)
        16.0
    """
    return 4 * width / (sublayers * d_model)


def best_gathered_chips(chips: int, *, tokens: Count, width: int | float) -> float:
    """N* = sqrt(BL n / F): over how many chips weights are best gathered.

    The form keeps the activations' term at N = n, where there is none.

    Example:
        >>> best_gathered_chips(64, tokens=1024, width=65536)
        1.0
    """
    return float(math.sqrt(tokens * chips / width))


def best_gathered_volume(
    chips: int, *, tokens: Count, d_model: int | float, width: int | float
) -> float:
    """V_WG at N*, 4 E sqrt(BL F / n).

    Example:
        >>> best_gathered_volume(64, tokens=65536, d_model=16384, width=65536) / 16384
        32768.0
    """
    return float(4 * d_model * math.sqrt(tokens * width / chips))


def crossover_tokens(
    before: Layout,
    after: Layout,
    mesh: Mesh,
    *,
    d_model: int | float,
    width: int | float,
    weight_bytes: int | float = 2,
    activation_bytes: int | float = 2,
    sublayers: int = 1,
) -> float:
    """BL at which `after` begins to move fewer bytes than `before`.

    Args:
        before: the layout for fewer tokens.
        after: the layout for more tokens, which moves more weights.
        mesh: chips.
        d_model: E.
        width: F of a layer of two matrices, or `half_width`.
        weight_bytes: of a weight; those of recipes by `StoredWeights.nbytes` over parameters.
        activation_bytes: of an activation.
        sublayers: that gather E one after the other.

    Returns:
        Tokens of a forward pass.

    Raises:
        ValueError: `after` moves no fewer activations, so that it is never better.

    Example:
        >>> cube = Mesh.of(4, 4, 4)
        >>> for pair in (("ws-2d", "wg-x"), ("wg-x", "wg-xy"), ("wg-xy", "wg-xyz")):
        ...     print(round(crossover_tokens(*pair, cube, d_model=16384, width=65536)))
        16384
        65536
        786432

    Source: derived from the volumes of Pope et al. 2022, section 3.2.
    """
    sizes = {"d_model": d_model, "width": width, "sublayers": sublayers}

    def volumes(layout: Layout) -> tuple[float, float]:
        weights = float(layout_volume(layout, mesh, tokens=0, **sizes))
        return weights, float(layout_volume(layout, mesh, tokens=1, **sizes)) - weights

    (weights_before, tokens_before), (weights_after, tokens_after) = map(volumes, (before, after))
    if tokens_before <= tokens_after:
        raise ValueError(
            f"{after} on a mesh {mesh} moves no fewer activations than {before}: name the layout "
            "for fewer tokens first."
        )
    bytes_more = weight_bytes * (weights_after - weights_before)
    return bytes_more / (activation_bytes * (tokens_before - tokens_after))
