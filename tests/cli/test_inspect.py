import math

import numpy as np
import pytest

from gossamer.loading import export_dense, load
from gossamer.packing import account


@pytest.fixture
def inspected(gossamer, model):
    return gossamer("inspect", model, "--json").json()


def test_every_byte_on_disk_is_a_tensors_or_a_files(inspected, model):
    on_disk = sum(file.stat().st_size for file in model.iterdir())
    tensors = sum(sum(tensor["bytes"].values()) for tensor in inspected["tensors"])
    assert inspected["bytes_tensors"] == tensors
    assert inspected["bytes_on_disk"] == tensors + sum(inspected["files"].values()) == on_disk
    assert set(inspected["files"]) == {file.name for file in model.iterdir()}


def test_a_report_beside_the_model_is_no_part_of_it(gossamer, inspected, model):
    (model / "report.md").write_text("all is well")
    try:
        again = gossamer("inspect", model, "--json").json()
    finally:
        (model / "report.md").unlink()
    assert again["bytes_on_disk"] == inspected["bytes_on_disk"]


def test_tensors_are_those_of_the_model_with_the_bits_of_their_planes(inspected, checkpoint):
    tensors = {tensor["path"]: tensor for tensor in inspected["tensors"]}
    assert set(tensors) == set(checkpoint.paths)
    for path, tensor in tensors.items():
        weight = checkpoint.read(path)
        want = account(weight)
        assert tuple(tensor["shape"]) == tuple(weight.shape)
        assert tensor["bits_per_weight"] == want.bits_per_weight
        assert sum(tensor["bytes"].values()) == want.nbytes == weight.nbytes


def test_planes_have_the_bytes_of_the_arithmetic(inspected):
    tensors = {tensor["path"]: tensor for tensor in inspected["tensors"]}
    sparse = tensors["layers.0.mlp.down_proj.kernel"]  # [64, 32], 2:4, int4, groups of 16
    assert sparse["stored"] == "2:4 int4"
    assert sparse["bytes"] == {
        "values": 64 // 2 * 32 * 4 // 8,
        "indices": 64 // 2 * 32 * 2 // 8,
        "scales": 64 // 16 * 32 * 2,
    }
    ends = tensors["embedding.kernel"]  # [32, 262], int8, and 10 lanes to fill the last tile
    assert ends["stored"] == "dense int8"
    assert ends["bytes"] == {"values": 32 * 262, "scales": 4 * 262, "padding": 10 * (32 + 4)}
    assert tensors["norm.scale"]["bytes"] == {"values": 4 * 32}


def test_the_whole_model_is_measured_against_float32(inspected, checkpoint):
    parameters = sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values())
    assert inspected["parameters"] == parameters
    assert inspected["bytes_float32"] == 4 * parameters
    assert inspected["bits_per_weight"] == 8 * inspected["bytes_tensors"] / parameters


def test_a_model_of_another_format_is_measured_too(gossamer, model, checkpoint, tmp_path):
    export_dense(load(model), tmp_path / "hf", dtype="bfloat16")
    got = gossamer("inspect", tmp_path / "hf", "--json").json()
    assert got["bytes_on_disk"] == (tmp_path / "hf" / "model.safetensors").stat().st_size
    # 16 bits a weight and a header.
    assert 16 < got["bits_per_weight"] < 20
    shapes = {tensor["path"]: tuple(tensor["shape"]) for tensor in got["tensors"]}
    assert shapes == {path: tensor.shape for path, tensor in checkpoint.tensors.items()}


def test_a_reader_sees_every_tensor_in_columns_and_the_whole(gossamer, model, inspected):
    outcome = gossamer("inspect", model)
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    shown = {line.split()[0]: line for line in lines}
    sparse = " ".join(shown["layers.0.mlp.down_proj.kernel"].split()[1:])
    assert sparse == "64 x 32 2:4 int4 4.000 512 256 256 0 0"
    assert set(shown) > {tensor["path"] for tensor in inspected["tensors"]}
    assert len({len(line) for line in lines[: len(inspected["tensors"]) + 1]}) == 1
    assert f"{inspected['bytes_on_disk']:,} bytes on disk" in outcome.out


def test_a_broken_file_fails_with_1(gossamer, model, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        data = np.fromfile(file, np.uint8)
        (broken / file.name).write_bytes(data[: -(len(data) // 2)].tobytes())
    outcome = gossamer("inspect", broken, "--json")
    assert (outcome.status, outcome.out) == (1, "")
    assert "gossamer.json" in outcome.err
