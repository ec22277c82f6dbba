import pytest

from gossamer.inference import generate
from gossamer.loading import load
from gossamer.quantization import Int

PROMPT = "hello, hello"


def test_json_holds_what_the_function_returns(gossamer, model):
    got = gossamer("generate", model, "--prompt", PROMPT, "--max-tokens", 6, "--json").json()
    want = generate(load(model), PROMPT, max_tokens=6)
    assert (got["text"], got["tokens"]) == (want.text, want.tokens)
    assert got["prompt_tokens"] == want.prompt_tokens
    assert got["stopped_by"] == want.stopped_by
    assert got["prefill_tokens_per_second"] > 0
    assert got["decode_tokens_per_second"] > 0


def test_the_text_goes_to_standard_output_and_all_else_to_standard_error(gossamer, model):
    outcome = gossamer("generate", model, "--prompt", PROMPT, "--max-tokens", 6)
    assert outcome.status == 0
    assert outcome.out == generate(load(model), PROMPT, max_tokens=6).text + "\n"
    assert "decode" in outcome.err
    assert "stopped by length" in outcome.err


def test_every_option_reaches_the_function(gossamer, model, monkeypatch):
    seen = {}

    def record(model, prompt, **options):
        seen.update(options, model=model, prompt=prompt)
        return generate(model, prompt, max_tokens=1)

    monkeypatch.setattr("gossamer.inference.generate", record)
    options = ["--max-tokens", "9", "--temperature", "0.7", "--top-k", "5", "--top-p", "0.9"]
    options += ["--seed", "3", "--chat", "--stop", "b", "--stop", "c d", "--json"]
    options += ["--activations", "int8", "--cache", "bfloat16"]
    gossamer("generate", model, "--prompt", "a", *options)
    assert callable(seen.pop("on_text"))
    kernel = seen.pop("model").read("layers.0.mlp.down_proj.kernel")
    assert kernel.activations == Int(8)
    assert seen == {
        "prompt": "a",
        "cache": "bfloat16",
        "max_tokens": 9,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "seed": 3,
        "chat": True,
        "stop": ("b", "c d"),
    }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--max-tokens", "0"], "--max-tokens needs 1 or more, got 0"),
        (["--temperature", "-1"], "temperature >= 0, got -1.0"),
        (["--top-k", "0"], "top_k >= 1, got 0"),
        (["--top-p", "2"], "top_p <= 1, got 2.0"),
        (["--stop", ""], "--stop needs at least one character"),
    ],
)
def test_options_out_of_range_are_wrong_use(gossamer, model, option, message):
    outcome = gossamer("generate", model, "--prompt", "a", *option)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err
