"""Programs of JAX in the layouts of Pope et al. move what the planner says, over the same axes."""

from collections import Counter

import jax
import numpy as np
import pytest

from gossamer.planning import Mesh, ModelShape, gathered_share, layer_collectives
from tests.planning.partitioned_block import (
    EVERYWHERE,
    Sizes,
    collective_elements,
    on_one_chip,
    partitioned,
)

SIZES = Sizes(batch=16, tokens=4, cached=3, d_model=32, d_ff=64, heads=8, head_dim=4)
SHAPE = ModelShape(
    name="block",
    layers=1,
    d_model=SIZES.d_model,
    d_ff=SIZES.d_ff,
    heads=SIZES.heads,
    kv_heads=1,
    head_dim=SIZES.head_dim,
    vocabulary=1,
    ffn_matrices=3,
    parallel=True,
)
CASES = [
    (sizes, layout, attention)
    for sizes in ((2, 2, 2), (4, 1, 2))
    for layout in ("ws-1d", "ws-2d", "wg-x", "wg-xy", "wg-xyz")
    for attention in ("heads", "batch")
    if (layout, attention) != ("wg-xyz", "heads")  # its sequences are apart from the start
]
GATHERED = {"wg-x": "x", "wg-xy": "xy", "wg-xyz": "xyz"}
"""The axes over which weights come to a chip; activations are gathered over the others."""


def planned(sizes, layout, attention):
    """Elements of the planner's collectives, by kind and axes; and those of gathered weights."""
    mesh = Mesh.of(*sizes)
    collectives = layer_collectives(
        SHAPE,
        mesh,
        layout,
        attention,
        phase="prefill",
        batch=SIZES.batch,
        tokens=SIZES.batch * SIZES.tokens,
    )
    found = Counter()
    for each in collectives:
        axes = [
            name
            for name, axis in zip("xyz", mesh.axes, strict=True)
            if axis.size > 1 and any(axis is over for over in each.axes)
        ]
        if axes and each.elements:
            found[each.kind, "".join(axes)] += each.elements
    kernels = SHAPE.block_kernels("layers").values()
    weights = sum(inputs * outputs for inputs, outputs in kernels)
    return found, weights * gathered_share(SHAPE, mesh, layout, "prefill")


@pytest.mark.parametrize(("sizes", "layout", "attention"), CASES)
def test_a_layout_computes_the_block_and_moves_what_the_planner_says(sizes, layout, attention):
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    kinds = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.make_mesh(sizes, EVERYWHERE, axis_types=kinds, devices=jax.devices()[:8])
    rng = np.random.default_rng(0)
    weights = SIZES.weights(rng)
    x, cache = SIZES.inputs(rng)
    program = partitioned(layout, attention, mesh).lower(weights, x, cache).compile()
    np.testing.assert_allclose(
        program(weights, x, cache), on_one_chip(weights, x, cache), atol=1e-5
    )
    moved = collective_elements(program.as_text(), sizes)
    gathers = {
        key
        for key in moved
        if key[0] == "all-gather" and set(key[1]) <= set(GATHERED.get(layout, ""))
    }
    gathered = sum(moved.pop(key) for key in gathers)
    assert (moved, gathered) == planned(sizes, layout, attention)
