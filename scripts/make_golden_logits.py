"""Makes tests/golden/*.npz: tiny random models of Hugging Face transformers and their logits.

    pip install torch==2.13.0 transformers==5.24.0
    python scripts/make_golden_logits.py

Each file holds `config` (config.json as text), `tokens` [B, T], `logits` [B, T, V] computed in
float32 and the weights under their Hugging Face names. Weights are multiples of 1/64, kept as
float16 without loss, so that the files stay small. The files in the repository were made with the
versions above and Python 3.11 on x86-64; the script refuses to write if a model built from our
`to_hf()` gives other logits than the one built from its own config.
"""

import json
import pathlib

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PreTrainedConfig

from gossamer.models import config_from_hf

FOLDER = pathlib.Path(__file__).parents[1] / "tests" / "golden"
SHARED = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SHARED, "intermediate_size": 40, "max_position_embeddings": 32, "rms_norm_eps": 1e-5}
OPT = {**SHARED, "ffn_dim": 40, "word_embed_proj_dim": 32, "max_position_embeddings": 32}
LLAMA3 = {  # the frequencies of a head of 8: one stays, one is scaled in part, two in full
    "rope_type": "llama3",
    "rope_theta": 300.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 32,
}


def plain_rope(theta: float) -> dict[str, object]:
    """`rope_parameters` without scaling."""
    return {"rope_type": "default", "rope_theta": theta}


CONFIGS = {
    "llama_multi_head": LlamaConfig(
        **LLAMA, num_key_value_heads=4, head_dim=8, rope_parameters=plain_rope(10000.0)
    ),
    "llama_grouped_tied": LlamaConfig(
        **LLAMA,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=True,
        rope_parameters=plain_rope(500.0),
    ),
    "llama_multi_query_wide_heads": LlamaConfig(  # 4 heads of 16 in a stream of 32, with biases
        **LLAMA,
        num_key_value_heads=1,
        head_dim=16,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters=plain_rope(10000.0),
    ),
    "llama_scaled_rotary": LlamaConfig(
        **{**LLAMA, "max_position_embeddings": 64},
        num_key_value_heads=2,
        head_dim=8,
        rope_parameters=LLAMA3,
    ),
    "opt_tied": OPTConfig(**OPT),
    "opt_untied": OPTConfig(**OPT, tie_word_embeddings=False),
    "opt_gelu": OPTConfig(**OPT, activation_function="gelu"),
}


def randomize(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Draws all weights anew, large enough that every part of the model shows in the logits."""
    for name, weight in model.named_parameters():
        noise = 0.2 * torch.randn(weight.shape, generator=generator)
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        weight.data = torch.round(64 * (centre + noise)) / 64


def logits_of(config: PreTrainedConfig, weights: dict[str, torch.Tensor], tokens: torch.Tensor):
    """What transformers computes in float32."""
    model = AutoModelForCausalLM.from_config(config).float().eval()
    model.load_state_dict(weights)
    with torch.inference_mode():
        return model(tokens).logits.numpy()


def make(name: str, config: PreTrainedConfig, seed: int) -> None:
    """Writes one file."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    randomize(model, generator)
    weights = model.state_dict()
    tokens = torch.randint(0, config.vocab_size, (2, 12), generator=generator)
    logits = logits_of(config, weights, tokens)
    data = json.loads(config.to_json_string())
    ours = type(config).from_dict(config_from_hf(data).to_hf())
    np.testing.assert_array_equal(logits_of(ours, weights, tokens), logits, err_msg=name)
    arrays = {key: value.numpy().astype(np.float16) for key, value in weights.items()}
    if config.tie_word_embeddings:
        del arrays["lm_head.weight"]
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        config=json.dumps(data),
        tokens=tokens.numpy().astype(np.int32),
        logits=logits,
        **arrays,
    )
    print(f"{name}: logits up to {np.abs(logits).max():.2f}")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, config) in enumerate(CONFIGS.items()):
        make(name, config, seed)
