import dataclasses

import pytest

from gossamer.models import LlamaConfig, OptConfig, T5Config, ViTConfig, parameter_shapes
from gossamer.planning import ModelShape, builtin_shapes, find_shape, read_shapes, shape_of

# Pope et al. 2022, section 4 and table D.1: parameters, and those of one layer, in billions.
COUNTS = {
    "palm-8b": (8.63, 0.237),
    "palm-62b": (62.50, 0.944),
    "palm-540b": (540.35, 4.539),
    "palm-540b-padded": (558.2, 4.690),
    "mt-nlg-530b": (530, 5.0),
}
# Billions of parameters by the makers' papers and configurations.
PUBLISHED = {
    "llama-7b": 6.738,
    "llama-65b": 65.29,
    "llama-2-70b": 68.98,
    "llama-3-8b": 8.030,
    "llama-3.1-405b": 405.9,
    "llama-3.2-1b": 1.236,
    "opt-1.3b": 1.316,
    "opt-175b": 175.0,
    "t5-11b": 11.31,
    "flan-t5-xxl": 11.14,
    "vit-base-16": 0.0866,
    "vit-large-16": 0.3043,
}
CONFIGS = {
    "grouped": LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=6,
        max_positions=16,
    ),
    "opt": OptConfig(
        vocab_size=9,
        hidden_size=4,
        intermediate_size=8,
        num_layers=2,
        num_heads=2,
        max_positions=16,
    ),
    "t5": T5Config(
        vocab_size=9,
        hidden_size=4,
        intermediate_size=8,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=2,
        head_dim=6,
    ),
    "flan-t5": T5Config(
        vocab_size=9,
        hidden_size=4,
        intermediate_size=8,
        num_layers=1,
        num_decoder_layers=2,
        num_heads=2,
        head_dim=6,
        activation="gated-gelu",
        tied=False,
    ),
    "vit": ViTConfig(
        image_size=(8, 8),
        patch_size=(4, 2),
        channels=3,
        hidden_size=4,
        intermediate_size=8,
        num_layers=2,
        num_heads=2,
        num_classes=5,
    ),
}


@pytest.mark.parametrize(("name", "billions"), COUNTS.items(), ids=COUNTS)
def test_the_papers_models_have_the_papers_parameters(name, billions):
    shape = find_shape(name)
    layer = sum(rows * columns for rows, columns in shape.block_kernels("layers").values())
    # Half a unit of the last digit that is given; 530 billion is a name.
    assert shape.parameters / 1e9 == pytest.approx(billions[0], rel=1e-3)
    assert layer / 1e9 == pytest.approx(billions[1], rel=7e-3)


def test_heads_of_padding_add_what_the_paper_says_and_count_for_nothing():
    palm = find_shape("palm-540b")
    padded = palm.with_heads(64)
    assert padded.parameters == find_shape("palm-540b-padded").parameters
    assert (padded.parameters - palm.parameters) / 1e9 == pytest.approx(17.8, abs=0.05)
    assert padded.counted_parameters == palm.counted_parameters == 540e9
    llama = find_shape("llama-7b")
    assert llama.with_heads(48).counted_parameters == llama.parameters
    assert llama.with_heads(48).kv_heads == 48  # each head has its own keys


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items(), ids=PUBLISHED)
def test_other_families_have_their_published_parameters(name, billions):
    # Norms, biases and positions are less than 1 % of even the smallest.
    assert find_shape(name).parameters / 1e9 == pytest.approx(billions, rel=1e-2)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_kernels_are_those_of_the_model_itself(config):
    kernels = {
        path: shape for path, shape in parameter_shapes(config).items() if path.endswith(".kernel")
    }
    shape = shape_of(config)
    assert dict(shape.kernels) == kernels
    assert shape.parameters == sum(rows * columns for rows, columns in kernels.values())


@pytest.mark.parametrize("name", builtin_shapes())
def test_widths_of_sublayers_hold_all_kernels_of_a_block(name):
    shape = find_shape(name)
    for phase in ("prefill", "decode"):
        wide = sum(
            each.in_width + each.out_width + each.key_value_width for each in shape.sublayers(phase)
        )
        kernels = dict(shape.block_kernels(shape.stack(phase)))
        for path in ("cross_attention.k_proj.kernel", "cross_attention.v_proj.kernel"):
            kernels.pop(path, None)  # they ran once, in front of all steps
        assert wide * shape.d_model == sum(rows * columns for rows, columns in kernels.values())


def test_a_users_own_models_are_read_from_a_file(tmp_path):
    file = tmp_path / "models.yaml"
    file.write_text(
        "mine: {layers: 2, d_model: 8, d_ff: 16, heads: 2, kv_heads: 1, head_dim: 4,"
        " vocabulary: 9, nominal_parameters: 1000}\n"
    )
    mine = read_shapes(file)
    assert find_shape("mine", mine) == ModelShape(
        name="mine",
        layers=2,
        d_model=8,
        d_ff=16,
        heads=2,
        kv_heads=1,
        head_dim=4,
        vocabulary=9,
        nominal_parameters=1000.0,
    )


def test_unknown_models_and_bad_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no model 'palm'; known are .*palm-540b"):
        find_shape("palm")
    file = tmp_path / "models.yaml"
    file.write_text("mine: {layers: many, width: 3}\n")
    with pytest.raises(ValueError, match=r"not valid: .*width.*lacks 'd_model'"):
        read_shapes(file)
    file.write_text("3\n")
    with pytest.raises(ValueError, match="need a mapping from names to fields"):
        read_shapes(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read_shapes(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers of palm-8b needs 1 or more"),
        ({"d_ff": -4}, "d_ff of palm-8b needs 1 or more"),
        ({"kv_heads": 3}, "heads that its key-value heads divide, got 16 and 3"),
        ({"ffn_matrices": 4}, "ffn_matrices of palm-8b needs 2, or 3"),
        ({"encoder_layers": -1}, "negative size"),
        ({"encoder_layers": 3}, "cannot be parallel"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(find_shape("palm-8b"), **change)


def test_fewer_heads_are_no_padding():
    with pytest.raises(ValueError, match="has 48 heads, and padding makes it no less"):
        find_shape("palm-540b").with_heads(32)
