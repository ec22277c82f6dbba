import dataclasses
import os
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

import gossamer
from gossamer.inference import generate
from gossamer.models import build

PROMPT = "hello, hello"


def greedy_by_full_passes(checkpoint, tokens, count):
    """The most likely token, written behind the others, and the whole read again: no cache."""
    graph, state = nnx.split(build(checkpoint.config, checkpoint.read))
    full_pass = jax.jit(lambda tokens: nnx.merge(graph, state)(tokens))
    first = len(tokens)
    row = np.array([*tokens, *[0] * count])  # one length, compiled once
    for index in range(first, first + count):
        row[index] = np.argmax(full_pass(row[None])[0, index - 1])
    return row[first:].tolist()


def without_end(checkpoint):
    """No token ends the text, so that every token asked for comes."""
    tokenizer = dataclasses.replace(checkpoint.tokenizer, eos_ids=frozenset())
    return dataclasses.replace(checkpoint, tokenizer=tokenizer)


def test_greedy_tokens_are_those_of_full_passes(checkpoint):
    checkpoint = without_end(checkpoint)
    prompt = checkpoint.tokenizer.encode(PROMPT)
    got = generate(checkpoint, PROMPT, max_tokens=20)
    assert got.tokens == greedy_by_full_passes(checkpoint, prompt, 20)
    assert got.prompt_tokens == len(prompt)
    assert got.stopped_by == "length"
    assert checkpoint.tokenizer.decode(prompt + got.tokens) == PROMPT + got.text


def test_token_ids_are_a_prompt_too(llama):
    ids = llama.tokenizer.encode(PROMPT)
    assert generate(llama, ids, max_tokens=5).tokens == generate(llama, PROMPT, max_tokens=5).tokens


def test_the_pieces_given_while_it_runs_are_the_text(llama):
    pieces = []
    got = generate(without_end(llama), PROMPT, max_tokens=20, on_text=pieces.append)
    assert "".join(pieces) == got.text
    assert len(pieces) > 1


def test_a_seed_decides_the_text_and_another_gives_another(llama):
    def drawn(seed):
        return generate(
            without_end(llama), PROMPT, max_tokens=12, temperature=1.5, seed=seed
        ).tokens

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_top_k_of_one_is_greedy_at_any_temperature(llama):
    want = generate(llama, PROMPT, max_tokens=8).tokens
    assert generate(llama, PROMPT, max_tokens=8, temperature=5.0, top_k=1).tokens == want


def test_an_end_token_ends_the_text_and_is_counted(llama):
    tokens = generate(without_end(llama), PROMPT, max_tokens=20).tokens
    end = tokens[3]
    tokenizer = dataclasses.replace(llama.tokenizer, eos_ids=frozenset({end}))
    got = generate(dataclasses.replace(llama, tokenizer=tokenizer), PROMPT, max_tokens=20)
    assert got.tokens == tokens[: tokens.index(end) + 1]
    assert got.stopped_by == "end"


def test_a_stop_string_ends_the_text_before_it(llama):
    whole = generate(without_end(llama), PROMPT, max_tokens=20)
    stop = whole.text[4:7]
    got = generate(without_end(llama), PROMPT, max_tokens=20, stop=["never there", stop])
    assert got.text == whole.text[: whole.text.index(stop)]
    assert got.stopped_by == "stop"
    assert len(got.tokens) < len(whole.tokens)


def test_the_text_ends_where_the_positions_end(checkpoint):
    checkpoint = without_end(checkpoint)
    got = generate(checkpoint, [5] * 40, max_tokens=100)
    assert got.stopped_by == "context"
    assert len(got.tokens) == checkpoint.config.max_positions - 40
    assert got.tokens == greedy_by_full_passes(checkpoint, [5] * 40, 8)


def test_a_chat_is_put_in_the_models_template(llama):
    want = generate(llama, "hello>", max_tokens=5)
    assert generate(llama, "hello", max_tokens=5, chat=True).tokens == want.tokens


def test_an_empty_prompt_starts_from_bos(llama):
    assert generate(llama, "", max_tokens=5).tokens == generate(llama, [0], max_tokens=5).tokens


def test_a_model_without_tokenizer_takes_ids_and_gives_no_text(llama):
    bare = dataclasses.replace(llama, tokenizer=None)
    got = generate(bare, [3, 4, 5], max_tokens=6)
    assert got.tokens == greedy_by_full_passes(llama, [3, 4, 5], 6)
    assert got.text == ""


def test_speeds_are_those_of_reading_and_of_the_steps_after_the_first(llama):
    got = generate(without_end(llama), PROMPT, max_tokens=3)
    assert got.prefill_tokens_per_second > 0
    assert got.decode_tokens_per_second is not None
    assert got.decode_tokens_per_second > 0
    assert generate(llama, PROMPT, max_tokens=1).decode_tokens_per_second is None


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        ("a", {"max_tokens": 0}, "max_tokens needs a whole number >= 1, got 0"),
        ("a", {"temperature": -1.0}, "temperature >= 0, got -1.0"),
        ("a", {"stop": [""]}, "at least one character"),
        ([], {}, "prompt is empty"),
        ([3, 262], {}, "token 262, outside the model's vocabulary of 262"),
        ([3, -1], {}, "token -1, outside"),
        ([3], {"chat": True}, "got token ids: give the text"),
        ([3] * 48, {}, "48 tokens and the model 48 positions"),
    ],
)
def test_what_cannot_be_continued_is_refused(llama, prompt, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(llama, prompt, **arguments)


def test_an_empty_prompt_without_bos_is_refused(llama):
    tokenizer = dataclasses.replace(llama.tokenizer, bos_id=None)
    with pytest.raises(ValueError, match="empty, and the model has no BOS token"):
        generate(dataclasses.replace(llama, tokenizer=tokenizer), "")


@pytest.mark.parametrize("arguments", [{"prompt": "a"}, {"prompt": [3], "stop": ["a"]}])
def test_text_without_a_tokenizer_is_refused(llama, arguments):
    with pytest.raises(ValueError, match="'tiny llama' came without a tokenizer"):
        generate(dataclasses.replace(llama, tokenizer=None), **arguments)


def test_logits_that_are_not_finite_are_refused(llama):
    broken = np.array(llama.read("norm.scale"))
    broken[0] = np.nan
    with pytest.raises(ValueError, match="generated token 0 hold NaN or Inf"):
        generate(llama.with_tensors({"norm.scale": broken}), "a")


def test_stories260k_tells_its_known_story():
    beside = pathlib.Path(__file__).parents[3] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("GOSSAMER_DATA", beside)) / "stories260k"
    if not folder.is_dir():
        pytest.skip(f"no stories260k in {folder.parent}; GOSSAMER_DATA can name another place")
    got = gossamer.generate(folder / "stories260K.bin", "", max_tokens=64)
    # From the README beside the model.
    assert got.text.startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the "
        "park."
    )
