"""Translating: token by token, and in batches, is what the model's logits say."""

import jax.numpy as jnp
import numpy as np
import pytest

from gossamer import compress
from gossamer.inference import generate, greedy, translate
from gossamer.models import T5Inputs, build
from gossamer.packing import Packed
from gossamer.weights import materialize
from tests.inference.tiny import tiny

TEXTS = ["hello", "he", "a longer text that says hello", "x"]


@pytest.fixture(scope="module", params=["t5", "flan_t5"])
def model(request):
    return tiny(request.param)


def by_whole_passes(checkpoint, text, count):
    """The likeliest token each time, by a full pass for every token."""
    model = build(checkpoint.config, checkpoint.read)
    source = [*checkpoint.tokenizer.encode(text), checkpoint.config.end_id]
    target = [checkpoint.config.start_id]
    for _ in range(count):
        inputs = T5Inputs.of(jnp.asarray([source]), jnp.asarray([target]))
        target.append(int(jnp.argmax(model(inputs)[0, -1])))
        if target[-1] == checkpoint.config.end_id:
            break
    return target[1:]


def test_generated_tokens_are_the_likeliest_of_full_passes(model):
    for text in TEXTS:
        got = generate(model, text, max_tokens=6)
        assert got.tokens == by_whole_passes(model, text, 6)
        assert got.stopped_by in ("end", "length")


def test_texts_in_batches_of_like_length_are_translated_as_each_alone(model):
    want = [generate(model, text, max_tokens=6).text.strip() for text in TEXTS]
    assert translate(model, TEXTS, max_tokens=6, batch=3) == want
    assert translate(model, TEXTS, max_tokens=6, batch=1) == want


def test_a_packed_model_translates_as_the_weights_that_it_stands_for(model):
    packed = compress(model, "2:4-int8", method="magnitude")
    assert isinstance(packed.read("decoder.layers.0.cross_attention.k_proj.kernel"), Packed)
    dense = model.with_tensors(
        {path: np.asarray(materialize(packed.read(path))) for path in packed.paths}
    )
    assert translate(packed, TEXTS, max_tokens=6) == translate(dense, TEXTS, max_tokens=6)


def test_a_row_that_has_ended_writes_nothing_more(model):
    config = model.config
    net = build(config, model.read)
    source = jnp.asarray([[5, 6, 7], [8, 9, config.end_id]])
    out = np.asarray(greedy(net, source, jnp.ones_like(source), 12))
    for row in out:
        ends = np.flatnonzero(row == config.end_id)
        assert (row[ends[0] :] == config.end_id).all() if ends.size else True
