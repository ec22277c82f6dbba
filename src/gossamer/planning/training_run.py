"""What a training run costs: hours, chip-hours, joules and grams of CO2e.

The model is its sizes; how well chips are used (MFU) and how much of the time (goodput) are inputs,
which `gossamer.planning.recovery` and measurements give.
"""

import dataclasses

from gossamer.planning.chips import Chip
from gossamer.planning.energy import Footprint, Site, footprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention:
    """Sizes that FLOPs of attention hang on.

    Attributes:
        layers: that attend.
        width: of all query heads together.
        sequence: tokens of a sequence.
    """

    layers: int
    width: int
    sequence: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_positive(f"{field.name} of attention", float(getattr(self, field.name)))


def token_flops(parameters: float, attention: Attention | None = None) -> float:
    r"""FLOPs to train on one token: :math:`6 N + 12 L H Q T`.

    Args:
        parameters: N, embeddings included.
        attention: whose scores and mixtures are counted, as if none were masked; None leaves them
            out.

    Example:
        >>> palm = Attention(layers=118, width=48 * 256, sequence=2048)
        >>> f"{token_flops(540.35e9, palm):.4g}"
        '3.278e+12'

    Source: Chowdhery et al. 2022, arXiv 2204.02311, appendix B; without attention Kaplan et al.
    2020, arXiv 2001.08361, section 2.1.
    """
    _check_positive("parameters", parameters)
    extra = attention.layers * attention.width * attention.sequence if attention else 0
    return 6.0 * parameters + 12.0 * extra


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What a run takes.

    Attributes:
        flops: of all tokens.
        tokens_per_second: while steps are made.
        computing_hours: in which steps are made.
        hours: until it is done, with what failures and checkpoints take.
        chip_hours: of all chips, until it is done.
        footprint: energy and CO2e; chips are taken to need the same power all the time.
        token_footprint: of one token.
    """

    flops: float
    tokens_per_second: float
    computing_hours: float
    hours: float
    chip_hours: float
    footprint: Footprint
    token_footprint: Footprint


def plan_training(
    *,
    parameters: float,
    tokens: float,
    chip: Chip,
    chips: int,
    mfu: float,
    site: Site,
    goodput: float = 1.0,
    attention: Attention | None = None,
    watts: float | None = None,
) -> TrainingRun:
    """What it takes to train a model.

    Args:
        parameters: of the model.
        tokens: that it is trained on.
        chip: of the slice, whose bf16 peak counts.
        chips: of the slice, or of all slices together.
        mfu: model-FLOPs utilization while steps are made.
        site: where the chips are.
        goodput: share of the time in which new steps are made.
        attention: whose FLOPs count as well; the MFU is to count them too.
        watts: mean power of a chip with its share of the machine; None takes the chip's own.

    Raises:
        ValueError: a size is not positive, a share is none, or no watts are known.

    Example:
        >>> from gossamer.planning.chips import find_chip
        >>> from gossamer.planning.energy import find_site
        >>> run = plan_training(parameters=1e9, tokens=20e9, chip=find_chip("tpu-v4"), chips=64,
        ...     mfu=0.4, goodput=0.95, site=find_site("world"))
        >>> round(run.hours, 2), round(run.chip_hours), round(run.footprint.kwh)
        (4.98, 319, 85)
    """
    for name, value in (("tokens", tokens), ("chips", chips)):
        _check_positive(name, float(value))
    for name, share in (("mfu", mfu), ("goodput", goodput)):
        if not 0 < share <= 1:
            raise ValueError(f"{name} needs to be above 0 and at most 1, got {share}.")
    watts = chip.watts if watts is None else watts
    if watts is None:
        raise ValueError(f"No watts of the chip {chip.name!r} are known; give its mean power.")
    each = token_flops(parameters, attention)
    rate = chips * chip.bf16_flops * mfu / each
    seconds = tokens / rate
    chip_seconds = chips * seconds / goodput
    taken = footprint(chip_seconds, watts=watts, site=site)
    return TrainingRun(
        flops=each * tokens,
        tokens_per_second=rate,
        computing_hours=seconds / 3600,
        hours=seconds / goodput / 3600,
        chip_hours=chip_seconds / 3600,
        footprint=taken,
        token_footprint=taken.per(tokens),
    )


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} needs to be positive, got {value}.")
