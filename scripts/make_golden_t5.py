"""Makes tests/golden/t5/*.npz: tiny random T5 models of Hugging Face transformers, their logits.

    pip install torch==2.13.0 transformers==5.24.0
    python scripts/make_golden_t5.py

Each file holds `config` (config.json as text), `source` [B, S], `source_mask` [B, S] (0 where the
second row is padded), `target` [B, T] (what the decoder is given), `logits` [B, T, V] computed in
float32, and the weights under their Hugging Face names, kept as those of make_golden_logits.py are.
The script refuses to write if a model built from our `to_hf()` gives other logits.
"""

import json

import numpy as np
import torch
from make_golden_logits import FOLDER, randomize
from transformers import T5Config, T5ForConditionalGeneration

from gossamer.models import config_from_hf

SIZES = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4}
CONFIGS = {  # sources of 40 tokens reach the buckets that far distances share
    "relu_tied": {**SIZES},
    "gated_untied_deep_decoder": {
        **SIZES,
        "num_decoder_layers": 3,
        "d_kv": 12,  # 4 heads of 12 in a stream of 32
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "relative_attention_num_buckets": 16,
        "relative_attention_max_distance": 20,
    },
}


def logits_of(fields: dict, weights: dict, inputs: dict) -> np.ndarray:
    """What transformers computes in float32."""
    model = T5ForConditionalGeneration(T5Config.from_dict(fields)).float().eval()
    if "lm_head.weight" in weights:  # transformers 5 ties always, and unties when it loads
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown
    assert all(name.endswith("embed_tokens.weight") or "lm_head" in name for name in missing)
    with torch.inference_mode():
        return model(**inputs).logits.numpy()


def make(name: str, fields: dict, seed: int) -> None:
    """Writes one file."""
    generator = torch.Generator().manual_seed(seed)
    model = T5ForConditionalGeneration(T5Config.from_dict(fields))
    tied = fields.get("tie_word_embeddings", True)
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    randomize(model, generator)
    spare = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    spare = (*spare, "lm_head.weight") if tied else spare
    weights = {key: value for key, value in model.state_dict().items() if key not in spare}
    source = torch.randint(2, fields["vocab_size"], (2, 40), generator=generator)
    mask = torch.ones_like(source)
    mask[1, 33:] = 0
    target = torch.randint(2, fields["vocab_size"], (2, 24), generator=generator)
    target[:, 0] = 0
    inputs = {"input_ids": source, "attention_mask": mask, "decoder_input_ids": target}
    logits = logits_of(fields, weights, inputs)
    data = {"model_type": "t5", **fields}
    ours = config_from_hf(data).to_hf()
    np.testing.assert_array_equal(logits_of(ours, weights, inputs), logits, err_msg=name)
    np.savez_compressed(
        FOLDER / "t5" / f"{name}.npz",
        config=json.dumps(data),
        source=source.numpy().astype(np.int32),
        source_mask=mask.numpy().astype(np.int32),
        target=target.numpy().astype(np.int32),
        logits=logits,
        **{key: value.numpy().astype(np.float16) for key, value in weights.items()},
    )
    print(f"{name}: logits up to {np.abs(logits).max():.2f}")


if __name__ == "__main__":
    (FOLDER / "t5").mkdir(exist_ok=True)
    for seed, (name, fields) in enumerate(CONFIGS.items()):
        make(name, fields, seed)
