import huggingface_hub
import huggingface_hub.errors
import numpy as np
import pytest

from gossamer.loading import load, load_gguf, load_huggingface, load_llama2c


@pytest.mark.parametrize("name", ["llama", "tied_llama"])
def test_all_formats_give_the_same_model(tmp_path, request, name):
    model = request.getfixturevalue(name)
    sources = [
        model.write_huggingface(tmp_path / "folder"),
        model.write_gguf(tmp_path / "tiny.gguf"),
        model.write_llama2c(tmp_path / "tiny.bin"),
    ]
    first, *others = [load(source) for source in sources]
    assert [first.source["format"], *(other.source["format"] for other in others)] == [
        "huggingface",
        "gguf",
        "llama2.c",
    ]
    for other in others:
        assert other.config == first.config
        assert other.paths == first.paths
        for path in first.paths:
            np.testing.assert_array_equal(other.read(path), first.read(path), err_msg=path)


def test_a_folder_named_like_a_word_or_an_id_is_a_folder(tmp_path, llama, monkeypatch):
    monkeypatch.chdir(tmp_path)
    llama.write_huggingface(tmp_path / "smollm2")
    llama.write_huggingface(tmp_path / "org" / "name")
    assert load("smollm2").source["format"] == "huggingface"
    assert load("org/name").source["format"] == "huggingface"


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"not a model file by its name.*give the folder"):
        load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "./nowhere/there.gguf"])
def test_what_is_nothing_is_refused(source):
    with pytest.raises(ValueError, match=f"There is no file or folder '{source}', and it is not"):
        load(source)


def test_an_id_is_fetched_from_the_hub(tmp_path, llama, monkeypatch):
    folder = llama.write_huggingface(tmp_path / "3f1a")
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    checkpoint = load("org/name")
    assert checkpoint.config == llama.config
    assert checkpoint.source["name"] == "org/name"
    [(name, patterns)] = asked
    assert name == "org/name"
    assert {"config.json", "tokenizer.json"} < set(patterns)
    assert not any("bin" in pattern for pattern in patterns)


@pytest.mark.parametrize(
    "error",
    [
        huggingface_hub.errors.LocalEntryNotFoundError("no network"),
        ConnectionError("no network"),
        huggingface_hub.errors.HFValidationError("no network"),
    ],
)
def test_without_a_network_the_message_says_what_to_do(monkeypatch, error):
    def snapshot_download(name, allow_patterns):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ValueError, match=r"'org/name'.* no network.* fetch it elsewhere"):
        load("org/name")


def test_offline_mode_of_the_hub_is_understood(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"'org/name'.* fetch it elsewhere and give its folder"):
        load("org/name")


@pytest.mark.parametrize("open_model", [load_gguf, load_huggingface, load_llama2c])
def test_every_loader_takes_a_text_for_a_path(tmp_path, open_model):
    with pytest.raises(ValueError, match="nowhere"):
        open_model(str(tmp_path / "nowhere"))
