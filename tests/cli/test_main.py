import os
import subprocess
import sys
import time

import pytest

from gossamer.cli.compress import Compress
from gossamer.cli.export import Export
from gossamer.cli.generate import Generate
from gossamer.cli.inspect import Inspect

COMMANDS = [
    *("compress", "eval", "train", "generate", "inspect", "export", "interplay", "plan", "demo"),
    "doctor",
]
HEAVY = {"jax", "flax", "numpy", "matplotlib", "tokenizers", "gguf"}
# Starting answers in 0.2 s of processor time; the rest is for machines that do much else.
MOST_SECONDS = 3.0


def python(code, **arguments):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **arguments
    )


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_comes_at_once_without_jax_and_shows_an_example(command):
    code = (
        "import sys; from gossamer.cli.main import main\n"
        f"try: main({[command, '--help'] if command else ['--help']})\n"
        "except SystemExit as exit:\n"
        f"    print(exit.code, sorted({HEAVY} & set(sys.modules)), file=sys.stderr)"
    )
    begin = time.monotonic()
    done = python(code)
    assert time.monotonic() - begin < MOST_SECONDS
    assert done.stderr == "0 []\n"
    assert f"Example: gossamer {command or 'compress'}" in " ".join(done.stdout.split())


def test_help_names_every_command(gossamer):
    outcome = gossamer("--help")
    assert [name for name in COMMANDS if f"• {name} " in outcome.out] == COMMANDS


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train"],
        ["generate"],
        ["generate", "model"],
        ["generate", "model", "--prompt", "a", "--max-tokens", "many"],
        ["inspect", "model", "--unknown"],
        ["export", "model", "--out", "x", "--dense", "--dtype", "int4"],
    ],
)
def test_wrong_arguments_exit_with_2(gossamer, arguments):
    outcome = gossamer(*arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
@pytest.mark.parametrize("command", [["inspect"], ["generate", "--prompt", "a"]])
def test_a_model_that_is_not_there_fails_with_1_and_says_so(gossamer, command, json_flag, tmp_path):
    name, *rest = command
    outcome = gossamer(name, tmp_path / "nothing", *rest, *json_flag)
    assert (outcome.status, outcome.out) == (1, "")
    assert "gossamer: There is no file or folder" in outcome.err
    assert "Traceback" not in outcome.err


def test_verbose_shows_where(gossamer, tmp_path):
    outcome = gossamer("inspect", tmp_path / "nothing", "--verbose")
    assert outcome.status == 1
    assert "Traceback" in outcome.err


def failing(error):
    def run(self, console):
        raise error

    return run


def test_our_own_mistakes_are_named_as_such(gossamer, monkeypatch):
    monkeypatch.setattr(Inspect, "run", failing(KeyError("planes")))
    outcome = gossamer("inspect", "model")
    assert outcome.status == 1
    assert "Unexpected KeyError: 'planes' (--verbose shows where)" in outcome.err


def test_a_full_disk_fails_with_1(gossamer, monkeypatch, tmp_path):
    monkeypatch.setattr(Export, "run", failing(OSError(28, "No space left on device")))
    outcome = gossamer("export", "model", "--dense", "--out", tmp_path / "x")
    assert outcome.status == 1
    assert "No space left on device" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "goes_on"),
    [
        (["compress", "m", "--recipe", "int8", "--out", "x"], True),
        (["generate", "m", "--prompt", "a"], False),
    ],
)
def test_an_interrupted_command_exits_with_130_and_says_whether_it_resumes(
    gossamer, monkeypatch, arguments, goes_on
):
    for command in (Compress, Generate):
        monkeypatch.setattr(command, "run", failing(KeyboardInterrupt()))
    outcome = gossamer(*arguments)
    assert (outcome.status, outcome.out) == (130, "")
    assert "Interrupted." in outcome.err
    assert ("goes on where it stopped" in outcome.err) == goes_on


def test_results_that_json_does_not_have_are_text(gossamer, monkeypatch):
    result = {"a": float("inf"), "b": [float("nan"), 1.5], "c": {"d": None}}
    monkeypatch.setattr(Inspect, "run", lambda self, console: result)
    assert gossamer("inspect", "model", "--json").json() == {
        "a": "inf",
        "b": ["nan", 1.5],
        "c": {"d": None},
    }


def test_a_reader_that_leaves_ends_the_command_quietly(model):
    reading, writing = os.pipe()
    os.close(reading)
    code = f"from gossamer.cli.main import main; main(['inspect', {str(model)!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
