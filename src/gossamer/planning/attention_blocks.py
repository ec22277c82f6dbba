"""Attention within a block: its linear layers, its share of the run time, and plots over lengths.

Source: Kao et al., "FLAT", ASPLOS 2023, arXiv 2107.06419: the linear layers of a block are never
fused.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from gossamer import plots
from gossamer.planning.attention_costs import AttentionCost
from gossamer.planning.attention_dataflow import AttentionPlan, plan_attention
from gossamer.planning.attention_shapes import AttentionModel, projection_operator
from gossamer.planning.chips import Chip
from gossamer.planning.stored_weights import kernel_bytes, relative_compute
from gossamer.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockCost:
    """Seconds of one block's attention and linear layers.

    Attributes:
        attention: of the products of activations, and softmax.
        linear_seconds: of each layer with weights, by its name.
    """

    attention: AttentionCost
    linear_seconds: dict[str, float]

    @property
    def seconds(self) -> float:
        """Of the block; norms and activation functions are left out."""
        return self.attention.seconds + sum(self.linear_seconds.values())

    @property
    def attention_share(self) -> float:
        """Of attention in the block's seconds."""
        return self.attention.seconds / self.seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """What the weights of one linear layer are stored as.

    Attributes:
        nbytes: of all of them.
        relative_compute: seconds of their products, relative to bf16 at its peak.
    """

    nbytes: float
    relative_compute: float = 1.0


def block_weights(chip: Chip, model: AttentionModel, recipe: Recipe) -> dict[str, LayerWeights]:
    """Weights of a block as a recipe stores them, by the names of their layers.

    Where a recipe treats blocks differently, the mean of all.

    Raises:
        ValueError: a rule matches nothing, or a kernel does not divide into a format's groups.

    Example:
        >>> from gossamer.planning import find_chip
        >>> from gossamer.planning.attention_shapes import FLAT_MODELS
        >>> bert, recipe = FLAT_MODELS["bert-base"], Recipe.load("w8a8")
        >>> block_weights(find_chip("h100-sxm"), bert, recipe)["mlp.fc1.kernel"].nbytes
        2371584.0
    """
    shape = model.block
    stack = shape.stack("prefill")
    blocks = shape.stacks[stack]
    rules = recipe.match(shape.kernels)
    found = {}
    for name, kernel in model.linear_layers().items():
        chosen = [rules.get(f"{stack}.{block}.{name}") for block in range(blocks)]
        try:
            sizes = [kernel_bytes(kernel, rule) for rule in chosen]
        except ValueError as error:
            raise ValueError(f"{name} {kernel}: {error}") from error
        found[name] = LayerWeights(
            nbytes=sum(sizes) / blocks,
            relative_compute=sum(relative_compute(rule, chip) for rule in chosen) / blocks,
        )
    return found


def linear_seconds(
    chip: Chip,
    model: AttentionModel,
    *,
    sequence: int,
    batch: int,
    element_bytes: int = 2,
    weights: Mapping[str, LayerWeights] | None = None,
) -> dict[str, float]:
    r"""Seconds of each layer of a block that has weights, by its name.

    .. math:: \max \Big( r \frac{B N \, in \, out}{peak}, \;
        \frac{e (B N \, in + B N \, out) + w}{BW} \Big)

    Args:
        chip: any; the peak counts in multiply-adds.
        model: whose block it is.
        sequence: N, tokens.
        batch: B, sequences.
        element_bytes: e, of activations.
        weights: w, their bytes, and r, of each layer; None: e bytes each, and 1.

    Raises:
        ValueError: there is no token, or a layer has no weights.

    Source: the artifact of FuseMax (Nayak et al., MICRO 2024, arXiv 2406.10491).
    """
    if sequence < 1 or batch < 1:
        raise ValueError(f"Linear layers need tokens, got {batch} sequences of {sequence}.")
    layers = model.linear_layers()
    if weights is not None and (missing := [name for name in layers if name not in weights]):
        raise ValueError(f"Weights of the linear layers {missing} are missing.")
    seconds = {}
    for name, (inputs, outputs) in layers.items():
        plain = LayerWeights(nbytes=float(element_bytes * inputs * outputs))
        stored = plain if weights is None else weights[name]
        product = projection_operator(batch * sequence, inputs, outputs)
        activations = product.read - inputs * outputs + product.written
        traffic = element_bytes * activations + stored.nbytes
        compute = stored.relative_compute * product.macs / (chip.bf16_flops / 2)
        seconds[name] = max(compute, traffic / chip.memory_bandwidth)
    return seconds


def block_cost(
    chip: Chip,
    model: AttentionModel,
    attention: AttentionCost,
    *,
    weights: Mapping[str, LayerWeights] | None = None,
) -> BlockCost:
    """A block with this attention.

    Args:
        chip: any.
        model: whose block it is.
        attention: of it, however it is computed.
        weights: of each linear layer, by its name; None: as wide as activations.

    Raises:
        ValueError: the attention is of another model's heads.

    Example:
        >>> from gossamer.planning import find_chip
        >>> from gossamer.planning.attention_dataflow import best_unfused
        >>> from gossamer.planning.attention_shapes import FLAT_MODELS
        >>> bert, edge = FLAT_MODELS["bert-base"], find_chip("flat-edge")
        >>> unfused = best_unfused(edge, bert.shape(4096), charge_softmax=False)
        >>> round(block_cost(edge, bert, unfused).attention_share, 2)
        0.49
    """
    shape = attention.shape
    if (shape.heads, shape.head_dim) != (model.heads, model.head_dim):
        raise ValueError(
            f"The model has {model.heads} heads of {model.head_dim}, its attention {shape.heads} "
            f"of {shape.head_dim}."
        )
    linear = linear_seconds(
        chip,
        model,
        sequence=shape.sequence,
        batch=shape.batch,
        element_bytes=shape.element_bytes,
        weights=weights,
    )
    return BlockCost(attention=attention, linear_seconds=linear)


def attention_plans(
    chip: Chip,
    model: AttentionModel,
    sequences: Sequence[int],
    *,
    batch: int = 64,
    charge_softmax: bool = True,
) -> dict[int, AttentionPlan]:
    """The plan at each length.

    Raises:
        ValueError: there is no length, or as `plan_attention` does.
    """
    if not sequences:
        raise ValueError("Plans over lengths need one or more of them.")
    return {
        length: plan_attention(
            chip, model.shape(length, batch=batch), charge_softmax=charge_softmax
        )
        for length in sequences
    }


def attention_utilization_plot(plans: dict[int, AttentionPlan], *, title: str) -> bytes:
    """Draws the matrix unit's utilization over the length, fused and not, as PNG bytes."""
    lines = _lines(plans, lambda cost: cost.utilization)
    return plots.line_plot(lines, x="tokens", y="utilization", title=title, log_x=True)


def attention_latency_plot(plans: dict[int, AttentionPlan], *, title: str) -> bytes:
    """Draws the seconds of a layer's attention over the length, fused and not, as PNG bytes."""
    lines = _lines(plans, lambda cost: cost.seconds)
    return plots.line_plot(lines, x="tokens", y="seconds", title=title, log_x=True, log_y=True)


def _lines(
    plans: dict[int, AttentionPlan], value: Callable[[AttentionCost], float]
) -> dict[str, list[tuple[float, float]]]:
    return {
        "fused": [(float(length), value(plan.fused)) for length, plan in plans.items()],
        "unfused": [(float(length), value(plan.unfused)) for length, plan in plans.items()],
    }
