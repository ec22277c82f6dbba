"""Encoder-decoders by the command line."""

import json

import pytest

from gossamer.data import read_pairs
from gossamer.evaluation import bleu, given_translations
from gossamer.inference import translate
from gossamer.loading import load, save
from tests.compression.tiny_t5 import random_pairs, tiny_t5, write_pairs


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """The folder of a dense model."""
    folder = tmp_path_factory.mktemp("models") / "t5"
    save(tiny_t5(), folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A file of pairs; some sources have several targets."""
    return write_pairs(tmp_path_factory.mktemp("pairs") / "some.tsv", random_pairs(12))


def test_eval_gives_the_bleu(gossamer, t5, pairs):
    outcome = gossamer("eval", t5, "--pairs", pairs, "--sentences", 3, "--json")
    got = outcome.json()
    assert "BLEU: 1/1" in outcome.err
    given = read_pairs(pairs)
    first = list(dict.fromkeys(pair.source for pair in given))[:3]
    chosen = [pair for pair in given if pair.source in first]
    want, likelihood = bleu(load(t5), chosen), given_translations(load(t5), chosen)
    assert (got["bleu"], got["signature"]) == (want.bleu, want.signature)
    assert got["cross_entropy"] == likelihood.cross_entropy
    assert (got["sentences"], got["source"]) == (3, "some.tsv")
    assert got["words_per_second"] > 0
    assert got["seconds"] > 0
    shown = gossamer("eval", t5, "--pairs", pairs, "--sentences", 3)
    assert shown.out.startswith(f"BLEU {want.bleu:.2f} on 3 sentences of some.tsv")
    assert want.signature in shown.out
    assert f"cross-entropy {likelihood.cross_entropy:.4f} a token" in shown.out


def test_compress_reports_the_bleu_before_and_after(gossamer, t5, pairs, tmp_path):
    options = ["--recipe", "2:4-int4", "--calibration", pairs, "--sequences", 2]
    options += ["--sequence-length", 32, "--pairs", pairs, "--sentences", 3]
    shown = gossamer("compress", t5, *options, "--out", tmp_path / "small")
    assert shown.status == 0, shown.err
    assert "(3 sentences of some.tsv, nrefs:" in shown.out
    report = json.loads((tmp_path / "small" / "report.json").read_text())
    assert (report["method"], report["calibration"]["rows"]) == ("sparsegpt", 2)
    given = ["--pairs", pairs, "--sentences", 3, "--json"]
    for when, model in (("before", t5), ("after", tmp_path / "small")):
        alone = gossamer("eval", model, *given).json()
        assert report["bleu"][when] == alone["bleu"]
        assert report["bleu"][f"cross_entropy_{when}"] == alone["cross_entropy"]
    assert report["perplexity"] is report["accuracy"] is None
    text = (tmp_path / "small" / "report.md").read_text()
    assert f"BLEU {report['bleu']['before']:.2f} before" in text


def test_the_other_commands_take_a_packed_one(gossamer, t5, tmp_path):
    small = tmp_path / "small"
    report = gossamer("compress", t5, "--recipe", "int8", "--out", small, "--json").json()
    assert report["bleu"] is report["perplexity"] is None
    account = gossamer("inspect", small, "--json").json()
    assert account["bytes_on_disk"] == report["bytes_on_disk"]
    stored = {tensor["path"]: tensor["stored"] for tensor in account["tensors"]}
    assert stored["decoder.layers.0.cross_attention.k_proj.kernel"] == "dense int8"
    assert "decoder.layers.0.cross_attention.k_proj.kernel" in gossamer("inspect", small).out
    options = ["--prompt", "he tells", "--max-tokens", 5]
    wrote = gossamer("generate", small, *options, "--json").json()
    assert wrote["text"].strip() == translate(load(small), ["he tells"], max_tokens=5)[0]
    exported = gossamer("export", small, "--dense", "--out", tmp_path / "dense")
    assert exported.status == 0, exported.err
    again = gossamer("generate", tmp_path / "dense", *options, "--json").json()
    assert again["text"] == wrote["text"]


def test_the_help_says_what_an_encoder_decoder_generates(gossamer):
    words = " ".join(gossamer("generate", "--help").out.replace("│", " ").split())
    assert "An encoder-decoder does not continue the text: it writes another for it" in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "T5"], "is an encoder-decoder: give texts and their translations by --pairs"),
        (["eval", "T5", "--text", "a.txt"], "--text is for language models: give --pairs"),
        (["eval", "T5", "--windows", "3"], "--windows is for language models: give --pairs"),
        (["eval", "T5", "--images", "digits"], "--images is for models that classify images: give"),
        (["eval", "LLAMA", "--pairs", "PAIRS"], "--pairs is for encoder-decoders: give --text"),
        (["eval", "T5", "--pairs", "EMPTY"], "empty.tsv is empty"),
        (["eval", "T5", "--pairs", "COLUMN"], "each line needs two texts with a tab between them"),
        (["eval", "T5", "--pairs", "LONG"], "is longer than 512; cut it in sentences"),
        (
            ["compress", "T5", "--recipe", "2:4", "--out", "OUT"],
            "needs calibration pairs, and there are none built in",
        ),
        (
            ["compress", "T5", "--recipe", "int8", "--out", "OUT", "--pairs", "COLUMN"],
            "each line needs two texts with a tab between them",
        ),
        (
            ["compress", "T5", "--recipe", "2:4", "--out", "OUT", "--calibration", "EMPTY"],
            "empty.tsv is empty",
        ),
        (
            ["compress", "T5", "--recipe", "int8", "--out", "OUT", "--text", "a.txt"],
            "--text is for language models: give --pairs",
        ),
        (
            ["compress", "LLAMA", "--recipe", "int8", "--out", "OUT", "--pairs", "PAIRS"],
            "--pairs is for encoder-decoders: give --text",
        ),
        (["interplay", "T5", "--out", "OUT"], "continue a text, and a T5Config is of another"),
        (
            ["demo", "--model", "T5", "--out", "OUT"],
            "continue a text, and a T5Config is of another",
        ),
    ],
    ids=lambda value: " ".join(value[:2] + value[-2:]) if isinstance(value, list) else "",
)
def test_what_does_not_do_is_refused_before_any_work(
    gossamer, t5, model, pairs, tmp_path, arguments, message
):
    places = {"T5": t5, "LLAMA": model, "PAIRS": pairs, "OUT": tmp_path / "out"}
    texts = {"EMPTY": "", "COLUMN": "hello\n", "LONG": "x" * 600 + "\ta\n"}
    for name, text in texts.items():
        places[name] = tmp_path / f"{name.lower()}.tsv"
        places[name].write_text(text)
    outcome = gossamer(*(places.get(each, each) for each in arguments))
    assert outcome.status == 1
    assert message in " ".join(outcome.err.split())
    assert "BLEU:" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_number_of_sentences_that_is_none_is_wrong_use(gossamer, t5, pairs, tmp_path):
    for command in (["eval"], ["compress", "--recipe", "int8", "--out", tmp_path / "out"]):
        none = gossamer(command[0], t5, *command[1:], "--pairs", pairs, "--sentences", 0)
        assert (none.status, none.out) == (2, "")
        assert "--sentences needs 1 or more, got 0" in none.err
        alone = gossamer(command[0], t5, *command[1:], "--sentences", 3)
        assert (alone.status, alone.out) == (2, "")
        assert "--sentences counts those of --pairs" in alone.err
