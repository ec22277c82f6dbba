import dataclasses

import pytest

from gossamer.models import LlamaConfig, parameter_shapes
from gossamer.nn.rotary import Llama3Scaling, Rotary

CONFIG = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=40,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_positions=32,
    norm_epsilon=1e-6,
    rotary=Rotary(theta=500.0),
    tied=True,
)
SMOLLM2 = {  # the config.json of HuggingFaceTB/SmolLM2-135M, in the format of transformers 4
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "vocab_size": 49152,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SCALING = Llama3Scaling(
    factor=32.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_positions=8192
)


def test_a_config_of_transformers_4_is_read():
    config = LlamaConfig.from_hf(SMOLLM2)
    assert config == LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        max_positions=8192,
        norm_epsilon=1e-5,
        rotary=Rotary(theta=100000.0),
        tied=True,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
        {"rope_parameters": {**LLAMA3, "rope_theta": 500000.0}},
        {"rope_theta": 500000.0, "rope_parameters": LLAMA3},
    ],
    ids=["transformers 4", "transformers 5", "mixed"],
)
def test_rotary_scaling_is_read_wherever_it_stands(fields):
    config = LlamaConfig.from_hf({**SMOLLM2, **fields})
    assert config.rotary == Rotary(theta=500000.0, scaling=SCALING)


def test_absent_fields_take_the_defaults_of_transformers():
    absent = ("num_key_value_heads", "tie_word_embeddings", "attention_bias", "rope_theta")
    config = LlamaConfig.from_hf({k: v for k, v in SMOLLM2.items() if k not in absent})
    assert config.num_kv_heads == 9
    assert not config.tied
    assert not config.attention_bias
    assert not config.mlp_bias
    assert config.rotary == Rotary(theta=10000.0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_layers": 0},
        {"rotary": Rotary(theta=500.0, scaling=SCALING)},
        {"tied": False, "attention_bias": True, "mlp_bias": True},
    ],
    ids=str,
)
def test_written_configs_read_back_equal(changes):
    config = dataclasses.replace(CONFIG, **changes)
    assert LlamaConfig.from_hf(config.to_hf()) == config


def test_every_field_reaches_the_config_file():
    # A field that `to_hf` forgets would be lost with the next save.
    other = LlamaConfig(
        vocab_size=65,
        hidden_size=33,
        intermediate_size=41,
        num_layers=3,
        num_heads=8,
        num_kv_heads=1,
        head_dim=18,
        max_positions=34,
        norm_epsilon=1e-7,
        rotary=Rotary(theta=501.0, scaling=SCALING),
        tied=False,
        attention_bias=True,
        mlp_bias=True,
    )
    for field in dataclasses.fields(LlamaConfig):
        changed = dataclasses.replace(CONFIG, **{field.name: getattr(other, field.name)})
        assert changed.to_hf() != CONFIG.to_hf(), field.name


def test_biases_come_where_the_config_asks_for_them():
    biased = dataclasses.replace(CONFIG, attention_bias=True, mlp_bias=False, tied=False)
    extra = parameter_shapes(biased).keys() - parameter_shapes(CONFIG).keys()
    projections = [f"attention.{name}_proj.bias" for name in "qkvo"]
    want = {f"layers.{index}.{name}" for index in range(2) for name in projections}
    assert extra == want | {"output.kernel"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        ({"sliding_window": 4096}, "sliding_window must be None, got 4096"),
        ({"quantization_config": {"bits": 4}}, "quantization_config must be None, got"),
        ({"rope_interleaved": True}, "rope_interleaved must be False, got True"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type must be .* got 'linear'"),
        ({"rope_scaling": {"rope_type": "yarn"}}, r"rope_scaling\.rope_type must be .* got 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, r"rope_scaling\.factor must be .* got None"),
        ({"rope_parameters": {**LLAMA3, "factor": 0.5}}, "rope_parameters: .* got factor=0.5"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor must be 1.0"),
        ({"hidden_size": None}, "hidden_size must be a whole number of at least 1, got None"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number of at least 1, got 'many'"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be a whole number of at least 0"),
        ({"rms_norm_eps": 0}, "rms_norm_eps must be a positive number, got 0"),
        ({"attention_bias": "no"}, "attention_bias must be true or false, got 'no'"),
        ({"num_key_value_heads": 2}, "multiple of num_kv_heads, got 9 and 2"),
        ({"head_dim": 63}, "even head_dim, rotary turns pairs, got 63"),
        ({"model_type": "mistral"}, "model_type must be 'llama', got 'mistral'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig.from_hf({**SMOLLM2, **change})


def test_all_faults_are_reported_together():
    with pytest.raises(ValueError, match=r"cannot be used: hidden_act must .*; rms_norm_eps must"):
        LlamaConfig.from_hf({**SMOLLM2, "hidden_act": "relu", "rms_norm_eps": None})
