import json

import pytest
import yaml

from gossamer.sparsity.methods import SRSTE, STEP, RigL
from gossamer.sparsity.schedules import Periodic
from gossamer.training import PRESETS, QuantizationConfig, TrainingConfig
from tests.training.runs import RECIPE, run

MODEL = {
    "type": "LlamaConfig",
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 1,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "max_positions": 32,
}
LEAST = {"model": MODEL, "steps": 10, "batch": 4, "context": 16}


@pytest.mark.parametrize(
    "config",
    [
        *PRESETS.values(),
        run(method=SRSTE(recipe=RECIPE), quantization=QuantizationConfig(recipe=RECIPE)),
    ],
    ids=[*PRESETS, "quantized"],
)
def test_a_run_survives_plain_data(config):
    data = json.loads(json.dumps(config.to_dict()))
    assert TrainingConfig.from_dict(data) == config
    assert TrainingConfig.from_dict(yaml.safe_load(yaml.safe_dump(data))) == config


def test_a_file_needs_only_what_has_no_default(tmp_path):
    file = tmp_path / "run.yaml"
    method = {"type": "SRSTE", "recipe": "2:4", "decay": 0.001}
    file.write_text(yaml.safe_dump(LEAST | {"method": method}))
    config = TrainingConfig.from_file(file)
    assert (config.method.decay, config.method.recipe.name) == (0.001, "2:4")
    assert config.optimizer.clip == 1.0


def test_all_faults_of_a_file_are_reported_together(tmp_path):
    file = tmp_path / "bad.yaml"
    data = {
        **LEAST,
        "model": {**MODEL, "head_dim": "8"},
        "stepz": 3,
        "batch": 4.5,
        "optimizer": {"type": "Adam"},
        "method": {"type": "SRSTE", "recipe": "2:5", "decay": -1},
    }
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(ValueError, match=r"bad.yaml: The training file is not valid") as error:
        TrainingConfig.from_file(file)
    for fault in (
        "training has an unknown field 'stepz'",
        "training.model.head_dim needs int, got '8'",
        "training.batch needs int, got 4.5",
        "training.optimizer needs a mapping with a type in ['AdamW', 'Adafactor', 'SGD', 'Lion']",
        "training.method.recipe: '2:5' is neither a recipe file nor a preset",
    ):
        assert fault in str(error.value)
    with pytest.raises(ValueError, match=r"none.yaml cannot be read"):
        TrainingConfig.from_file(tmp_path / "none.yaml")


FAULTS = {
    "no_steps": ({"steps": 0, "log_every": 0}, "steps must be 1 or more, got 0; log_every must"),
    "uneven_parts": ({"accumulate": 3}, "a batch of 4 is not cut in 3 equal parts"),
    "too_long": ({"context": 64}, "a context of 64 is more than the model's 32 positions"),
    "no_peak": ({"peak_flops": 0.0}, "peak_flops must be above 0, got 0.0"),
    "all_warm_up": ({"steps": 2}, "a warm-up of 2 steps leaves none of 2"),
    "bfloat16_and_integers": (
        {"precision": "bfloat16", "quantization": QuantizationConfig(recipe=RECIPE)},
        "quantized products are in float32",
    ),
    "driven_by_the_host": (
        {"method": RigL(recipe=RECIPE, schedule=Periodic(stop=3), drive="host")},
        "RigL is driven by the host",
    ),
    "another_adam": (
        {"method": STEP(recipe=RECIPE, earliest=1, latest=2, b2=0.9)},
        r"b1, b2, eps = \(0.9, 0.9, 1e-08\), and the optimizer is AdamW with",
    ),
}


@pytest.mark.parametrize(("changes", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_run_that_cannot_be_is_refused_before_it_begins(changes, message):
    with pytest.raises(ValueError, match=message):
        run(**changes)
