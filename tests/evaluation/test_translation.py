"""The likelihood of given translations is that of each pair by itself."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from gossamer.evaluation import given_translations
from gossamer.inference import blockwise
from gossamer.models import T5Inputs, build
from tests.compression.tiny_t5 import random_pairs, tiny_t5


@pytest.fixture(name="t5", scope="module")
def of_t5():
    return tiny_t5()


def losses_of(checkpoint, pair):
    """Of each token of a target, the last being the one that ends it; alone, in float64."""
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    source = [*tokenizer.encode(pair.source), config.end_id]
    labels = [*tokenizer.encode(pair.target), config.end_id]
    given = [config.start_id, *labels[:-1]]
    inputs = T5Inputs.of(jnp.asarray([source]), jnp.asarray([given]))
    logits = np.asarray(build(config, checkpoint.read)(inputs)[0], np.float64)
    return logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]


def test_pairs_in_rows_are_as_likely_as_each_by_itself(t5):
    pairs = random_pairs(5)
    want = np.concatenate([losses_of(t5, pair) for pair in pairs])
    found = given_translations(t5, pairs)
    assert found.predictions == len(want)
    assert found.cross_entropy == pytest.approx(want.mean(), rel=1e-5)


@pytest.mark.parametrize("count", [1, 20])
def test_rows_in_groups_count_as_all_at_once(t5, monkeypatch, count):
    pairs = random_pairs(count)
    whole = given_translations(t5, pairs)
    monkeypatch.setattr("gossamer.evaluation.translation.ROW", 40)
    monkeypatch.setattr(blockwise, "TOKENS_PER_CALL", 120)
    monkeypatch.setattr(blockwise, "GROUP_BYTES", 1)
    steps, calls = [], []

    def stage(expected):
        steps.append(expected)
        return lambda: calls.append(1)

    parts = given_translations(t5, pairs, stage)
    assert [len(calls)] == steps
    assert (len(calls) > t5.config.num_blocks) == (count > 1)
    assert parts.predictions == whole.predictions
    assert parts.cross_entropy == pytest.approx(whole.cross_entropy, rel=1e-5)


def test_a_likelihood_that_is_not_finite_names_the_model(t5):
    scale = np.full_like(t5.read("decoder.norm.scale"), np.nan)
    broken = t5.with_tensors({"decoder.norm.scale": scale})
    broken = dataclasses.replace(broken, source={"name": "broken"})
    with pytest.raises(ValueError, match="'broken' is nan"):
        given_translations(broken, random_pairs(2))
