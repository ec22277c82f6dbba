import json
import pathlib
import shutil
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from gossamer.packing import (
    FolderWriter,
    Packed,
    PackedFolder,
    SafetensorsFile,
    account,
    model_bytes,
    pack,
    pack_floats,
    write_safetensors,
)
from gossamer.packing.files import sha256
from gossamer.quantization import E2M1, HBFP, MX, NVFP4, Codebook, Float8, Int
from gossamer.sparsity import NM

FILE = "model.safetensors"
DESCRIPTION = "gossamer.json"
INDEX = "model.safetensors.index.json"


def weights() -> dict:
    """One of everything that can be stored."""
    values = jax.random.normal(jax.random.key(0), (64, 20))
    mask = NM(2, 4).mask(jnp.abs(values), axis=0)
    pruned = jnp.where(mask, values, 0)
    formats = {
        "e8m0": Int(4, group=16, scale="e8m0"),
        "bfloat16": Int(3, scale="bfloat16"),
        "e4m3": Int(8, group=32, scale="e4m3"),
        "zeros": Int(4, group=16, symmetric=False),
        "book": Codebook(E2M1, group=32, scale="e8m0"),
        "mxfp8": MX("e4m3"),
        "mxfp6": MX("e2m3"),
        "mxfp4": MX("e2m1"),
        "nvfp4": NVFP4(),
        "float8": Float8("e5m2"),
        "hbfp": HBFP(6),
    }
    dense = {name: pack(format.encode(values), format) for name, format in formats.items()}
    return {
        **dense,
        "sparse": pack(Int(4).encode(pruned), Int(4), NM(2, 4), mask, Int(8)),
        "sparse floats": pack(NVFP4().encode(pruned), NVFP4(), NM(2, 4), mask, MX("e4m3")),
        "floats": pack_floats(pruned, NM(2, 4), mask),
        "halves": pack_floats(pruned.astype(jnp.bfloat16), NM(2, 4), mask),
        "norm.scale": np.arange(5, dtype=np.float32),
        "plain": np.ones((3, 7), ml_dtypes.bfloat16),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("saved") / "model"
    writer = FolderWriter(out, job="")
    writer.add_shard(FILE, weights())
    writer.add_file("config.json", b'{"model_type": "llama"}')
    writer.finish({"recipe": None, "provenance": {}})
    return out


@pytest.fixture
def folder(saved: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy to damage."""
    return shutil.copytree(saved, tmp_path / "model")


def edit(folder: pathlib.Path, change: Callable[[dict], None], name: str = DESCRIPTION) -> None:
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))


def test_everything_comes_back_bit_for_bit(saved):
    folder = PackedFolder(saved)
    assert set(folder.tensors) == set(weights())
    for path, want in weights().items():
        got = folder.read(path)
        assert jax.tree.structure(got) == jax.tree.structure(want)  # static fields too
        jax.tree.map(np.testing.assert_array_equal, got, want)
        stored = folder.tensors[path]
        assert (stored.shape, stored.dtype) == (want.shape, want.dtype)


def test_planes_are_taken_from_the_memory_map_without_a_copy(saved):
    folder, file = PackedFolder(saved), SafetensorsFile(saved / FILE)
    assert [name for name in file.names if file.offset(name) % 64] == []
    kernel = folder.read("sparse")
    assert isinstance(kernel, Packed)
    first, second = kernel.values, folder.read("sparse").values
    assert first.unsafe_buffer_pointer() == second.unsafe_buffer_pointer()


def test_the_safetensors_library_finds_the_planes_by_the_index(saved):
    places = json.loads((saved / INDEX).read_text())["weight_map"]
    with safe_open(saved / places["sparse.values"], framework="np") as file:
        np.testing.assert_array_equal(file.get_tensor("sparse.values"), weights()["sparse"].values)


def test_accounts_add_up_to_the_bytes_on_disk(saved):
    folder = PackedFolder(saved)
    accounts = folder.accounts()
    assert accounts == {path: account(weight) for path, weight in weights().items()}
    total = sum(a.nbytes for a in accounts.values()) + sum(folder.overhead_bytes().values())
    on_disk = sum(file.stat().st_size for file in saved.iterdir())
    assert total == on_disk == model_bytes(saved)
    assert folder.overhead_bytes()["config.json"] == (saved / "config.json").stat().st_size


def test_a_report_beside_the_model_does_not_count(folder):
    before = model_bytes(folder)
    (folder / "report.md").write_text("words")
    assert model_bytes(folder) == before


def test_other_files_are_verified_when_read(folder):
    assert PackedFolder(folder).read_file("config.json") == b'{"model_type": "llama"}'
    (folder / "config.json").write_bytes(b'{"model_type": "opt"}  ')
    with pytest.raises(ValueError, match=r"checksum of .*config.json does not match"):
        PackedFolder(folder).read_file("config.json")
    with pytest.raises(ValueError, match=r"no file '../x'; it has \['config.json', 'model"):
        PackedFolder(folder).read_file("../x")


def test_a_tensor_that_is_not_there_is_named(saved):
    with pytest.raises(ValueError, match=r"no tensor 'x'; it has names like"):
        PackedFolder(saved).read("x")


@pytest.mark.parametrize("path", ["sparse", "e8m0", "norm.scale"])
def test_a_changed_byte_is_found_when_its_tensor_is_read(folder, path):
    plane = "norm.scale" if path == "norm.scale" else f"{path}.scales"
    offset = SafetensorsFile(folder / FILE).offset(plane)
    data = bytearray((folder / FILE).read_bytes())
    data[offset + 1] ^= 1
    (folder / FILE).write_bytes(data)
    opened = PackedFolder(folder)
    with pytest.raises(ValueError, match=rf"checksum of plane '\w+' of tensor {path} \(.*match"):
        opened.read(path)
    opened.read("floats")  # the others are whole


@pytest.mark.parametrize(
    ("name", "value"),
    [("e8m0", 255), ("e4m3", 0x7F), ("bfloat16", np.inf), ("zeros", np.nan), ("floats", np.nan)],
)
def test_nan_or_inf_in_a_plane_is_named(folder, name, value):
    file = SafetensorsFile(folder / FILE)
    tensors = {plane: np.array(file.read(plane)) for plane in file.names}
    plane = "floats.values" if name == "floats" else f"{name}.scales"
    tensors[plane].flat[3] = value
    write_safetensors(folder / FILE, tensors)
    part = plane.rpartition(".")[2]

    def right_checksum(data):
        data["tensors"][name]["planes"][part]["sha256"] = sha256(tensors[plane])

    edit(folder, right_checksum)
    with pytest.raises(ValueError, match=rf"Plane '{part}' of tensor {name} .* holds NaN or Inf"):
        PackedFolder(folder).read(name)


def tensor(path: str, **fields: object) -> Callable[[dict], None]:
    return lambda data: data["tensors"][path].update(fields)


def file_of(path: str, plane: str, file: object) -> Callable[[dict], None]:
    return lambda data: data["tensors"][path]["planes"][plane].update(file=file)


DAMAGE = {
    "future": (lambda d: d.update(layout_version=2), "layout version 2 .* reads up to 1. Upgrade"),
    "no_version": (lambda d: d.pop("layout_version"), "has no layout version"),
    "text_version": (lambda d: d.update(layout_version="1"), "has no layout version"),
    "no_tensors": (lambda d: d.pop("tensors"), r"lacks \['tensors'\]"),
    "climbing_plane": (file_of("sparse", "values", "../a.safetensors"), "'../a.*' could lead out"),
    "absolute_plane": (file_of("sparse", "values", "/etc/passwd"), "'/etc/passwd' could lead out"),
    "hidden_plane": (file_of("sparse", "values", ".hidden"), "'.hidden' could lead out"),
    "backslash_plane": (file_of("sparse", "values", "a\\b"), "could lead out"),
    "climbing_file": (lambda d: d["files"].update({"../x": ""}), "'../x' could lead out"),
    "missing_file": (lambda d: d["files"].update({"y.json": ""}), "the file y.json is missing"),
    "missing_shard": (
        file_of("sparse", "values", "z.safetensors"),
        "file z.safetensors is missing",
    ),
    "shape": (tensor("sparse", shape=[64, 64]), "padding 0, got 12"),
    "tiles": (
        tensor("sparse", shape=[64, 36]),
        r"'sparse.values' is uint8 \(2, 256\), a kernel \(64, 36\) needs uint8 \(3, 256\)",
    ),
    "plain_shape": (tensor("plain", shape=[7, 3]), r"'plain' is bfloat16 \(3, 7\), .* \(7, 3\)"),
    "huge_shape": (tensor("plain", shape=[2**62, 2**62]), "needs bfloat16"),
    "negative_shape": (tensor("plain", shape=[-3, 7]), "shape needs whole numbers >= 0, got -3"),
    "bits": (tensor("sparse", bits=8), r"a kernel \(64, 20\) needs uint8 \(2, 512\)"),
    "bits_9": (tensor("sparse", bits=9), "codes have 2 to 8 bits, got 9"),
    "pattern": (tensor("sparse", pattern={"n": 1, "m": 4}), r"needs uint8 \(2, 128\)"),
    "pattern_32": (tensor("sparse", pattern={"n": 1, "m": 32}), "1:32 has no sparse layout"),
    "pattern_field": (tensor("sparse", pattern={"n": 1}), "a pattern has n and m"),
    "scale": (tensor("sparse", scale="bfloat16"), "'sparse.scales' is float32 .* needs bfloat16"),
    "scale_name": (tensor("sparse", scale="f64"), "unknown scale 'f64' for 4 bits"),
    "groups": (tensor("e8m0", groups=7), r"7 groups do not divide its shape \(64, 20\)"),
    "symmetric": (tensor("sparse", symmetric=False), "symmetric=False does not suit"),
    "book": (tensor("book", book=[0, 1]), "Codebook needs 16 values"),
    "book_of_floats": (tensor("book", book=[0.5] * 16), "does not suit 4 bits, symmetric=True"),
    "book_of_8_bits": (tensor("e4m3", book=list(E2M1)), "does not suit 8 bits, symmetric=True"),
    "kind": (tensor("sparse", kind="odd"), "unknown kind 'odd'"),
    "dtype": (tensor("plain", dtype="f4"), "unknown dtype 'f4'"),
    "float_dtype": (tensor("floats", dtype="int8"), "packed floats need a pattern and a dtype in"),
    "activations": (tensor("sparse", activations={"bits": 1}), "2 <= bits <= 8, got bits=1"),
    "lacks": (lambda d: d["tensors"]["sparse"].pop("bits"), "'sparse': lacks 'bits'"),
    "no_mapping": (lambda d: d["tensors"].update(sparse=[]), "tensor 'sparse': "),
    "planes": (lambda d: d["tensors"]["sparse"]["planes"].pop("indices"), "has planes .* needs"),
    "plane_name": (tensor("plain", planes={"x": {}}), "unknown plane 'x'"),
    "checksum": (
        tensor("plain", planes={"values": {"file": FILE, "sha256": "0"}}),
        "plane values has a checksum '0'",
    ),
    "renamed": (lambda d: d["tensors"].update(q=d["tensors"]["plain"]), "no tensor 'q'"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_description_that_does_not_fit_is_refused_at_opening(folder, change, message):
    edit(folder, change)
    with pytest.raises(ValueError, match=message):
        PackedFolder(folder)


def test_all_faults_are_reported_together(folder):
    edit(folder, tensor("sparse", bits=9))
    edit(folder, tensor("plain", dtype="f4"))
    with pytest.raises(ValueError, match=r"damaged: .*'plain'.*; .*'sparse'"):
        PackedFolder(folder)


def test_a_shard_cut_off_is_refused_at_opening(folder):
    data = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"is damaged: .*cut off"):
        PackedFolder(folder)


def test_an_index_that_says_something_else_is_refused(folder):
    edit(folder, lambda d: d["weight_map"].update({"plain": "../../secret"}), INDEX)
    with pytest.raises(ValueError, match=r"index.json and gossamer.json differ on \['plain'\]"):
        PackedFolder(folder)
    (folder / INDEX).write_text("[]")
    with pytest.raises(ValueError, match=r"index.json cannot be read"):
        PackedFolder(folder)


def test_what_is_no_saved_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is no saved model: it has no gossamer.json"):
        PackedFolder(tmp_path)
    (tmp_path / DESCRIPTION).write_text("{")
    with pytest.raises(ValueError, match=r"gossamer.json is not valid JSON"):
        PackedFolder(tmp_path)
