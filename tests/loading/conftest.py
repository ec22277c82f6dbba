"""Tiny random models, written to disk in every format by code that shares nothing with ours."""

import dataclasses
import json
import os
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from gossamer.models import LlamaConfig, OptConfig, T5Config, hf_key, parameter_shapes

TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a"]
SCORES = [0.0] * 259 + [-2.0, -3.0, -1.0]
TYPES = [2, 3, 3] + [6] * 256 + [1] * 3

LLAMA = LlamaConfig(
    vocab_size=len(TOKENS),
    hidden_size=64,
    intermediate_size=96,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_positions=128,
)
OPT = OptConfig(
    vocab_size=50,
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=4,
    max_positions=32,
)
T5 = T5Config(
    vocab_size=50,
    hidden_size=16,
    intermediate_size=24,
    num_layers=1,
    num_decoder_layers=2,
    num_heads=2,
    head_dim=4,
)


@dataclasses.dataclass(frozen=True)
class Model:
    """A config and random weights under our names, in our orientation."""

    config: LlamaConfig | OptConfig | T5Config
    weights: dict[str, np.ndarray]

    def in_rows(self, path):
        """A weight as other formats store it: [out, in]."""
        return np.ascontiguousarray(self.weights[path].T)

    def for_neighbour_pairs(self, path):
        """The same, with query and key rows for rotary pairs (2i, 2i+1)."""
        rows = self.in_rows(path)
        config = self.config
        heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
        if (count := heads.get(path.split(".")[-2])) is None:
            return rows
        out = np.empty_like(rows)
        for head in range(count):
            for i in range(config.head_dim // 2):
                first = head * config.head_dim
                out[first + 2 * i] = rows[first + i]
                out[first + 2 * i + 1] = rows[first + config.head_dim // 2 + i]
        return out

    def write_huggingface(self, folder, *, dtype=np.float32, shards=1, **config_fields):
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            hf_key(self.config, path): np.ascontiguousarray(
                (weight.T if path.endswith("kernel") else weight), dtype
            )
            for path, weight in self.weights.items()
        }
        (folder / "config.json").write_text(json.dumps({**self.config.to_hf(), **config_fields}))
        if shards == 1:
            save_file(tensors, folder / "model.safetensors")
            return folder
        names = list(tensors)
        homes = {}
        for shard in range(shards):
            home = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
            part = {name: tensors[name] for name in names[shard::shards]}
            save_file(part, folder / home)
            homes |= dict.fromkeys(part, home)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
        return folder

    def write_gguf(self, path, *, kinds=None, keys=None, architecture="llama"):
        """Writes a GGUF file; `kinds` gives weights another type than F32, `keys` further keys."""
        config, kinds = self.config, kinds or {}
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_name("tiny")
        writer.add_block_count(config.num_layers)
        writer.add_context_length(config.max_positions)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_heads)
        writer.add_head_count_kv(config.num_kv_heads)
        writer.add_rope_freq_base(config.rotary.theta)
        writer.add_layer_norm_rms_eps(config.norm_epsilon)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(TOKENS)
        writer.add_token_scores(SCORES)
        writer.add_token_types(TYPES)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        for key, value in (keys or {}).items():
            add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
            add[type(value)](key, value)
        for name in self.weights:
            rows, kind = self.for_neighbour_pairs(name), kinds.get(name)
            data = rows if kind is None else gguf.quants.quantize(rows, kind)
            writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def write_llama2c(self, path):
        config = self.config
        vocabulary = config.vocab_size if config.tied else -config.vocab_size
        head = struct.pack(
            "<7i",
            config.hidden_size,
            config.intermediate_size,
            config.num_layers,
            config.num_heads,
            config.num_kv_heads,
            vocabulary,
            config.max_positions,
        )
        blocks = range(config.num_layers)
        stacked = [
            *("attention_norm.scale", "attention.q_proj.kernel", "attention.k_proj.kernel"),
            *("attention.v_proj.kernel", "attention.o_proj.kernel", "mlp_norm.scale"),
            *("mlp.gate_proj.kernel", "mlp.down_proj.kernel", "mlp.up_proj.kernel"),
        ]
        paths = ["embedding.kernel"]
        paths += [f"layers.{index}.{kind}" for kind in stacked for index in blocks]
        parts = [self.for_neighbour_pairs(name) for name in [*paths, "norm.scale"]]
        parts.append(np.full(config.max_positions * config.head_dim, np.nan, np.float32))
        if not config.tied:
            parts.append(self.in_rows("output.kernel"))
        path.write_bytes(head + b"".join(part.tobytes() for part in parts))
        return path


def gguf_name(path):
    names = {
        "embedding.kernel": "token_embd.weight",
        "norm.scale": "output_norm.weight",
        "output.kernel": "output.weight",
        "attention_norm.scale": "attn_norm.weight",
        "attention.q_proj.kernel": "attn_q.weight",
        "attention.k_proj.kernel": "attn_k.weight",
        "attention.v_proj.kernel": "attn_v.weight",
        "attention.o_proj.kernel": "attn_output.weight",
        "attention.q_proj.bias": "attn_q.bias",
        "attention.k_proj.bias": "attn_k.bias",
        "attention.v_proj.bias": "attn_v.bias",
        "attention.o_proj.bias": "attn_output.bias",
        "mlp_norm.scale": "ffn_norm.weight",
        "mlp.gate_proj.kernel": "ffn_gate.weight",
        "mlp.up_proj.kernel": "ffn_up.weight",
        "mlp.down_proj.kernel": "ffn_down.weight",
    }
    if path.startswith("layers."):
        _, index, local = path.split(".", 2)
        return f"blk.{index}.{names[local]}"
    return names.get(path, path)


def random_model(config, seed=0):
    draw = np.random.default_rng(seed)
    shapes = parameter_shapes(config)
    return Model(
        config,
        {path: draw.normal(0, 0.05, shape).astype(np.float32) for path, shape in shapes.items()},
    )


@pytest.fixture(scope="session")
def llama():
    return random_model(LLAMA)


@pytest.fixture(scope="session")
def tied_llama():
    return random_model(dataclasses.replace(LLAMA, tied=True))


@pytest.fixture(scope="session")
def biased_llama():
    return random_model(dataclasses.replace(LLAMA, attention_bias=True))


@pytest.fixture(scope="session")
def opt():
    return random_model(OPT)


@pytest.fixture(scope="session")
def t5():
    return random_model(T5)


@pytest.fixture(scope="session")
def flan_t5():
    return random_model(
        dataclasses.replace(T5, activation="gated-gelu", tied=False, scaled_output=False)
    )


@pytest.fixture(scope="session")
def development_data():
    """The folder of development data, which a user's machine does not have."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("GOSSAMER_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no development data at {folder}; GOSSAMER_DATA can name another place")
    return folder
