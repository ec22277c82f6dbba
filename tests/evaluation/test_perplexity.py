import itertools

import numpy as np
import pytest

from gossamer.evaluation import perplexity
from tests.inference.tiny import tiny


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


@pytest.fixture(scope="module")
def tokens(model):
    rng = np.random.default_rng(0)
    return rng.integers(0, model.config.vocab_size, (3, 20)).astype(np.int32)


def test_the_losses_are_those_of_each_window_alone_and_their_mean_is_the_perplexity(model, tokens):
    whole = perplexity(model, tokens)
    alone = [perplexity(model, tokens[i : i + 1]).losses[0] for i in range(3)]
    # Products of other batch sizes sum float32 in other orders.
    np.testing.assert_allclose(whole.losses, alone, rtol=1e-5)
    assert whole.perplexity == pytest.approx(np.exp(np.mean(whole.losses)), rel=1e-12)
    assert len(set(whole.losses)) == 3


def test_the_hidden_states_before_and_behind_each_block_are_watched(model, tokens):
    seen, advances = [], []
    perplexity(model, tokens, advance=lambda: advances.append(len(seen)), watch=seen.append)
    assert [hidden.shape for hidden in seen] == [(3, 20, 32)] * (3 + 1)
    assert advances == [2, 3, 4]
    embedding = model.read("embedding.kernel")
    np.testing.assert_allclose(seen[0], embedding.T[tokens], rtol=1e-6)
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(seen))
