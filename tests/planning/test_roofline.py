import numpy as np
import pytest

from gossamer.planning import (
    CALIBRATED,
    IDEAL,
    Mesh,
    find_chip,
    find_shape,
    roof,
    roofline_plot,
    roofline_points,
    step_costs,
)

TPU, CUBE = find_chip("tpu-v4"), Mesh.of(4, 4, 4)
BATCHES = np.array([1, 16, 256, 1024])


def points(phase, constants, weights="bf16"):
    cost = step_costs(
        find_shape("palm-540b"),
        TPU,
        CUBE,
        layout="ws-2d",
        attention="batch",
        phase=phase,
        batch=BATCHES,
        context=2048,
        weights=weights,
        constants=constants,
    )
    return roofline_points(cost, TPU, constants)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("constants", [CALIBRATED, IDEAL], ids=lambda each: each.name)
def test_no_step_is_above_the_roof(phase, constants):
    found = points(phase, constants)
    limits = roof(TPU, [point.intensity for point in found])
    for point, limit in zip(found, limits.tolist(), strict=True):
        assert point.flops_per_second < limit


def test_intensity_is_flops_over_the_bytes_that_are_read():
    shape = find_shape("palm-540b")
    heads = 118 * 48 * 256 * 2048
    flops = 2 * (shape.parameters + 2 * heads) / 64
    read = 2 * (shape.parameters / 64 + 2 * 118 * 256 * 2048)
    assert points("decode", IDEAL)[0].intensity == pytest.approx(flops / read, rel=1e-6)


def test_narrower_weights_raise_the_intensity():
    wide, narrow = (points("decode", CALIBRATED, bits)[0] for bits in ("bf16", "int8"))
    # The output and the cache stay bf16.
    assert 1.9 * wide.intensity < narrow.intensity < 2 * wide.intensity


def test_a_roof_rises_by_memory_and_ends_at_the_peak():
    ridge = TPU.bf16_flops / TPU.memory_bandwidth
    low, corner, high = roof(TPU, [1.0, ridge, 1e4]).tolist()
    assert (low, high) == (TPU.memory_bandwidth, TPU.bf16_flops)
    assert corner == pytest.approx(TPU.bf16_flops)
    assert roofline_plot(TPU, {"decode": points("decode", IDEAL)}, title="t")[:4] == b"\x89PNG"
