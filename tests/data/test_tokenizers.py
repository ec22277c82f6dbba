import json
import struct

import pytest

from gossamer.data import Tokenizer

TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}{{ eos_token }}"
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a"]
METADATA = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.scores": [0.0] * 259 + [-2.0, -3.0, -1.0],
    "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 3,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.eot_token_id": 1,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.chat_template": TEMPLATE,
}


def write(tokenizer, folder, **replaced):
    for name, content in {**tokenizer.to_files(), **replaced}.items():
        (folder / name).write_bytes(content)
    return folder


def llama2c_bytes(tokens, longest=8):
    texts = [token.encode() for token in tokens]
    return struct.pack("<i", longest) + b"".join(
        struct.pack("<fi", -float(i), len(text)) + text for i, text in enumerate(texts)
    )


def test_metadata_of_gguf_gives_ids_names_and_ends():
    tokenizer = Tokenizer.from_gguf(METADATA)
    assert tokenizer.encode("a a") == [261, 261]
    assert tokenizer.encode("a", add_special=True) == [1, 261]
    assert tokenizer.decode([1, 261, 261]) == "a a"
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, {1, 2})
    assert tokenizer.vocab_size == len(TOKENS)


def test_llama3_adds_bos_where_the_file_does_not_say(tmp_path):
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": ["<|begin|>", "a", "b", "ab"],
        "tokenizer.ggml.token_type": [3, 1, 1, 1],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 0,
    }
    assert Tokenizer.from_gguf(metadata).encode("ab", add_special=True) == [0, 3]
    metadata["tokenizer.ggml.add_bos_token"] = False
    assert Tokenizer.from_gguf(metadata).encode("ab", add_special=True) == [3]
    del metadata["tokenizer.ggml.add_bos_token"]
    metadata["tokenizer.ggml.pre"] = "smollm"
    assert Tokenizer.from_gguf(metadata).encode("ab", add_special=True) == [3]


def test_files_give_the_same_tokenizer_back(tmp_path):
    before = Tokenizer.from_gguf(METADATA)
    after = Tokenizer.from_folder(write(before, tmp_path))
    assert after is not None
    assert after.encode("a é", add_special=True) == before.encode("a é", add_special=True)
    assert (after.bos_id, after.eos_ids) == (before.bos_id, before.eos_ids)
    assert after.chat([{"content": "a"}]) == before.chat([{"content": "a"}]) == "<s>[a]</s>"
    assert after.to_files() == before.to_files()


def test_tokenizer_json_is_compact():
    content = Tokenizer.from_gguf(METADATA).to_files()["tokenizer.json"]
    assert len(content) == len(
        json.dumps(json.loads(content), ensure_ascii=False, separators=(",", ":")).encode()
    )


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    assert Tokenizer.from_folder(tmp_path) is None


def test_named_tokens_of_older_files_are_understood(tmp_path):
    config = {"bos_token": {"content": "<s>", "special": True}, "eos_token": "</s>"}
    files = {"tokenizer_config.json": json.dumps(config).encode()}
    write(Tokenizer.from_gguf(METADATA), tmp_path, **files)
    (tmp_path / "generation_config.json").unlink()
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, {2})


def test_the_template_may_be_a_file_of_its_own_or_one_of_several(tmp_path):
    files = {"chat_template.jinja": b"alone"}
    write(Tokenizer.from_gguf(METADATA), tmp_path, **files)
    assert Tokenizer.from_folder(tmp_path).chat([]) == "alone"
    templates = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert Tokenizer.from_folder(tmp_path).chat([]) == "yes"


def test_a_chat_without_a_template_is_refused():
    metadata = {key: value for key, value in METADATA.items() if key != "tokenizer.chat_template"}
    with pytest.raises(ValueError, match="has no chat template; give the model plain text"):
        Tokenizer.from_gguf(metadata).chat([{"role": "user", "content": "a"}])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"{", r"tokenizer\.json is no tokenizer"),
        ("tokenizer.json", b"\xff", r"tokenizer\.json is no tokenizer"),
        ("tokenizer_config.json", b"{", r"tokenizer_config\.json is not JSON"),
        ("tokenizer_config.json", b"[]", r"tokenizer_config\.json must hold a JSON object"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, message):
    write(Tokenizer.from_gguf(METADATA), tmp_path, **{name: content})
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model is 'bert'; 'gpt2'"),
        ({"tokens": "a"}, "tokenizer.ggml.tokens must be a list of strings, got a"),
        ({"tokens": []}, "tokenizer.ggml.tokens must be a list of strings"),
        ({"scores": ["a"]}, "tokenizer.ggml.scores must be a list of numbers"),
        ({"scores": [0.0]}, "262 tokens have 1 scores"),
        ({"token_type": [1]}, "262 tokens have 1 token types"),
        ({"bos_token_id": 999}, r"ids \[999\] are outside"),
    ],
)
def test_metadata_that_cannot_be_is_refused(changes, message):
    changed = {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_gguf({**METADATA, **changed})


def test_llama2c_vocabulary_is_rebuilt(tmp_path):
    path = tmp_path / "tok262.bin"
    tokens = ["<unk>", "\n<s>\n", "\n</s>\n", *TOKENS[3:259], " a", " ", "a"]
    path.write_bytes(llama2c_bytes(tokens))
    tokenizer = Tokenizer.from_llama2c(path)
    assert tokenizer.encode("a a", add_special=True) == [1, 259, 259]
    assert tokenizer.decode([1, 259, 260, 261]) == "a a"
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, {1, 2})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "tok.bin is cut short in token 0"),
        (llama2c_bytes(TOKENS)[:-1], "tok.bin is cut short in token 261"),
        (llama2c_bytes(TOKENS)[:-4], "tok.bin is cut short in token 261"),
        (llama2c_bytes(["a" * 99]), "token 0 claims 99 bytes, the longest has 8"),
        (llama2c_bytes(TOKENS[:9]), "has 9 tokens; one of llama2.c has 3 control"),
        (struct.pack("<ifi", 8, 0, -1), "token 0 claims -1 bytes"),
        (struct.pack("<ifi", 8, 0, 1) + b"\xff", "token 0 is not UTF-8"),
    ],
)
def test_damaged_llama2c_vocabularies_are_refused(tmp_path, content, message):
    path = tmp_path / "tok.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_llama2c(path)


@pytest.mark.peer
@pytest.mark.filterwarnings("default")
def test_transformers_reads_our_files(tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer.from_gguf(METADATA)
    theirs = transformers.AutoTokenizer.from_pretrained(str(write(ours, tmp_path)))
    assert theirs("a aé a")["input_ids"] == ours.encode("a aé a", add_special=True)
    assert (theirs.bos_token, theirs.eos_token_id) == ("<s>", 2)
    messages = [{"role": "user", "content": "a"}]
    assert theirs.apply_chat_template(messages, tokenize=False) == ours.chat(messages)
