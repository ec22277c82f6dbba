"""Training an encoder-decoder on pairs of texts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from gossamer.data import Pair, Tokenizer, pack_pairs, split_pairs
from gossamer.evaluation import bleu
from gossamer.models import T5Config, T5Inputs, build, parameter_shapes
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from gossamer.sparsity.methods import SRSTE
from gossamer.training import (
    AdamW,
    MeshConfig,
    PairCorpus,
    PairsConfig,
    QuantizationConfig,
    Step,
    TrainingConfig,
    as_checkpoint,
    make_mesh,
    put_batch,
    read_corpus,
    train,
    translations,
)
from tests.training.runs import run as text_run

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf"}
MODEL = T5Config(
    vocab_size=272,
    hidden_size=32,
    intermediate_size=64,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    head_dim=16,
    scaled_output=False,
)


def pairs(count=400, seed=0) -> list[Pair]:
    """Numbers spelled in English and in German."""
    draw = np.random.default_rng(seed)
    texts = [draw.choice(list(WORDS), draw.integers(1, 5)) for _ in range(count)]
    return [Pair(" ".join(words), " ".join(WORDS[w] for w in words)) for words in texts]


def corpus() -> PairCorpus:
    learned, held_out = split_pairs(pairs(), 0.1)
    texts = [text for pair in learned for text in (pair.source, pair.target)]
    tokenizer = Tokenizer.trained(texts, MODEL.vocab_size)
    return PairCorpus(learned=learned, held_out=held_out, tokenizer=tokenizer)


def run(**changes) -> TrainingConfig:
    settings = {
        "model": MODEL,
        "data": PairsConfig(vocab_size=MODEL.vocab_size, held_out=0.1),
        "steps": 6,
        "batch": 4,
        "context": 24,
        "optimizer": AdamW(learning_rate=1e-2, warmup=2),
        "log_every": 1,
        "checkpoint_every": 3,
        "mesh": MeshConfig(data=1),
    }
    return TrainingConfig(**(settings | changes))


TOKENS = st.lists(st.integers(2, 9), max_size=7)


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=30))
def test_packed_rows_hold_every_pair_once_and_in_order(tokens):
    rows = pack_pairs(tokens, 8, start_id=0, end_id=1)
    found = []
    for row in range(len(rows.source)):
        assert rows.source_segments[row].max() == rows.target_segments[row].max()
        for segment in range(1, rows.source_segments[row].max() + 1):
            source = rows.source[row][rows.source_segments[row] == segment]
            here = rows.target_segments[row] == segment
            target, labels = rows.target[row][here], rows.labels[row][here]
            assert (source[-1], target[0], labels[-1]) == (1, 0, 1)
            np.testing.assert_array_equal(target[1:], labels[:-1])
            found.append((source[:-1].tolist(), labels[:-1].tolist()))
    assert found == [(list(source), list(target)) for source, target in tokens]


def alone(source: list[int], target: list[int]) -> T5Inputs:
    """A pair by itself, padded to one length for all."""

    def padded(tokens: list[int]) -> jax.Array:
        return jnp.asarray([tokens + [0] * (24 - len(tokens))])

    return T5Inputs(
        *map(padded, (source, target)), *(padded([1] * len(side)) for side in (source, target))
    )


def test_the_loss_is_that_of_every_pair_alone():
    config, data = run(), corpus()
    step = Step(config, make_mesh(config.mesh))
    state = step.init()
    rows = data.evaluation(config)
    losses = step.losses(state, put_batch(step.mesh, rows))
    graph, weights = nnx.split(build(config.model, lambda path: np.asarray(state.params[path])))
    chances_of = jax.jit(lambda inputs: jax.nn.log_softmax(nnx.merge(graph, weights)(inputs)))
    total, predictions = 0.0, 0
    for pair in data.held_out:
        source = [*data.tokenizer.encode(pair.source), 1]
        target = [0, *data.tokenizer.encode(pair.target)]
        chances = np.asarray(chances_of(alone(source, target)))[0]
        labels = [*target[1:], 1]
        total -= sum(float(chances[i, label]) for i, label in enumerate(labels))
        predictions += len(labels)
    assert float(losses.counts.sum()) == predictions
    assert float(losses.sums.sum()) == pytest.approx(total, rel=1e-5)
    assert 0 <= float(losses.correct.sum()) <= predictions


def test_parts_of_unequal_size_give_the_gradient_of_the_whole():
    whole = Step(run(), make_mesh(MeshConfig(data=1)))
    parts = Step(run(accumulate=2), make_mesh(MeshConfig(data=1)))
    rows = jax.tree.map(lambda leaf: leaf[-4:], corpus().evaluation(run()))
    counts = (rows.target_segments != 0).sum(axis=1)
    assert counts[[0, 2]].sum() != counts[[1, 3]].sum()
    batch, key = put_batch(whole.mesh, rows), jax.random.key(0)
    params = whole.init().params
    loss, grads = jax.jit(whole._gradients)(params, batch, key)
    other_loss, other = jax.jit(parts._gradients)(params, batch, key)
    np.testing.assert_allclose(loss, other_loss, rtol=1e-6)
    for path, grad in grads.items():
        np.testing.assert_allclose(other[path], grad, atol=2e-6, err_msg=path)


class KilledError(Exception):
    pass


def killed_after(steps):
    """A progress that stops a run as Ctrl-C would."""
    left = iter(range(steps))

    def advance():
        if next(left, None) is None:
            raise KilledError

    return lambda name, count: advance


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path):
    config = run(method=SRSTE(recipe=sparse()))
    whole = train(config, corpus=corpus())
    with pytest.raises(KilledError):
        train(config, folder=tmp_path, corpus=corpus(), progress=killed_after(4))
    resumed = train(config, folder=tmp_path, corpus=corpus(), resume=True)
    for path, weight in whole.params.items():
        np.testing.assert_array_equal(resumed.params[path], weight, err_msg=path)
    assert resumed.evaluation == whole.evaluation
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]


def sparse() -> Recipe:
    return Recipe(rules=(Rule(path=r"\w+\.layers\..*\.mlp\..*\.kernel", pattern=NM(2, 4)),))


@pytest.mark.slow
def test_a_translator_learns_and_is_saved_as_it_was_trained():
    config = run(
        steps=800,
        batch=8,
        optimizer=AdamW(learning_rate=3e-3, warmup=20),
        method=SRSTE(recipe=sparse()),
        quantization=QuantizationConfig(recipe=Recipe.load("int8"), multiply="fake"),
    )
    data = corpus()
    trained = train(config, corpus=data)
    found = translations(config, trained, data)
    assert found.bleu > 60
    # Rounded to int8, as in training, and not: close, and both learned.
    checkpoint = as_checkpoint(config, trained.weights, data)
    assert bleu(checkpoint, data.held_out, max_tokens=24).bleu == pytest.approx(found.bleu, abs=10)


def test_what_a_run_cannot_learn_from_is_refused(tmp_path):
    data = corpus()
    with pytest.raises(ValueError, match="no pairs held out; give more, or another share"):
        dataclasses.replace(data, held_out=[]).check(run())
    small = dataclasses.replace(MODEL, vocab_size=100)
    with pytest.raises(ValueError, match="its tokenizer has 272 tokens, and the model only 100"):
        data.check(run(model=small))
    with pytest.raises(ValueError, match=r"ends texts with \[1\], and the model with token 5"):
        data.check(run(model=dataclasses.replace(MODEL, end_id=5)))
    with pytest.raises(ValueError, match=r"None of the .* pairs to learn from fits in 1 tokens"):
        data.examples(run(context=1))
    with pytest.warns(UserWarning, match="pairs to learn from are longer than 6 tokens"):
        data.examples(run(context=6))
    with pytest.raises(ValueError, match=r"No file of pairs is named: .* as --data"):
        read_corpus(PairsConfig())
    (tmp_path / "pairs.tsv").write_text("a\tb\n")
    with pytest.raises(ValueError, match=r"no tokenizer.json in .*; name a model's folder"):
        read_corpus(PairsConfig(pairs=str(tmp_path / "pairs.tsv"), tokenizer=str(tmp_path)))


def test_weights_of_another_model_are_refused_and_the_folder_stays_as_it_was(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    shapes = parameter_shapes(dataclasses.replace(MODEL, intermediate_size=128))
    params = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    message = r"Parameters are not those of the model: \['decoder\.layers\.0\.mlp\.down_proj"
    with pytest.raises(ValueError, match=message):
        train(run(), folder=tmp_path, corpus=corpus(), params=params)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["notes.txt"]


def test_models_and_data_of_different_kinds_are_refused():
    with pytest.raises(ValueError, match=r"the data are pairs of texts, .* is a LlamaConfig"):
        text_run(data=PairsConfig())
    with pytest.raises(ValueError, match=r"the data are a text, .* the model is a T5Config"):
        run(data=text_run().data)


def test_a_run_survives_the_way_to_plain_data_and_back():
    config = run(method=SRSTE(recipe=sparse()))
    assert TrainingConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"data.*'ImaginaryConfig'"):
        TrainingConfig.from_dict(config.to_dict() | {"data": {"type": "ImaginaryConfig"}})
