import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression import GPTQ, one_shot
from gossamer.data import windows
from gossamer.evaluation import perplexity
from gossamer.loading import load, save
from gossamer.recipe import Recipe
from tests.inference.tiny import tiny

TEXT = "hello, hello, he fell; " * 40
SMALL = ["--sequences", 4, "--sequence-length", 32, "--context", 24, "--windows", 2]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """The folder of a dense model."""
    folder = tmp_path_factory.mktemp("models") / "dense"
    save(tiny("llama"), folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("texts") / "hello.txt"
    file.write_text(TEXT)
    return file


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_json_is_what_the_report_holds(gossamer, dense, text, tmp_path):
    out = tmp_path / "small"
    options = ["--recipe", "2:4", "--calibration", text, "--text", text, *SMALL, "--out", out]
    got = gossamer("compress", dense, *options, "--json").json()
    assert got == json.loads((out / "report.json").read_text())
    assert (got["method"], got["recipe"]["name"]) == ("sparsegpt", "2:4")
    assert got["calibration"]["sequences"] == 4
    assert got["perplexity"]["predictions"] == 2 * 23
    assert (out / "report.md").exists()


def test_the_model_is_the_one_that_the_function_makes(gossamer, dense, text, tmp_path):
    out = tmp_path / "small"
    options = ["--method", "wanda", "--calibration", text, "--seed", 5, *SMALL]
    options += ["--windows", 0]
    gossamer("compress", dense, "--recipe", "2:4", *options, "--out", out)
    want, _ = one_shot(
        load(dense),
        Recipe.load("2:4"),
        method="wanda",
        calibration=str(text),
        sequences=4,
        sequence_length=32,
        seed=5,
    )
    got = load(out)
    for path in want.paths:
        ours, theirs = got.read(path), want.read(path)
        if isinstance(theirs, np.ndarray):
            assert np.array_equal(np.asarray(ours), theirs)
        else:
            assert all(map(jnp.array_equal, jax.tree.leaves(ours), jax.tree.leaves(theirs)))


def test_settings_of_a_method_are_given_as_options(gossamer, dense, text, tmp_path):
    out = tmp_path / "small"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: int4\nrules:\n  - path: layers.*kernel\n    weights: {type: Int, bits: 4}\n"
    )
    options = ["--recipe", recipe, "--calibration", text, *SMALL, "--windows", 0, "--out", out]
    command = ["compress", dense, *options, "--method", "gptq", "--act-order", False]
    command += ["--damping", 0.1]
    got = gossamer(*command, "--json").json()
    assert (got["method"], got["settings"]) == ("gptq", {"act_order": False, "damping": 0.1})
    want, _ = one_shot(
        load(dense),
        Recipe.load(recipe),
        method=GPTQ(act_order=False, damping=0.1),
        calibration=str(text),
        sequences=4,
        sequence_length=32,
    )
    small = load(out)
    for path in want.paths:
        pairs = zip(*(jax.tree.leaves(m.read(path)) for m in (small, want)), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


def test_a_reader_is_told_what_a_method_changed_beside_the_kernels(gossamer, dense, text, tmp_path):
    out = tmp_path / "small"
    options = ["--recipe", "w8a8", "--method", "smoothquant", "--calibration", text, *SMALL]
    outcome = gossamer("compress", dense, *options, "--windows", 0, "--out", out)
    assert outcome.status == 0
    layers = load(dense).config.num_layers
    assert f"{2 * layers} tensors without a rule rescaled" in outcome.out
    assert "`layers.0.attention_norm.scale`" in (out / "report.md").read_text()


def test_a_reader_is_told_size_and_perplexity_and_progress_goes_to_standard_error(
    gossamer, dense, text, tmp_path
):
    out = tmp_path / "small"
    outcome = gossamer("compress", dense, "--recipe", "int8", "--text", text, *SMALL, "--out", out)
    assert outcome.status == 0
    assert "bits a weight" in outcome.out
    assert "perplexity" in outcome.out
    assert "4/4" in outcome.err


def test_an_output_that_exists_is_wrong_use_and_stays(gossamer, dense, text, tmp_path):
    out = tmp_path / "small"
    command = ["compress", dense, "--windows", 0, "--out", out]
    assert gossamer(*command, "--recipe", "int8").status == 0
    before = files(out)
    outcome = gossamer(*command, "--recipe", "2:4", "--method", "magnitude")
    assert outcome.status == 2
    assert "--overwrite" in outcome.err
    assert files(out) == before
    replaced = gossamer(*command, "--recipe", "2:4", "--method", "magnitude", "--overwrite")
    assert replaced.status == 0
    assert files(out)["report.json"] != before["report.json"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--recipe", "3:5:7"], 2, "3:5:7"),
        (["--recipe", "int8", "--sequences", 0], 2, "--sequences"),
        (["--recipe", "int8", "--method", "newton"], 2, "newton"),
        (["--recipe", "int8", "--method", "wanda", "--act-order", "True"], 2, "has no 'act_order'"),
        (["--recipe", "int8", "--method", "gptq", "--damping", -1], 2, "finite damping > 0"),
        (["--recipe", "int8", "--alpha", 0.5], 2, "add --method"),
        (["--recipe", "int8", "--method", "smoothquant", *SMALL], 1, "recipe w8a8"),
        (["--recipe", "2:4", "--method", "gptq", *SMALL], 1, "choose sparsegpt"),
        (["--recipe", "int4"], 1, "multiple of 64, got 32"),
        (["--recipe", "2:4", "--calibration", "absent.txt", *SMALL], 1, "absent.txt"),
        (["--recipe", "2:4", "--sequence-length", 4096], 1, "48 positions"),
        (["--recipe", "int8", "--context", 4096], 1, "4096"),
        (["--recipe", "2:4", "--method", "rtn"], 1, "does not prune"),
    ],
)
def test_bad_input_fails_before_any_work_and_leaves_nothing(
    gossamer, dense, tmp_path, arguments, status, message
):
    out = tmp_path / "small"
    outcome = gossamer("compress", dense, *arguments, "--out", out, "--json")
    assert (outcome.status, outcome.out) == (status, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_file_with_an_unknown_field_is_wrong_use(gossamer, dense, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("rules:\n  - path: '*.kernel'\n    weight: int8\n")
    outcome = gossamer("compress", dense, "--recipe", recipe, "--out", tmp_path / "small")
    assert outcome.status == 2
    assert "weight" in outcome.err
    assert not (tmp_path / "small").exists()


def test_a_calibration_text_shorter_than_a_sequence_is_named(gossamer, dense, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("hello")
    options = ["--recipe", "2:4", "--calibration", short, *SMALL, "--out", tmp_path / "small"]
    outcome = gossamer("compress", dense, *options)
    assert outcome.status == 1
    assert "32" in outcome.err
    assert not (tmp_path / "small").exists()


def test_a_disk_that_takes_no_more_fails_with_1_and_the_same_command_goes_on(
    gossamer, dense, text, tmp_path
):
    options = ["--recipe", "2:4", "--calibration", text, *SMALL, "--windows", 0]
    whole, out = tmp_path / "whole", tmp_path / "small"
    assert gossamer("compress", dense, *options, "--out", whole).status == 0
    weights = sorted(file.stat().st_size for file in whole.glob("*.safetensors"))
    room = weights[1] - 1  # the first of the four files fits

    code = (
        "import resource, sys; from gossamer.cli.main import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n"
        "main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "compress", dense, *options, "--out", out]
    full = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert full.returncode == 1, full.stderr
    assert "File too large" in full.stderr  # what the system says of this limit
    assert "Traceback" not in full.stderr
    assert not out.exists()
    assert gossamer("compress", dense, *options, "--out", out).status == 0
    models = ({n: c for n, c in files(f).items() if "report" not in n} for f in (out, whole))
    assert next(models) == next(models)


def test_eval_gives_what_the_function_gives(gossamer, dense, text):
    options = ["--text", text, "--context", 16, "--windows", 3]
    got = gossamer("eval", dense, *options, "--json").json()
    checkpoint = load(dense)
    tokens = windows(checkpoint.require_tokenizer().encode(TEXT), 16, 3)
    assert got["perplexity"] == perplexity(checkpoint, tokens).perplexity
    assert got["predictions"] == 3 * 15
    assert got["seconds"] > 0


def test_eval_measures_a_compressed_model(gossamer, dense, text, tmp_path):
    out = tmp_path / "small"
    options = ["--text", text, "--context", 24, "--windows", 2]
    command = ["compress", dense, "--recipe", "int8", *options, "--out", out, "--json"]
    report = gossamer(*command).json()
    assert gossamer("eval", out, *options, "--json").json()["perplexity"] == pytest.approx(
        report["perplexity"]["after"], rel=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--windows", 0], 2), (["--context", 1], 2), (["--context", 49], 1), (["--text", "no"], 1)],
)
def test_eval_names_what_is_wrong(gossamer, dense, arguments, status):
    outcome = gossamer("eval", dense, *arguments, "--json")
    assert (outcome.status, outcome.out) == (status, "")
    assert str(arguments[1]) in outcome.err or arguments[0] in outcome.err
