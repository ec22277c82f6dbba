"""The trainers of other code bases, with gossamer in ten lines, learn and end sparse."""

import importlib.util
import itertools
import json
import pathlib
import re
import sys
import tarfile
import wave

import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def load(file, monkeypatch):
    """A script as a module, with its folder's `task` as if it had been started there."""
    monkeypatch.syspath_prepend(file.parent)
    monkeypatch.delitem(sys.modules, "task", raising=False)
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="table")
def of_table(monkeypatch):
    return load(EXAMPLES / "table.py", monkeypatch)


NAMES = ("optax_loop", "flax_linen_vit", "seq2seq", "dqn", "federated", "equinox_mlp_mixer")
# The steps of a short run, and what it must reach: chance is 0.1, 0.1, 0, 22, 0.1 and 0.1.
SHORT = {
    "optax_loop": (200, 0.9),
    "flax_linen_vit": (80, 0.25),
    "seq2seq": (200, 0.3),
    "dqn": (6000, 40),
    "federated": (40, 0.7),
    "equinox_mlp_mixer": (60, 0.4),
}
# What the defaults must reach, and the zeros of their patterns; rounding to four bits adds some.
FULL = {
    "optax_loop": 0.96,
    "flax_linen_vit": 0.92,
    "seq2seq": 0.95,
    "dqn": 300,
    "federated": 0.93,
    "equinox_mlp_mixer": 0.94,
}
ZEROS = {
    "optax_loop": (0.5, 0.6),
    "flax_linen_vit": (0.75, 0.75),
    "seq2seq": (0.8995, 0.9),  # whole weights of each matrix, rounded down
    "dqn": (0.9, 0.9),
    "federated": (0.9, 0.9),
    "equinox_mlp_mixer": (0.75, 0.76),
}


def test_every_example_is_in_the_table_and_tested(table):
    folders = {file.parent.name for file in EXAMPLES.glob("*/train_sparse.py")}
    assert folders == {example.name for example in table.EXAMPLES} == set(NAMES)
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", text, re.MULTILINE)
    assert {name: int(lines) for name, lines in rows} == {
        name: table.changed_lines(EXAMPLES / name) for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_at_most_ten_lines_differ(name, table):
    assert 0 < table.changed_lines(EXAMPLES / name) <= 10


def test_changed_lines_count_what_was_added_or_replaced_outside_the_header(table, tmp_path):
    dense = '"""Dense."""\n\nimport task\n\nparams = 1\nprint(params)\n'
    sparse = '"""Sparse.\n\nMore."""\n\nimport task\nimport other\n\nprint(2)\n'
    (tmp_path / "train_dense.py").write_text(dense)
    (tmp_path / "train_sparse.py").write_text(sparse)
    assert table.changed_lines(tmp_path) == 2


# The dense trainer has the same lines but ten; all of it runs below.
@pytest.mark.parametrize("kind", [pytest.param("dense", marks=pytest.mark.slow), "sparse"])
@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_learns_and_ends_sparse(name, kind, monkeypatch, capsys):
    steps, least = SHORT[name]
    trainer = load(EXAMPLES / name / f"train_{kind}.py", monkeypatch)
    outcome = trainer.main(["--steps", str(steps), "--json"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [outcome]
    low, high = ZEROS[name] if kind == "sparse" else (0, 0)
    assert low <= outcome["sparsity"] <= high
    assert outcome["result"] >= least


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("name", NAMES)
def test_the_published_result_is_reached_in_two_minutes(name, kind, table):
    [example] = [each for each in table.EXAMPLES if each.name == name]
    outcome = table.run(example, kind)
    low, high = ZEROS[name] if kind == "sparse" else (0, 0)
    assert low <= outcome["sparsity"] <= high
    assert outcome["result"] >= FULL[name]
    assert outcome["seconds"] < 120


def test_a_run_ends_with_one_line_on_standard_output(monkeypatch, capsys):
    load(EXAMPLES / "optax_loop" / "train_sparse.py", monkeypatch).main(["--steps", "2"])
    line = r"accuracy [\d.]+, sparsity 0\.5\d*, [\d.]+ seconds of CPU time\n"
    assert re.fullmatch(line, capsys.readouterr().out)


def test_speakers_of_an_archive_are_clients(tmp_path, monkeypatch):
    """Ten digits, each a tone of its own, by two speakers who differ in loudness and length."""
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    rng = np.random.default_rng(0)
    for digit, (speaker, length), number in itertools.product(
        range(10), {"ann": 3000, "bob": 4000}.items(), range(8)
    ):
        tone = np.sin(np.arange(length) * (0.1 + 0.25 * digit)) + rng.normal(0, 0.1, length)
        with wave.open(str(recordings / f"{digit}_{speaker}_{number}.wav"), "wb") as sound:
            sound.setparams((1, 2, 8000, length, "NONE", "not compressed"))
            sound.writeframes((tone * length).astype("<i2").tobytes())
    with tarfile.open(tmp_path / "recordings.tar.xz", "w:xz") as archive:
        archive.add(recordings, "recordings")
    trainer = load(EXAMPLES / "federated" / "train_sparse.py", monkeypatch)
    monkeypatch.setattr(trainer, "CLIENTS_A_ROUND", 2)
    clients = trainer.task.Clients.load(str(tmp_path / "recordings.tar.xz"))
    assert [len(labels) for _, labels in clients.local] == [30, 30]
    assert len(clients.held_out[1]) == 100
    for path in ("recordings.tar.xz", "recordings"):
        outcome = trainer.main(["--steps", "40", "--data", str(tmp_path / path)])
        assert outcome["result"] > 0.8


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is not None, reason="Atari is installed")
def test_atari_says_what_it_needs(monkeypatch):
    trainer = load(EXAMPLES / "dqn" / "train_sparse.py", monkeypatch)
    with pytest.raises(SystemExit, match=r"Pong runs on .* pip install ale-py"):
        trainer.main(["--game", "Pong", "--steps", "1"])
