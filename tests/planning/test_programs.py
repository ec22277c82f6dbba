"""Programs of JAX in the layouts of Pope et al. move what the paper's formulas say."""

import jax
import numpy as np
import pytest

from tests.planning.partitioned_block import (
    EVERYWHERE,
    Sizes,
    collective_elements,
    on_one_chip,
    partitioned,
)

SIZES = Sizes(batch=16, tokens=4, cached=3, d_model=32, d_ff=64, heads=8, head_dim=4)
CASES = [
    (layout, attention)
    for layout in ("ws-1d", "ws-2d", "wg-x", "wg-xy", "wg-xyz")
    for attention in ("heads", "batch")
    if (layout, attention) != ("wg-xyz", "heads")  # its sequences are apart from the start
]


@pytest.fixture(name="mesh", scope="module")
def of_mesh():
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    kinds = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh((2, 2, 2), EVERYWHERE, axis_types=kinds, devices=jax.devices()[:8])


def volumes(layout, attention):
    """Elements a chip of the paper's section 3 and appendix A, with SwiGLU's two matrices inside.

    X = Y = Z = 2.
    """
    tokens = SIZES.batch * SIZES.tokens
    e, f = SIZES.d_model, SIZES.d_ff
    attended = SIZES.heads * SIZES.head_dim
    weights = e * (3 * f + 2 * attended)
    key_value = 2 * e * SIZES.head_dim
    wanted = {
        "ws-1d": {"all-gather": tokens * e, "reduce-scatter": tokens * e},
        "ws-2d": {
            "all-gather": tokens * (e // 2 + (f + attended) // 4),
            "reduce-scatter": tokens * (e // 2 + (2 * f + attended) // 4),
            "all-reduce": tokens * 2 * SIZES.head_dim,
        },
        "wg-x": {
            "all-gather": weights // 4 + key_value + tokens * e // 2,
            "reduce-scatter": tokens * e // 2,
        },
        "wg-xy": {
            "all-gather": weights // 2 + key_value + tokens * e // 4,
            "reduce-scatter": tokens * e // 4,
        },
        "wg-xyz": {"all-gather": weights + key_value},
    }[layout]
    if attention == "batch" and layout != "wg-xyz":
        wanted["all-to-all"] = 2 * tokens * attended // 8
    return wanted


@pytest.mark.parametrize(("layout", "attention"), CASES)
def test_a_layout_computes_the_block_and_moves_what_the_formulas_say(layout, attention, mesh):
    rng = np.random.default_rng(0)
    weights = SIZES.weights(rng)
    x, cache = SIZES.inputs(rng)
    program = partitioned(layout, attention, mesh).lower(weights, x, cache).compile()
    np.testing.assert_allclose(
        program(weights, x, cache), on_one_chip(weights, x, cache), atol=1e-5
    )
    assert collective_elements(program.as_text()) == volumes(layout, attention)
