"""The Pallas kernel made ready for TPUs that are not there: only lowered, or only compiled.

Interpreting takes operations and shapes that Mosaic, the compiler for TPUs, does not have. Lowering
finds part of those faults. The compiler itself, in the package libtpu, finds the others; it is not
among gossamer's dependencies, and what needs it is skipped without it.
"""

import importlib.util
import types

import jax
import jax.export
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from gossamer.kernels.product import pallas
from gossamer.packing import Packed
from gossamer.quantization import Int
from gossamer.sparsity import NM
from tests.kernels.oracle import made
from tests.kernels.product.layouts import LAYOUTS

CALL = "tpu_custom_call"  # what Mosaic's kernels are in a lowered program
INPUTS = [(jnp.bfloat16, None), (jnp.float32, None), (jnp.float32, Int(8))]
each_layout = pytest.mark.parametrize(("format", "pattern"), LAYOUTS.values(), ids=LAYOUTS.keys())


def shapes(
    shape: tuple[int, int], format: Int, pattern: NM | None, activations: Int | None
) -> Packed:
    """A packed kernel with shapes in the places of its arrays."""
    return jax.eval_shape(lambda: made(shape, format, pattern, activations)[0])


def product(x: jax.Array, kernel: Packed) -> jax.Array:
    assert pallas.why_not(x, *kernel.parts()) is None
    return pallas.product(x, *kernel.parts())


@each_layout
def test_it_is_lowered_for_tpus(format, pattern):
    for dtype, activations in INPUTS:
        kernel = shapes((2048, 1040), format, pattern, activations)
        x = jax.ShapeDtypeStruct((5, 2048), dtype)
        lowered = jax.export.export(jax.jit(product), platforms=["tpu"])(x, kernel)
        assert CALL in lowered.mlir_module()


@pytest.fixture
def _on_a_tpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    chips = [types.SimpleNamespace(device_kind="TPU v5 lite")]
    devices = jax.devices
    monkeypatch.setattr(jax, "devices", lambda kind=None: devices(kind) if kind else chips)
    jax.clear_caches()  # of programs that were traced where there is no TPU
    yield
    jax.clear_caches()


@pytest.mark.usefixtures("_on_a_tpu")
def test_packed_multiplies_by_it_on_tpus_alone():
    kernel = shapes((64, 32), Int(4), NM(2, 4), None)
    x = jax.ShapeDtypeStruct((2, 3, 64), jnp.float32)
    dot = jax.jit(lambda x, kernel: kernel.dot(x))
    for platform in ("tpu", "cpu", "cuda"):
        lowered = dot.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        assert (CALL in lowered) == (platform == "tpu"), platform


@pytest.mark.usefixtures("_on_a_tpu")
def test_packed_multiplies_in_plain_jax_what_it_refuses():
    kernel = shapes((64, 32), Int(3), None, None)
    x = jax.ShapeDtypeStruct((2, 64), jnp.float32)
    dot = jax.jit(lambda x, kernel: kernel.dot(x))
    assert CALL not in jax.export.export(dot, platforms=["tpu"])(x, kernel).mlir_module()


@pytest.mark.usefixtures("_on_a_tpu")
def test_packed_has_its_derivative_on_tpus():
    kernel = shapes((64, 32), Int(4), NM(2, 4), None)
    x = jax.ShapeDtypeStruct((2, 64), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x, kernel: jnp.sum(kernel.dot(x) ** 2)))
    assert CALL in jax.export.export(gradient, platforms=["tpu"])(x, kernel).mlir_module()


@pytest.mark.usefixtures("_on_a_tpu")
def test_it_is_available_on_tpus_that_multiply_bytes(monkeypatch):
    assert pallas.why_unavailable() is None
    old = [types.SimpleNamespace(device_kind="TPU v4")]
    monkeypatch.setattr(jax, "devices", lambda: old)
    assert pallas.why_unavailable() == "a TPU v4 cannot multiply bytes"


def test_it_is_not_available_without_a_tpu():
    assert pallas.why_unavailable() == "JAX runs on cpu, not on a TPU"


compiled = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no compiler for TPUs: libtpu"
)


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("chip", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
@each_layout
def test_it_is_compiled_for_tpus(format, pattern, chip):
    (device, *_) = topologies.get_topology_desc(chip, platform="tpu").devices
    here = SingleDeviceSharding(device)
    program = jax.jit(product, in_shardings=here, out_shardings=here)
    for dtype, activations in INPUTS:
        kernel = shapes((2048, 1040), format, pattern, activations)
        for rows in (1, 600):
            x = jax.ShapeDtypeStruct((rows, 2048), dtype)
            assert CALL in program.lower(x, kernel).compile().as_text()
