"""Programs of JAX that train in these partitions move what the arithmetic says."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from gossamer.planning import ModelShape, TrainingPartition
from gossamer.planning.training_blocks import activation_rounds

# T tokens and E columns in the whole step, on two parts of model1 and two of model2.
TOKENS, E, F, LAYERS = 8, 16, 64, 3
SHAPE = ModelShape(
    name="tiny", layers=LAYERS, d_model=E, d_ff=F, heads=2, kv_heads=2, head_dim=8, vocabulary=32
)
ROUNDS = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1}


@pytest.fixture(name="mesh", scope="module")
def of_mesh():
    if jax.device_count() < 4:
        pytest.skip("needs 4 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((2, 2), ("model1", "model2"), axis_types=kinds, devices=jax.devices()[:4])


def compiled_step(mesh, partition, rematerialize):
    """The gradient of blocks of two sublayers, looped over; the text of the compiled program."""

    def block(x, weights):
        for inwards, outwards in (weights[:2], weights[2:]):
            if partition.weights == 2:
                inwards = lax.all_gather(inwards, "model1", axis=0, tiled=True)
                outwards = lax.all_gather(outwards, "model1", axis=1, tiled=True)
            h = jnp.tanh(x)
            if partition.activations == 2:
                h = lax.all_gather(h, "model2", axis=1, tiled=True)
            h = jnp.sin(h @ inwards) @ outwards
            if partition.activations == 2:
                x = x + lax.psum_scatter(h, "model2", scatter_dimension=1, tiled=True)
            else:
                x = x + lax.psum(h, "model2")
        return x

    body = jax.checkpoint(block) if rematerialize else block
    across = "model1" if partition.weights == 2 else None
    spread = PartitionSpec("model1", "model2" if partition.activations == 2 else None)
    kernels = [PartitionSpec(None, across, "model2"), PartitionSpec(None, "model2", across)] * 2
    blocks = jax.shard_map(
        lambda x, weights: lax.scan(lambda c, w: (body(c, w), None), x, weights)[0],
        mesh=mesh,
        in_specs=(spread, kernels),
        out_specs=spread,
    )
    weights = [jnp.ones((LAYERS, E, F)), jnp.ones((LAYERS, F, E))] * 2
    gradient = jax.grad(lambda x, w: (blocks(x, w) ** 2).sum(), argnums=(0, 1))
    return jax.jit(gradient).lower(jnp.ones((TOKENS, E)), weights).compile().as_text()


def collectives(text):
    """How many of each kind, by the shape of the result."""
    found = Counter()
    for shape, kind in re.findall(
        r"= f32\[([\d,]+)\]\S* (all-gather|reduce-scatter|all-reduce)(?:-start)?\(", text
    ):
        found[kind, tuple(map(int, shape.split(",")))] += 1
    return found


@pytest.mark.parametrize("rematerialize", [False, True], ids=["kept", "rematerialized"])
@pytest.mark.parametrize("weights", [1, 2])
@pytest.mark.parametrize("activations", [1, 2])
def test_a_program_moves_activations_as_often_as_counted(activations, weights, rematerialize, mesh):
    partition = TrainingPartition(model1=2, model2=2, activations=activations, weights=weights)
    found = collectives(compiled_step(mesh, partition, rematerialize))
    whole = (TOKENS // 2, E)
    moved = {"all-reduce": whole, "all-gather": whole, "reduce-scatter": (TOKENS // 2, E // 2)}
    rounds = sum(ROUNDS[kind] * found[kind, shape] for kind, shape in moved.items())
    assert rounds == sum(activation_rounds(SHAPE, partition, rematerialize))


@pytest.mark.parametrize("activations", [1, 2])
def test_2d_weights_come_forward_and_backward_and_their_gradients_go_once(activations, mesh):
    partition = TrainingPartition(model1=2, model2=2, activations=activations, weights=2)
    found = collectives(compiled_step(mesh, partition, rematerialize=True))
    gathered = found["all-gather", (E, F // 2)] + found["all-gather", (F // 2, E)]
    scattered = (
        found["reduce-scatter", (E // 2, F // 2)] + found["reduce-scatter", (F // 2, E // 2)]
    )
    # Four kernels of a block.
    assert (gathered, scattered) == (2 * 4, 4)
