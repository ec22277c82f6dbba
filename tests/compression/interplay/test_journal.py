import pytest

from gossamer.compression.interplay import Journal
from tests.compression.interplay.results import GRID, PROTOCOL


def filled(folder):
    journal = Journal(folder, PROTOCOL)
    for each in GRID[:3]:
        journal.append(each)
    return journal


def test_what_was_finished_is_there_when_the_folder_is_opened_again(tmp_path):
    filled(tmp_path / "grid")
    again = Journal(tmp_path / "grid", PROTOCOL)
    assert list(again.results.values()) == GRID[:3]
    again.append(GRID[3])
    assert list(Journal(tmp_path / "grid", PROTOCOL).results.values()) == GRID[:4]


def test_nothing_is_written_before_a_cell_is_finished(tmp_path):
    Journal(tmp_path / "grid", PROTOCOL)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_line_is_dropped_and_what_follows_is_whole(tmp_path):
    filled(tmp_path / "grid")
    cells = tmp_path / "grid" / "cells.jsonl"
    cells.write_bytes(cells.read_bytes()[:-20])
    again = Journal(tmp_path / "grid", PROTOCOL)
    assert list(again.results.values()) == GRID[:2]
    again.append(GRID[2])
    assert list(Journal(tmp_path / "grid", PROTOCOL).results.values()) == GRID[:3]


def test_an_interruption_before_the_first_cell_leaves_a_folder_that_is_taken_up(tmp_path):
    filled(tmp_path / "grid")
    (tmp_path / "grid" / "cells.jsonl").unlink()
    assert Journal(tmp_path / "grid", PROTOCOL).results == {}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": "other.txt"}, r"text 'words\.txt' there, 'other\.txt' here"),
        ({"model": {"name": "other"}}, r"model .*'tiny'.* there, .*'other'.* here"),
        ({"windows": 4, "context": 12}, r"context 24 there, 12 here; windows 3 there, 4 here"),
    ],
)
def test_cells_of_another_protocol_do_not_mix(tmp_path, changed, message):
    filled(tmp_path / "grid")
    with pytest.raises(ValueError, match=rf"another protocol.*{message}.*Choose another folder"):
        Journal(tmp_path / "grid", PROTOCOL | changed)


def test_a_folder_of_something_else_is_refused_and_stays(tmp_path):
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(ValueError, match="is no folder of a grid; choose another"):
        Journal(tmp_path, PROTOCOL)
    with pytest.raises(ValueError, match=r"thesis\.txt is no folder of a grid"):
        Journal(tmp_path / "thesis.txt", PROTOCOL)
    assert (tmp_path / "thesis.txt").read_text() == "words"


@pytest.mark.parametrize("line", ["{", "[]", '{"cell": {"color": "red"}}', '{"losses": [1.0]}'])
def test_a_damaged_line_is_named(tmp_path, line):
    filled(tmp_path / "grid")
    cells = tmp_path / "grid" / "cells.jsonl"
    cells.write_text(line + "\n" + cells.read_text())
    with pytest.raises(ValueError, match=r"cells\.jsonl is damaged in line 1.*Delete the line"):
        Journal(tmp_path / "grid", PROTOCOL)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_protocol_is_named(tmp_path, content):
    filled(tmp_path / "grid")
    (tmp_path / "grid" / "protocol.json").write_text(content)
    with pytest.raises(ValueError, match=r"protocol\.json is damaged"):
        Journal(tmp_path / "grid", PROTOCOL)
