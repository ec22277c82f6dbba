import errno
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.packing import FolderWriter, PackedFolder, pack, pack_floats, shard_name
from gossamer.packing import files as files_module
from gossamer.quantization import Int
from gossamer.sparsity import NM

COUNT = 3
SHARDS = [shard_name(number + 1, COUNT) for number in range(COUNT)]


def tensors(number: int) -> dict:
    """What shard `number` holds: a packed kernel of each kind, and a plain tensor."""
    values = np.random.default_rng(number).normal(size=(32, 20)).astype(np.float32)
    mask = NM(2, 4).mask(jnp.abs(values), axis=0)
    codes = Int(4).encode(jnp.where(mask, values, 0))
    return {
        f"layers.{number}.sparse": pack(codes, Int(4), NM(2, 4), mask),
        f"layers.{number}.floats": pack_floats(jnp.where(mask, values, 0), NM(2, 4), mask),
        f"layers.{number}.scale": values[0],
    }


def write(out: pathlib.Path, *, stop_after: int | None = None, overwrite: bool = False) -> int:
    """Writes a folder, resuming; returns how many shards were written, and may end the process."""
    writer = FolderWriter(out, job="a job", overwrite=overwrite)
    done = writer.shards()
    for number, name in enumerate(SHARDS):
        if number == stop_after:
            os._exit(9)
        if name not in done:
            writer.add_shard(name, tensors(number), note={"part": number})
    writer.add_file("config.json", b"{}")
    writer.finish({"recipe": {"name": "test"}, "provenance": {"seed": 0}})
    return COUNT - len(done)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "model"


def leftovers(out: pathlib.Path) -> list[str]:
    return sorted(file.name for file in out.parent.iterdir() if file.name != out.name)


def test_two_runs_give_the_same_bytes_and_leave_nothing_else(out, tmp_path):
    write(out)
    write(tmp_path / "again")
    assert contents(out) == contents(tmp_path / "again")
    want = {*SHARDS, "config.json", "gossamer.json", "model.safetensors.index.json"}
    assert set(contents(out)) == want
    assert leftovers(out) == ["again"]


def test_what_is_written_is_read_back(out):
    write(out)
    folder = PackedFolder(out)
    assert folder.description["recipe"] == {"name": "test"}
    for number in range(COUNT):
        for path, weight in tensors(number).items():
            jax.tree.map(np.testing.assert_array_equal, folder.read(path), weight)


@pytest.mark.parametrize("stop_after", [0, 2])
def test_a_killed_run_resumes_and_gives_the_same_bytes(out, tmp_path, stop_after):
    write(tmp_path / "whole")
    code = f"""
import pathlib
from tests.packing import test_writer
test_writer.write(pathlib.Path({str(out)!r}), stop_after={stop_after})
"""
    root = pathlib.Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert killed.returncode == 9
    assert not out.exists()
    assert write(out) == COUNT - stop_after
    assert contents(out) == contents(tmp_path / "whole")
    assert leftovers(out) == ["whole"]


def begun(out: pathlib.Path, shards: int = 2) -> FolderWriter:
    """An unfinished folder."""
    writer = FolderWriter(out, job="a job")
    for number in range(shards):
        writer.add_shard(SHARDS[number], tensors(number), note={"part": number})
    return writer


def test_a_later_writer_finds_shards_with_their_notes_and_tensors(out):
    begun(out)
    writer = FolderWriter(out, job="a job")
    assert writer.shards() == {SHARDS[0]: {"part": 0}, SHARDS[1]: {"part": 1}}
    read = writer.read_shard(SHARDS[1])
    assert set(read) == set(tensors(1))
    for path, weight in tensors(1).items():
        jax.tree.map(np.testing.assert_array_equal, read[path], weight)


@pytest.mark.parametrize("damage", ["missing", "shorter", "changed"])
def test_a_recorded_shard_that_is_not_whole_is_done_again(out, tmp_path, damage):
    write(tmp_path / "whole")
    file = begun(out).partial / SHARDS[0]
    data = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(data[:-1] if damage == "shorter" else data[:-1] + bytes([data[-1] ^ 1]))
    assert list(FolderWriter(out, job="a job").shards()) == [SHARDS[1]]
    assert write(out) == 2
    assert contents(out) == contents(tmp_path / "whole")


def test_the_remains_of_another_job_are_deleted(out):
    partial = begun(out).partial
    assert FolderWriter(out, job="another").shards() == {}
    assert [file.name for file in partial.iterdir()] == ["journal.json"]


def test_a_damaged_journal_is_as_none(out):
    (begun(out).partial / "journal.json").write_text("{")
    assert FolderWriter(out, job="a job").shards() == {}


def test_files_of_a_killed_run_that_are_not_recorded_do_not_stay(out):
    writer = begun(out)
    writer.add_file("old.json", b"{}")
    (writer.partial / SHARDS[2]).write_bytes(b"half")
    (writer.partial / "x.tmp").write_bytes(b"half")
    write(out)
    assert "old.json" not in contents(out)
    PackedFolder(out).read("layers.2.sparse")


def test_a_partial_folder_of_somebody_else_is_left_alone(out):
    partial = out.with_name("model.partial")
    partial.mkdir()
    (partial / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"model.partial holds files but no journal.json"):
        FolderWriter(out, job="a job")
    assert (partial / "letter.txt").read_text() == "mine"


def test_an_existing_folder_is_refused_before_any_work(out):
    write(out)
    before = contents(out)
    with pytest.raises(ValueError, match=r"output folder .*model exists; choose another"):
        FolderWriter(out, job="a job")
    assert contents(out) == before
    assert leftovers(out) == []


def test_overwriting_replaces_the_whole_folder(out):
    write(out)
    (out / "stale.txt").write_text("old")
    write(out, overwrite=True)
    assert "stale.txt" not in contents(out)
    assert leftovers(out) == []


def test_overwriting_takes_only_saved_models(out):
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"model exists and is no saved model"):
        FolderWriter(out, job="a job", overwrite=True)
    assert (out / "thesis.tex").exists()


def full_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Lets the disk be full when the given number of files is synced."""
    real, count = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(files_module.os, "fsync", fsync)


@pytest.mark.parametrize("writes", [0, 3, 6, 9, 15, 18])
def test_a_full_disk_leaves_the_old_folder_whole_and_can_be_resumed(out, monkeypatch, writes):
    write(out)
    before = contents(out)
    with monkeypatch.context() as patch:
        full_after(patch, writes)
        with pytest.raises(OSError, match="No space left"):
            write(out, overwrite=True)
    assert contents(out) == before
    write(out, overwrite=True)
    assert contents(out) == before
    assert leftovers(out) == []


def test_a_folder_that_cannot_be_moved_into_place_leaves_the_old_one(out, monkeypatch):
    write(out)
    before, real = contents(out), os.rename

    def rename(source: os.PathLike, target: os.PathLike) -> None:
        if str(source).endswith(".partial"):
            raise PermissionError("no")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(PermissionError):
            write(out, overwrite=True)
    assert contents(out) == before
    assert write(out, overwrite=True) == 0  # nothing of the work was lost


def test_a_run_killed_between_the_two_renames_gives_the_old_folder_back(out):
    write(out)
    before = contents(out)
    os.rename(out, out.with_name("model.replaced"))
    with pytest.raises(ValueError, match="exists"):
        FolderWriter(out, job="a job")
    assert contents(out) == before


@pytest.mark.parametrize("name", ["../up.safetensors", "/root.safetensors", ".x.safetensors", ""])
def test_names_that_lead_out_of_the_folder_are_refused(out, name):
    with pytest.raises(ValueError, match="could lead out of the folder"):
        FolderWriter(out, job="a job").add_shard(name, {})
    with pytest.raises(ValueError, match="could lead out of the folder"):
        FolderWriter(out, job="a job").add_file(name.replace("safetensors", "json"), b"")


def test_names_that_the_writer_needs_are_refused(out):
    writer = begun(out)
    with pytest.raises(ValueError, match=r"'gossamer.json' is reserved"):
        writer.add_file("gossamer.json", b"")
    with pytest.raises(ValueError, match=r"ends in .safetensors, got 'shard'"):
        writer.add_shard("shard", {})
    with pytest.raises(ValueError, match=r"\['layers.0.floats'.* are in model-00001"):
        writer.add_shard(SHARDS[2], tensors(0))
    with pytest.raises(ValueError, match=r"fields \['tensors'\] of gossamer.json"):
        writer.finish({"tensors": {}})


def test_the_index_names_every_plane(out):
    write(out)
    index = json.loads(contents(out)["model.safetensors.index.json"])
    assert index["weight_map"]["layers.1.sparse.indices"] == SHARDS[1]
    assert index["weight_map"]["layers.2.scale"] == SHARDS[2]
    assert index["metadata"]["total_size"] == sum(
        a.nbytes for a in PackedFolder(out).accounts().values()
    )
