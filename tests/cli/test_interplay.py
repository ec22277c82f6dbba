import json
import typing

import pytest

from gossamer.cli.interplay import FormatName, PatternName
from gossamer.compression.interplay import FORMATS, PATTERNS
from gossamer.loading import save
from tests.inference.tiny import tiny

SMALL = ["--windows", 3, "--context", 24, "--sequences", 2, "--sequence-length", 24]
CELLS = ["--formats", "INT8", "--formats", "INT4", "--patterns", "2:4", "--methods", "magnitude"]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "dense"
    save(tiny("llama", hidden_size=64, intermediate_size=64, head_dim=16, num_layers=2), folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("texts") / "hello.txt"
    file.write_text("hello, hello, he fell; " * 40)
    return file


@pytest.fixture
def command(dense, text, tmp_path):
    given = ["--text", text, "--calibration", text, "--out", tmp_path / "grid"]
    return ["interplay", dense, *given, *SMALL, *CELLS]


def values(alias):
    """What a Literal allows, or a union of them."""
    arguments = typing.get_args(alias)
    return [name for each in arguments for name in (values(each) or [each])]


def test_the_names_are_those_of_the_library():
    assert values(FormatName) == list(FORMATS)
    assert values(PatternName) == list(PATTERNS)


def test_the_grid_is_measured_and_reported(gossamer, command, tmp_path):
    got = gossamer(*command, "--quantize", "weights", "--budget-bits", 6, "--json").json()
    assert [cell["label"] for cell in got["cells"]] == [
        *("dense", "INT8", "2:4, magnitude", "INT4"),
        *(
            f"2:4, {name}, magnitude, {order}"
            for name in ("INT8", "INT4")
            for order in ("S→Q", "Q→S")
        ),
    ]
    by_label = {cell["label"]: cell for cell in got["cells"]}
    for check in got["thresholds"]:
        name = check["cell"].split(", ")[1]
        singles = (by_label[label]["perplexity"] for label in ("2:4, magnitude", name, "dense"))
        sparse, quantized, base = singles
        assert check["threshold"] == pytest.approx(sparse + quantized - base)
        assert check["excess"] == pytest.approx(
            by_label[check["cell"]]["perplexity"] - check["threshold"]
        )
    assert len(got["thresholds"]) == 4
    assert len(got["orders"]) == 2
    fitting = [cell for cell in got["cells"] if cell["bits_per_weight"] <= 6]
    best = min(fitting, key=lambda cell: cell["perplexity"])
    assert got["recommendation"]["best"] == best["label"]
    assert got["recommendation"]["words"] in (tmp_path / "grid" / "grid.md").read_text("utf-8")
    assert sorted(file.name for file in (tmp_path / "grid").iterdir()) == [
        *("cells.jsonl", "grid-depth.png", "grid-threshold.png", "grid.md", "protocol.json"),
    ]


def test_the_same_command_does_nothing_again_and_a_larger_one_adds(gossamer, command, tmp_path):
    first = gossamer(*command, "--quantize", "weights", "--json").json()
    cells = (tmp_path / "grid" / "cells.jsonl").read_text()
    again = gossamer(*command, "--quantize", "weights")
    assert (tmp_path / "grid" / "cells.jsonl").read_text() == cells
    assert "report:" in again.out
    assert "S→Q is" in again.out
    more = gossamer(*command, "--json").json()
    assert more["cells"][: len(first["cells"])] == first["cells"]
    assert len(more["cells"]) == 8 + 2 + 4
    assert (tmp_path / "grid" / "cells.jsonl").read_text().startswith(cells)


def test_another_protocol_is_wrong_use_and_leaves_the_folder_as_it_is(
    gossamer, command, tmp_path, text
):
    gossamer(*command, "--quantize", "weights", "--orders", "sq")
    before = {file.name: file.read_bytes() for file in (tmp_path / "grid").iterdir()}
    other = [*command, "--context", 20]
    outcome = gossamer(*other)
    assert outcome.status == 2
    assert "cells of another protocol" in outcome.err
    assert "context 24 there, 20 here" in outcome.err
    assert {file.name: file.read_bytes() for file in (tmp_path / "grid").iterdir()} == before


def test_gaussian_needs_no_model(gossamer):
    rows = gossamer("interplay", "--gaussian", "--formats", "INT8", "--json").json()["rows"]
    assert [f"{value:.3g}" for value in list(rows[0].values())[1:]] == [
        *("0.00782", "0.364", "0.364", "0.267", "0.267"),
    ]
    assert list(rows[0]) == [
        *("format", "dense", "nm_sq", "nm_qs", "unstructured_sq", "unstructured_qs"),
    ]
    shown = gossamer("interplay", "--gaussian", "--formats", "INT8").out.splitlines()
    assert shown[0].split()[:2] == ["format", "dense"]
    assert shown[1].split()[:2] == ["INT8", "0.00782"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["MODEL", "--windows", 1], 2, "--windows needs 2 or more"),
        (["MODEL", "--context", 1], 2, "--context"),
        (["MODEL", "--sequences", 0], 2, "--sequences"),
        (["MODEL", "--budget-mb", 1, "--budget-bits", 4], 2, "one budget"),
        (["MODEL", "--budget-mb", 0], 2, "needs to be positive"),
        (["MODEL", "--methods", "sparsegpt", "--orders", "qs"], 2, "No cell combines"),
        (["MODEL", "--formats", "INT9"], 2, "INT9"),
        (["MODEL", "--context", 4096], 1, "4096"),
        (["MODEL", "--sequence-length", 4096], 1, "4096"),
        (["MODEL", "--text", "absent.txt"], 1, "absent.txt"),
        (["absent"], 1, "absent"),
        ([], 2, "A grid needs a MODEL and --out"),
        (["MODEL", "--gaussian"], 2, "--gaussian takes --formats only, not model, out"),
    ],
)
def test_bad_input_fails_before_any_work_and_leaves_nothing(
    gossamer, dense, tmp_path, arguments, status, message
):
    given = [dense if word == "MODEL" else word for word in arguments]
    outcome = gossamer("interplay", *given, "--out", tmp_path / "grid", "--json")
    assert (outcome.status, outcome.out) == (status, "")
    assert message in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_grid_without_a_folder_is_wrong_use(gossamer, dense):
    outcome = gossamer("interplay", dense)
    assert outcome.status == 2
    assert "--out" in outcome.err


def test_a_compressed_model_is_refused(gossamer, dense, text, tmp_path):
    small = tmp_path / "small"
    options = ["--recipe", "int8", "--windows", 0, "--out", small]
    assert gossamer("compress", dense, *options).status == 0
    outcome = gossamer("interplay", small, "--text", text, *SMALL, "--out", tmp_path / "grid")
    assert outcome.status == 1
    assert "compressed already" in outcome.err
    assert not (tmp_path / "grid").exists()


def test_the_journal_is_plain_json(gossamer, command, tmp_path):
    gossamer(*command, "--quantize", "weights", "--orders", "sq")
    lines = (tmp_path / "grid" / "cells.jsonl").read_text().splitlines()
    assert [json.loads(line)["cell"]["format"] for line in lines] == [
        *(None, "INT8", None, "INT4", "INT8", "INT4"),
    ]
