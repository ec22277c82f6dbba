"""The questions that `gossamer plan` answers."""

import dataclasses
from typing import Annotated, TypeAlias

import tyro

from gossamer.cli.plan.attention import Attention
from gossamer.cli.plan.chips import Chips
from gossamer.cli.plan.embeddings import Embeddings
from gossamer.cli.plan.serve import Serve
from gossamer.cli.plan.slices import SliceQuestion
from gossamer.cli.plan.step import Step
from gossamer.cli.plan.train import TrainQuestion

Question: TypeAlias = (
    Annotated[Serve, tyro.conf.subcommand("serve", prefix_name=False)]
    | Annotated[Step, tyro.conf.subcommand("step", prefix_name=False)]
    | Annotated[TrainQuestion, tyro.conf.subcommand("train", prefix_name=False)]
    | Annotated[SliceQuestion, tyro.conf.subcommand("slice", prefix_name=False)]
    | Annotated[Attention, tyro.conf.subcommand("attention", prefix_name=False)]
    | Annotated[Embeddings, tyro.conf.subcommand("embeddings", prefix_name=False)]
    | Annotated[Chips, tyro.conf.subcommand("chips", prefix_name=False)]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan what a model would cost on chips that are not at hand: seconds, bytes, joules.

    Example: gossamer plan attention --model bert-base --chip flat-cloud --sequence 4096
    """

    question: Annotated[Question, tyro.conf.arg(name="")]
