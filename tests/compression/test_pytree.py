import collections
import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from gossamer.compression import compress_pytree
from gossamer.parameters import parameter_paths
from gossamer.quantization import Int
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM, Block, Unstructured

INT4 = Int(4, group=4)
PRUNED_INT4 = Recipe(rules=(Rule(path=r".*(weight|kernel|w)", pattern=NM(2, 4), weights=INT4),))
KERNEL = jax.random.normal(jax.random.key(0), (16, 6))


def by_hand(kernel, format=INT4, n=2, m=4):
    """2:4, then the format, for a kernel [in, out]: one group and one output at a time."""
    kernel = np.array(kernel, np.float32)
    for o in range(kernel.shape[1]):
        for start in range(0, kernel.shape[0], m):
            group = kernel[start : start + m, o]
            group[np.argsort(-np.abs(group), kind="stable")[n:]] = 0
    return np.asarray(format.encode(jnp.asarray(kernel)).decode())


def pruned(path, pattern):
    return Recipe(rules=(Rule(path=path, pattern=pattern),))


class TwoLayers(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(16, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)])
        self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.dropout(jax.nn.relu(self.layers[0](x))))


def test_an_equinox_model_runs_on_compressed_weights_with_its_own_code():
    model = eqx.nn.MLP(8, 3, width_size=16, depth=2, key=jax.random.key(1))
    small = compress_pytree(model, PRUNED_INT4, reduction_axis=1)
    assert type(small) is type(model)
    x = jax.random.normal(jax.random.key(2), (8,))
    y = x
    for i, layer in enumerate(model.layers):
        kernel = by_hand(layer.weight.T)  # Equinox keeps [out, in]
        np.testing.assert_array_equal(small.layers[i].weight, kernel.T)
        assert small.layers[i].bias is layer.bias
        y = y @ kernel + layer.bias
        y = jax.nn.relu(y) if i < 2 else y
    np.testing.assert_allclose(small(x), y, rtol=1e-5, atol=1e-6)
    assert not np.allclose(small(x), model(x))


def test_an_nnx_state_keeps_its_names_and_types():
    graph, state = nnx.split(TwoLayers(nnx.Rngs(0)))
    paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)]
    assert sorted(parameter_paths(state)) == sorted(paths)
    small = compress_pytree(state, PRUNED_INT4)
    assert jax.tree.structure(small) == jax.tree.structure(state)
    model, dense = nnx.merge(graph, small), nnx.merge(graph, state)
    for got, was in zip(model.layers, dense.layers, strict=True):
        assert type(got.kernel) is nnx.Param
        np.testing.assert_array_equal(got.kernel.get_value(), by_hand(was.kernel.get_value()))
        np.testing.assert_array_equal(got.bias.get_value(), was.bias.get_value())
    assert model(jnp.ones((2, 16))).shape == (2, 3)


def test_an_nnx_module_is_a_pytree_too():
    model = TwoLayers(nnx.Rngs(0))
    before = np.array(model.layers[0].kernel.get_value())
    small = compress_pytree(model, PRUNED_INT4)
    np.testing.assert_array_equal(small.layers[0].kernel.get_value(), by_hand(before))
    np.testing.assert_array_equal(model.layers[0].kernel.get_value(), before)  # as it was


Pair = collections.namedtuple("Pair", ["w", "b"])


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    w: jax.Array
    b: jax.Array


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"w": KERNEL, "b": jnp.ones(6)}, "w"),
        ([{"mlp": {"w": KERNEL}}, 3, None, jnp.tanh], "0.mlp.w"),
        (Pair(KERNEL, jnp.ones(6)), "w"),
        ((Layer(KERNEL, jnp.ones(6)),), "0.w"),
    ],
    ids=["dict", "list", "namedtuple", "dataclass"],
)
def test_any_container_comes_back_as_it_was(params, path):
    assert path in parameter_paths(params)
    small = compress_pytree(params, PRUNED_INT4)
    assert jax.tree.structure(small) == jax.tree.structure(params)
    for got, was in zip(jax.tree.leaves(small), jax.tree.leaves(params), strict=True):
        if was is KERNEL:
            np.testing.assert_array_equal(got, by_hand(KERNEL))
        else:
            assert got is was


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_numpy_leaves_stay_numpy_of_their_dtype_and_kept_values_stay_exact(dtype):
    kernel = np.random.default_rng(0).normal(size=(16, 6)).astype(dtype)
    small = compress_pytree({"w": kernel}, pruned("w", NM(2, 4)))["w"]
    assert type(small) is np.ndarray
    assert small.dtype == dtype
    kept = small != 0
    assert kept.sum() == kernel.size // 2
    np.testing.assert_array_equal(small[kept], kernel[kept])
    rounded = compress_pytree({"w": kernel}, Recipe(rules=(Rule(path="w", weights=Int(8)),)))["w"]
    want = Int(8).encode(jnp.asarray(kernel)).decode()
    np.testing.assert_array_equal(rounded, np.asarray(want).astype(dtype))


def test_bfloat16_arrays_stay_bfloat16():
    small = compress_pytree({"w": KERNEL.astype(jnp.bfloat16)}, PRUNED_INT4)["w"]
    assert small.dtype == jnp.bfloat16
    want = by_hand(KERNEL.astype(jnp.bfloat16))
    np.testing.assert_array_equal(small, want.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("pattern", [NM(1, 4), Block(0.5, (4, 1)), Unstructured(0.25)], ids=str)
def test_the_reduction_axis_says_along_which_axis_groups_lie(pattern):
    recipe = Recipe(rules=(Rule(path="w", pattern=pattern, weights=Int(3, group=8)),))
    first = compress_pytree({"w": KERNEL}, recipe)["w"]
    last = compress_pytree({"w": KERNEL.T}, recipe, reduction_axis=1)["w"]
    np.testing.assert_array_equal(first, last.T)


def test_presets_fit_models_that_name_their_weights_as_ours():
    params = {
        "embedding": {"kernel": jnp.ones((64, 10))},
        "layers": [{"mlp": {"kernel": jax.random.normal(jax.random.key(3), (64, 8))}}],
    }
    small = compress_pytree(params, "2:4-int4")
    kernel = small["layers"][0]["mlp"]["kernel"]
    np.testing.assert_array_equal((kernel.reshape(16, 4, 8) != 0).sum(axis=1) <= 2, True)
    assert len(np.unique(kernel[:, 0])) <= 15


def test_everything_that_cannot_be_compressed_is_named_at_once():
    params = {
        "bias": jnp.ones(3),
        "conv": jnp.ones((3, 3, 4)),
        "counts": jnp.ones((4, 4), int),
        "wide": jnp.ones((6, 4)),
        "sick": jnp.ones((8, 4)).at[3, 1].set(jnp.nan),
        "huge": jnp.ones((8, 4)).at[0, 0].set(jnp.inf),
    }
    with pytest.raises(ValueError, match="cannot be compressed") as caught:
        compress_pytree(params, pruned(".*", NM(2, 4)))
    for fault in (
        "bias (3,) is float32, and rules are for matrices of floats; narrow '.*'",
        "conv (3, 3, 4) is float32",
        "counts (4, 4) is int32",
        "wide (6, 4): 2:4 needs the length of axis 0 to be a multiple of 4, got 6",
        "sick (8, 4) holds NaN or Inf",
        "huge (8, 4) holds NaN or Inf",
    ):
        assert fault in str(caught.value)


def test_a_group_that_does_not_divide_the_reduction_axis_is_refused_with_the_path():
    recipe = Recipe(rules=(Rule(path="a.w", weights=Int(4, group=8)),))
    params = {"a": {"w": jnp.ones((16, 6))}}
    compress_pytree(params, recipe)
    with pytest.raises(ValueError, match=r"a\.w \(16, 6\): int4, groups of 8, .* got 6"):
        compress_pytree(params, recipe, reduction_axis=1)


def test_quantized_activations_are_refused():
    recipe = Recipe(rules=(Rule(path="w", weights=Int(8), activations=Int(8)),))
    with pytest.raises(ValueError, match=r"w \(16, 6\): .* cannot quantize activations; leave"):
        compress_pytree({"w": KERNEL}, recipe)


def test_a_rule_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"\['v'\] .* match no weight .* like \['w'\]"):
        compress_pytree({"w": KERNEL}, pruned("v", NM(2, 4)))


def test_a_third_axis_is_refused():
    with pytest.raises(ValueError, match="reduction axis 0 or 1, got reduction_axis=2"):
        compress_pytree({"w": KERNEL}, PRUNED_INT4, reduction_axis=2)
