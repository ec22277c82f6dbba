import struct

import numpy as np
import pytest

from gossamer.loading.llama2c import load_llama2c

TOKENS = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256))]


def vocabulary(count):
    tokens = [*TOKENS, " ", "a", " a", "b"][:count]
    return struct.pack("<i", 8) + b"".join(
        struct.pack("<fi", -float(i), len(token)) + token.encode() for i, token in enumerate(tokens)
    )


@pytest.mark.parametrize("name", ["llama", "tied_llama"])
def test_weights_come_back_exactly(tmp_path, request, name):
    model = request.getfixturevalue(name)
    checkpoint = load_llama2c(model.write_llama2c(tmp_path / "tiny.bin"))
    assert checkpoint.config == model.config
    assert set(checkpoint.paths) == set(model.weights)
    for path, weight in model.weights.items():
        np.testing.assert_array_equal(checkpoint.read(path), weight, err_msg=path)


@pytest.mark.parametrize("name", ["tok262.bin", "tokenizer.bin"])
def test_a_tokenizer_beside_the_model_comes_with_it(tmp_path, llama, name):
    (tmp_path / name).write_bytes(vocabulary(262))
    checkpoint = load_llama2c(llama.write_llama2c(tmp_path / "tiny.bin"))
    assert checkpoint.tokenizer.encode("a", add_special=True) == [1, 261]
    assert checkpoint.tokenizer.eos_ids == {1, 2}


def test_a_tokenizer_can_be_given(tmp_path, llama):
    (tmp_path / "mine").write_bytes(vocabulary(262))
    model = llama.write_llama2c(tmp_path / "tiny.bin")
    assert load_llama2c(model).tokenizer is None
    assert load_llama2c(model, tmp_path / "mine").tokenizer.encode("a") == [261]


def test_a_tokenizer_of_another_model_is_refused(tmp_path, llama):
    (tmp_path / "tokenizer.bin").write_bytes(vocabulary(261))
    with pytest.raises(ValueError, match=r"tokenizer.bin has 261 tokens, the model .* has 262"):
        load_llama2c(llama.write_llama2c(tmp_path / "tiny.bin"))


def with_header(*numbers):
    return lambda data: struct.pack("<7i", *numbers) + data[28:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "its header has 28 bytes, the file 0"),
        (lambda data: data[:27], "its header has 28 bytes, the file 27"),
        (lambda data: data[:-4], r"has \d+ bytes, its header .* asks for \d+; it is cut short"),
        (lambda data: data[: len(data) // 2], "cut short"),
        (lambda data: data + b"\0", "cut short, or no version 0 file"),
        (with_header(0x616B3432, 1, 0, 0, 0, 0, 0), "has version 1; only version 0"),
        (with_header(64, 96, 2, 5, 5, 262, 128), "describes no model"),
        (with_header(64, 96, 2, 4, 3, 262, 128), "describes no model"),
        (with_header(64, 96, -2, 4, 2, 262, 128), "describes no model"),
        (with_header(64, 96, 2, 4, 2, 0, 128), "describes no model"),
        (with_header(4, 96, 2, 4, 2, 262, 128), "needs an even head_dim"),
        (with_header(*([2**31 - 2] * 3), 1, 1, 2**31 - 1, 2**31 - 1), "asks for"),
    ],
)
def test_damaged_files_are_refused_before_anything_is_read(tmp_path, llama, damage, message):
    path = llama.write_llama2c(tmp_path / "tiny.bin")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load_llama2c(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.bin cannot be read"):
        load_llama2c(tmp_path / "nowhere.bin")


def test_stories260k_has_its_sizes_and_tokenizer(development_data):
    checkpoint = load_llama2c(development_data / "stories260k" / "stories260K.bin")
    config = checkpoint.config
    assert (config.hidden_size, config.num_layers, config.vocab_size) == (64, 5, 512)
    assert (config.num_heads, config.num_kv_heads, config.tied) == (8, 4, True)
    embedding = checkpoint.read("embedding.kernel")
    assert embedding.shape == (64, 512)
    assert np.isfinite(embedding).all()
    norm = checkpoint.read("norm.scale")  # a trained norm's gains are positive
    assert norm.min() > 0


def test_stories260k_spells_stories(development_data):
    tokenizer = load_llama2c(development_data / "stories260k" / "stories260K.bin").tokenizer
    # From run.c of llama2.c with this model and the prompt "Once upon a time".
    assert tokenizer.encode("Once upon a time", add_special=True) == [1, 403, 407, 261, 378]
    text = "Lily said: “Oh no! 🎉”\nThe café is 42.  Yes?"
    assert tokenizer.decode(tokenizer.encode(text)) == text
