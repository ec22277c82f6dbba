import io
import re

import matplotlib.image

from gossamer.compression.interplay import Budget, recommend, to_markdown, write_report
from tests.compression.interplay.results import GRID, PROTOCOL


def test_the_tables_hold_every_cell_and_its_verdict():
    text = to_markdown("grid", PROTOCOL, GRID, recommend(GRID, Budget(50, "MB")))
    assert "Within 50 MB, take INT8" in text
    assert re.search(r"\| INT8 \| 8\.00 \| 40\.0 \| 0\.25000 \| 0\.2000 \| 24\.53 \|", text)
    row = next(line for line in text.splitlines() if line.startswith("| 2:4, INT8, magnitude, S→Q"))
    assert "beyond the noise" in row
    assert row.endswith("| promised |")
    assert re.search(r"\| -0\.15000 ± 0\.02887 \| better \|", text)
    assert "magnitude, weights only: 2 of 2 cells (100%) lie above" in text
    assert "3 windows of 24 tokens of words.txt" in text


def test_a_grid_that_has_just_begun_says_what_is_missing():
    text = to_markdown("grid", PROTOCOL, GRID[:1], None)
    assert "| dense | 32.00" in text
    assert text.count("Nothing yet.") == 3


def test_kernels_that_take_no_part_are_named():
    why = "172 is no multiple of 64"
    left_out = {f"layers.{i}.mlp.down_proj.kernel": why for i in range(12)}
    text = to_markdown("grid", PROTOCOL | {"left_out": left_out}, GRID, None)
    assert "12 kernels take part in no cell, since not every format suits them:" in text
    assert f"- `layers.*.mlp.down_proj.kernel`, 12 of them: {why}\n" in text


def test_files_are_named_after_the_folder_and_the_text_shows_the_plots(tmp_path):
    folder = tmp_path / "interplay-tiny"
    folder.mkdir()
    files = write_report(folder, PROTOCOL, GRID, None)
    assert sorted(file.name for file in folder.iterdir()) == [
        "interplay-tiny-depth.png",
        "interplay-tiny-threshold.png",
        "interplay-tiny.md",
    ]
    assert files[0].name == "interplay-tiny.md"
    shown = re.findall(r"!\[.*?\]\((.*?)\)", files[0].read_text(encoding="utf-8"))
    for name in shown:
        image = matplotlib.image.imread(io.BytesIO((folder / name).read_bytes()))
        assert image[..., :3].std() > 0.01  # something is drawn
    assert len(shown) == 2
