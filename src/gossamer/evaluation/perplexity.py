"""Perplexity of a language model on non-overlapping windows of a text."""

import dataclasses
import math
import time
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gossamer.evaluation.likelihood import loss_sum
from gossamer.inference.blockwise import begin, run_blocks
from gossamer.loading import Checkpoint
from gossamer.models import build_ends, decoder_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perplexity:
    """A perplexity and how it came about.

    Attributes:
        perplexity: exp of the mean negative log-likelihood, in nats, over all predictions.
        predictions: tokens predicted: windows x (context - 1).
        context: tokens of a window.
        windows: how many windows.
        losses: mean negative log-likelihood of each window, in nats a prediction: what two models
            are compared by, window for window.
        seconds: wall time, reading the weights and compiling included.
    """

    perplexity: float
    predictions: int
    context: int
    windows: int
    losses: tuple[float, ...]
    seconds: float


def perplexity(
    checkpoint: Checkpoint,
    tokens: Int[np.ndarray, "windows context"],
    advance: Callable[[], None] = lambda: None,
    watch: Callable[[Float[Array, "B T D"]], None] = lambda _: None,
) -> Perplexity:
    r"""Measures how well the model predicts each window's tokens from those before them.

    .. math:: \exp \Big( -\frac{1}{n (L-1)} \sum_{i=1}^{n} \sum_{t=1}^{L-1}
        \log p(x_{i,t} \mid x_{i,<t}) \Big)

    Args:
        checkpoint: the model, dense or packed; blocks are read one at a time.
        tokens: windows of a text that was tokenized once, as `gossamer.data.windows` cuts them.
        advance: called after each block, for a progress bar.
        watch: called with the hidden states that enter the first block, then with those that leave
            each block.

    Raises:
        ValueError: a window has fewer than two tokens or more than the model's positions, or the
            likelihood is not finite.

    Source: the procedure of SparseGPT and GPTQ (released code), with the mean over the L - 1
    predictions of a window; numbers compare at equal context only.
    """
    start = time.perf_counter()
    check_windows(checkpoint, tokens)
    hidden = begin(checkpoint, jnp.asarray(tokens))
    watch(hidden)
    hidden = run_blocks(checkpoint, hidden, advance, watch)
    graph, state = nnx.split(build_ends(checkpoint.config, checkpoint.read))
    counted = jnp.arange(tokens.shape[1]) < tokens.shape[1] - 1  # the last place predicts nothing
    following = jnp.roll(jnp.asarray(tokens), -1, axis=1)
    losses = [
        float(loss_sum(graph, state, states, window, counted))
        for states, window in zip(hidden, following, strict=True)
    ]
    predictions = tokens.shape[0] * (tokens.shape[1] - 1)
    mean = math.fsum(losses) / predictions
    if not math.isfinite(mean):
        raise ValueError(
            f"The likelihood of model {checkpoint.source.get('name')!r} is {mean}: its weights or "
            "activations hold NaN or Inf, or its logits overflow; check the source with `inspect`."
        )
    return Perplexity(
        perplexity=math.exp(mean) if mean < 700 else math.inf,
        predictions=predictions,
        context=tokens.shape[1],
        windows=tokens.shape[0],
        losses=tuple(loss / (tokens.shape[1] - 1) for loss in losses),
        seconds=time.perf_counter() - start,
    )


def check_windows(checkpoint: Checkpoint, tokens: Int[np.ndarray, "windows context"]) -> None:
    """Raises ValueError where these windows cannot be put through the model; reads no weight."""
    config = decoder_config(checkpoint.config)
    limit = config.max_positions
    if not 2 <= tokens.shape[1] <= limit:
        raise ValueError(
            f"A window needs 2 to {limit} tokens, the positions of this model, got a context of "
            f"{tokens.shape[1]}."
        )
    if tokens.size and tokens.max() >= config.vocab_size:
        raise ValueError(
            f"Token {tokens.max()} is outside the vocabulary of {config.vocab_size}: "
            "the tokenizer belongs to another model."
        )
