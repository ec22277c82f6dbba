"""T5 against transformers' logits, and what an encoder-decoder must hold."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gossamer.models import (
    T5,
    T5Config,
    T5Inputs,
    build,
    build_block,
    build_ends,
    config_from_hf,
    hf_key,
    parameter_shapes,
)
from gossamer.nn.relative_positions import buckets_of_distances, relative_bias

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "t5"
# Scores are not divided by sqrt(H) and reach tens here: softmax enlarges errors as much.
ATOL = 1e-4


@dataclasses.dataclass(frozen=True)
class Golden:
    """One file that scripts/make_golden_t5.py made."""

    config: T5Config
    weights: dict[str, np.ndarray]  # by our paths
    inputs: T5Inputs
    logits: np.ndarray  # [B, T, V]

    @classmethod
    def load(cls, name: str) -> "Golden":
        with np.load(FOLDER / f"{name}.npz") as file:
            arrays = dict(file)
        config = config_from_hf(json.loads(str(arrays["config"])))
        assert isinstance(config, T5Config)
        weights = {}
        for path in parameter_shapes(config):
            weight = arrays[hf_key(config, path)].astype(np.float32)
            weights[path] = weight.T if path.endswith(".kernel") else weight
        source, mask, target = (
            jnp.asarray(arrays[name]) for name in ("source", "source_mask", "target")
        )
        inputs = T5Inputs(source, target, mask, jnp.ones_like(target))
        return cls(config, weights, inputs, arrays["logits"])

    def model(self) -> T5:
        model = build(self.config, self.weights.__getitem__)
        assert isinstance(model, T5)
        return model


@pytest.fixture(params=sorted(path.stem for path in FOLDER.glob("*.npz")))
def golden(request) -> Golden:
    """Every golden T5 in turn."""
    return Golden.load(request.param)


@functools.partial(jax.jit, static_argnums=0)
def run(graph, state, inputs):
    return nnx.merge(graph, state)(inputs)


def test_logits_equal_those_of_transformers_padding_included(golden):
    logits = run(*nnx.split(golden.model()), golden.inputs)
    np.testing.assert_allclose(logits, golden.logits, atol=ATOL, rtol=0)


def test_decoding_token_by_token_equals_the_full_pass(golden):
    model, inputs = golden.model(), golden.inputs
    read = model.read(inputs.source, inputs.source_segments)
    cache = model.empty_cache(2, 30)
    for place in range(inputs.target.shape[1]):
        logits, cache = model.step(inputs.target[:, place], cache, read, inputs.source_segments)
        np.testing.assert_allclose(logits, golden.logits[:, place], atol=ATOL, rtol=0)


def test_two_pairs_in_a_row_are_each_as_if_alone(golden):
    model, whole = golden.model(), golden.inputs
    pairs = [(5, 7), (9, 4)]  # tokens of source and target
    sources = [whole.source[:1, :5], whole.source[:1, 5:14]]
    targets = [whole.target[:1, :7], whole.target[:1, 7:11]]
    alone = [model(T5Inputs.of(s, t)) for s, t in zip(sources, targets, strict=True)]

    def segments(side: int) -> jax.Array:
        counts = [pair[side] for pair in pairs]
        return jnp.concatenate([jnp.full((1, n), i) for i, n in enumerate(counts, 1)], axis=1)

    packed = T5Inputs(
        jnp.concatenate(sources, 1), jnp.concatenate(targets, 1), segments(0), segments(1)
    )
    np.testing.assert_allclose(model(packed), jnp.concatenate(alone, 1), atol=ATOL, rtol=0)


def test_what_pads_changes_no_other_token(golden):
    model, whole = golden.model(), golden.inputs
    short = T5Inputs.of(whole.source[:1, :6], whole.target[:1, :5])

    def padded(x: jax.Array, token: int) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, 3)), constant_values=token)

    for token in (0, 9):
        longer = T5Inputs(
            padded(short.source, token),
            padded(short.target, token),
            padded(short.source_segments, 0),
            padded(short.target_segments, 0),
        )
        np.testing.assert_allclose(model(longer)[:, :5], model(short), atol=ATOL, rtol=0)


def test_no_logit_sees_a_later_token_of_the_target(golden):
    model, inputs = golden.model(), golden.inputs
    changed = dataclasses.replace(inputs, target=inputs.target.at[:, 10].add(1))
    before, after = model(inputs), model(changed)
    np.testing.assert_array_equal(before[:, :10], after[:, :10])
    assert np.abs(before[:, 10:] - after[:, 10:]).max() > 1e-3


def test_blocks_and_ends_one_at_a_time_give_the_whole_model(golden):
    read = golden.weights.__getitem__
    ends = build_ends(golden.config, read)
    assert isinstance(ends, T5)
    flow = ends.begin(golden.inputs)
    for index in range(golden.config.num_blocks):
        flow = build_block(golden.config, read, index).through(flow)
    np.testing.assert_allclose(ends.logits(flow.target), golden.logits, atol=ATOL, rtol=0)


def test_a_fresh_model_has_the_parameters_that_its_config_says(golden):
    state = nnx.to_flat_state(nnx.state(T5(golden.config, nnx.Rngs(0))))
    fresh = {".".join(map(str, path)): variable.get_value().shape for path, variable in state}
    assert parameter_shapes(golden.config) == fresh


def test_the_config_survives_the_way_to_hugging_face_and_back(golden):
    assert config_from_hf(golden.config.to_hf()) == golden.config


def bucket_by_the_letter(ahead: int, buckets: int, far: int, both_ways: bool) -> int:
    """Section 2.1 of the paper, as transformers spells it, one distance at a time."""
    first, distance = 0, max(-ahead, 0)
    if both_ways:
        buckets //= 2
        first, distance = buckets * (ahead > 0), abs(ahead)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    ratio = np.log(np.float32(distance) / np.float32(exact)) / np.float32(np.log(far / exact))
    return first + min(exact + int(ratio * (buckets - exact)), buckets - 1)


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize(("buckets", "far"), [(32, 128), (16, 20), (8, 100)])
def test_every_distance_has_the_bucket_that_the_formula_gives(buckets, far, both_ways):
    table = jnp.arange(buckets, dtype=jnp.float32)[:, None]
    places = jnp.arange(300)
    got = relative_bias(table, places[150:151], places, max_distance=far, both_ways=both_ways)[0, 0]
    want = [bucket_by_the_letter(key - 150, buckets, far, both_ways) for key in range(300)]
    np.testing.assert_array_equal(got, want)


def test_distances_in_one_bucket_only_grow():
    for both_ways in (True, False):
        buckets = buckets_of_distances(32, 128, both_ways=both_ways)
        assert (np.diff(buckets) >= 0).all()
        assert buckets[-1] == (15 if both_ways else 31)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj must be 'relu' or 'gated-gelu'"),
        ({"d_model": None}, "d_model must be a whole number of at least 1, got None"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id must be a token's id, got -1"),
        ({"relative_attention_num_buckets": 6}, "buckets in multiples of 4, got 6"),
        ({"relative_attention_max_distance": 16}, "max_distance above half of its buckets"),
    ],
)
def test_configs_that_are_not_supported_are_refused(fields, message):
    sizes = {"vocab_size": 8, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    with pytest.raises(ValueError, match=message):
        T5Config.from_hf({"model_type": "t5", **sizes, **fields})
