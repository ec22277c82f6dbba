import dataclasses

import pytest

from gossamer.models import OptConfig, parameter_shapes

OPT_125M = {  # the fields of facebook/opt-125m's config.json that say what is computed
    "model_type": "opt",
    "_remove_final_layer_norm": False,
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "ffn_dim": 3072,
    "hidden_size": 768,
    "max_position_embeddings": 2048,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 50272,
    "word_embed_proj_dim": 768,
}
CONFIG = OptConfig(
    vocab_size=50272,
    hidden_size=768,
    intermediate_size=3072,
    num_layers=12,
    num_heads=12,
    max_positions=2048,
)


def test_a_config_of_transformers_is_read():
    assert OptConfig.from_hf(OPT_125M) == CONFIG
    assert CONFIG.head_dim == 64
    assert CONFIG.num_kv_heads == 12


@pytest.mark.parametrize(
    "changes", [{}, {"num_layers": 0}, {"tied": False}, {"activation": "gelu"}], ids=str
)
def test_written_configs_read_back_equal(changes):
    config = dataclasses.replace(CONFIG, **changes)
    assert OptConfig.from_hf(config.to_hf()) == config


def test_every_field_reaches_the_config_file():
    other = OptConfig(
        vocab_size=65,
        hidden_size=24,
        intermediate_size=41,
        num_layers=3,
        num_heads=6,
        max_positions=34,
        tied=False,
        activation="gelu",
    )
    for field in dataclasses.fields(OptConfig):
        changed = dataclasses.replace(CONFIG, **{field.name: getattr(other, field.name)})
        assert changed.to_hf() != CONFIG.to_hf(), field.name


def test_the_table_of_positions_has_the_two_rows_of_the_offset():
    assert parameter_shapes(CONFIG)["positions.table"] == (2050, 768)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_layer_norm_before": False}, "do_layer_norm_before must be True, got False"),
        ({"word_embed_proj_dim": 512}, "word_embed_proj_dim must be 768, got 512"),
        ({"_remove_final_layer_norm": True}, "_remove_final_layer_norm must be False, got True"),
        ({"enable_bias": False}, "enable_bias must be True, got False"),
        ({"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine must be True"),
        (
            {"activation_function": "silu"},
            "activation_function must be 'relu' or 'gelu', got 'silu'",
        ),
        ({"quantization_config": {"bits": 4}}, "quantization_config must be None, got"),
        ({"num_attention_heads": 7}, "multiple of num_heads, got 768 and 7"),
        ({"ffn_dim": True}, "ffn_dim must be a whole number of at least 1, got True"),
        ({"model_type": "gptj"}, "model_type must be 'opt', got 'gptj'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        OptConfig.from_hf({**OPT_125M, **change})
