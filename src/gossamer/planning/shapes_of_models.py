"""Shapes read off gossamer's own models."""

from gossamer.models import LlamaConfig, ModelConfig, OptConfig, T5Config, ViTConfig
from gossamer.planning.shapes import ModelShape


def shape_of(config: ModelConfig, name: str = "model") -> ModelShape:
    """The shape of a model that gossamer builds or loads.

    Its `kernels` are those of `gossamer.models.parameter_shapes`.

    Args:
        config: of the model, such as `config_from_hf` reads.
        name: that messages and tables show.

    Example:
        >>> shape = shape_of(OptConfig(vocab_size=9, hidden_size=4, intermediate_size=8,
        ...                            num_layers=1, num_heads=2, max_positions=16))
        >>> shape.kernels["layers.0.mlp.fc1.kernel"], shape.parameters
        ((4, 8), 164)
    """
    common = {
        "name": name,
        "d_model": config.hidden_size,
        "d_ff": config.intermediate_size,
        "heads": config.num_heads,
        "head_dim": config.head_dim,
    }
    match config:
        case LlamaConfig():
            return ModelShape(
                **common,
                layers=config.num_layers,
                kv_heads=config.num_kv_heads,
                vocabulary=config.vocab_size,
                tied=config.tied,
            )
        case OptConfig():
            return ModelShape(
                **common,
                layers=config.num_layers,
                kv_heads=config.num_heads,
                vocabulary=config.vocab_size,
                tied=config.tied,
                ffn_matrices=2,
                naming="opt",
            )
        case T5Config():
            return ModelShape(
                **common,
                layers=config.num_decoder_layers,
                encoder_layers=config.num_layers,
                kv_heads=config.num_heads,
                vocabulary=config.vocab_size,
                tied=config.tied,
                ffn_matrices=3 if config.gated else 2,
            )
        case ViTConfig():
            rows, columns = config.patch_size
            return ModelShape(
                **common,
                layers=config.num_layers,
                kv_heads=config.num_heads,
                vocabulary=config.num_classes,
                patch_width=config.channels * rows * columns,
                ffn_matrices=2,
                naming="opt",
            )
