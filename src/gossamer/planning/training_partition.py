"""How a training step is divided over the chips of a slice, and where on the torus the parts lie.

| factor | divides | what it costs |
|---|---|---|
| pipeline | blocks into stages | a bubble; activations go to the next stage |
| data | sequences, with copies of the weights | gradients are summed once a step |
| model1 | sequences; weights along E if they are 2D | weights are gathered before use |
| model2 | F and heads; activations along E if they are 2D | sublayers are summed |

Source: a reconstruction: Jouppi et al. 2023, arXiv 2304.01433, table 3, name the factors and the
dimensions and say no more; what they divide is taken from Xu et al. 2021 (GSPMD), arXiv 2105.04663,
section 5.1.
"""

import dataclasses
import itertools
import math
import re
from typing import Literal, TypeAlias

from gossamer.planning.collectives import Axis
from gossamer.planning.meshes import Mesh, chips_along
from gossamer.planning.shapes import ModelShape

Dimensions: TypeAlias = Literal[1, 2]
FACTORS = ("pipeline", "data", "model1", "model2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingPartition:
    """Over how many chips each thing is divided.

    Attributes:
        pipeline: stages of blocks.
        data: copies of the model, with sequences of their own.
        model1: parts of each copy's sequences and, if weights are 2D, of E of the weights.
        model2: parts of F and heads.
        activations: 1, if those between sublayers are whole in each part of model2; 2, if divided.
        weights: 1, if those of each part of model2 are whole; 2, if divided over model1.

    Raises:
        ValueError: a factor is below 1, or a number of dimensions neither 1 nor 2.

    Example:
        >>> partition = TrainingPartition(pipeline=8, model1=8, model2=8, activations=2, weights=2)
        >>> print(partition, partition.chips)
        [8,1,8,8] 2D/2D 512
    """

    pipeline: int = 1
    data: int = 1
    model1: int = 1
    model2: int = 1
    activations: Dimensions = 1
    weights: Dimensions = 1

    def __post_init__(self) -> None:
        if min(self.factors) < 1:
            raise ValueError(f"Factors of a partition need to be 1 or more, got {self.factors}.")
        for name in ("activations", "weights"):
            if getattr(self, name) not in (1, 2):
                raise ValueError(
                    f"{name} of a partition have 1 or 2 dimensions, got {getattr(self, name)}."
                )

    @property
    def factors(self) -> tuple[int, int, int, int]:
        """Pipeline, data, model1 and model2."""
        return self.pipeline, self.data, self.model1, self.model2

    @property
    def chips(self) -> int:
        """The product of all factors."""
        return math.prod(self.factors)

    @property
    def sequence_parts(self) -> int:
        """Over how many chips sequences are divided."""
        return self.data * self.model1

    @property
    def weight_parts(self) -> int:
        """Over how many chips the weights of a stage are divided while they rest."""
        return self.model2 * (self.model1 if self.weights == 2 else 1)

    def __str__(self) -> str:
        factors = ",".join(map(str, self.factors))
        return f"[{factors}] {self.activations}D/{self.weights}D"


def parse_partition(name: str) -> TrainingPartition:
    """The partition of a name as it is printed; without dimensions 1D/1D.

    Raises:
        ValueError: it is no such name.

    Example:
        >>> parse_partition("[16,4,1,8] 1D/1D") == parse_partition("16,4,1,8")
        True
    """
    number = r"\s*(\d+)\s*"
    factors = ",".join([number] * len(FACTORS))
    parts = re.fullmatch(rf"\s*\[?{factors}\]?\s*(?:([12])D/([12])D)?\s*", name, re.ASCII)
    if parts is None:
        raise ValueError(
            "A partition is named by pipeline, data, model1 and model2, and the dimensions of "
            f"activations and weights, like [8,1,8,8] 2D/2D; got {name!r}."
        )
    pipeline, data, model1, model2, activations, weights = parts.groups()
    return TrainingPartition(
        pipeline=int(pipeline),
        data=int(data),
        model1=int(model1),
        model2=int(model2),
        activations=2 if activations == "2" else 1,
        weights=2 if weights == "2" else 1,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorAxes:
    """Which axes of a slice each factor of a partition lies on: whole ones, so that rings close."""

    pipeline: tuple[Axis, ...] = ()
    data: tuple[Axis, ...] = ()
    model1: tuple[Axis, ...] = ()
    model2: tuple[Axis, ...] = ()

    @property
    def factors(self) -> tuple[int, ...]:
        """Chips along the axes of each factor."""
        return tuple(chips_along(getattr(self, name)) for name in FACTORS)


def all_factor_axes(mesh: Mesh) -> tuple[FactorAxes, ...]:
    """All ways to lay the four factors on whole axes of a slice.

    Example:
        >>> len(all_factor_axes(Mesh.of(8, 8, 8))), len(all_factor_axes(Mesh.of(4, 8, 16)))
        (20, 64)
    """
    axes = sorted((axis for axis in mesh.axes if axis.size > 1), key=lambda axis: axis.size)
    found = (
        FactorAxes(
            **{
                factor: tuple(
                    axis for axis, name in zip(axes, names, strict=True) if name == factor
                )
                for factor in FACTORS
            }
        )
        for names in itertools.product(FACTORS, repeat=len(axes))
    )
    return tuple(dict.fromkeys(found))


def factor_axes(partition: TrainingPartition, mesh: Mesh) -> tuple[FactorAxes, ...]:
    """The ways to lay a partition on a slice.

    Args:
        partition: to be laid.
        mesh: the slice.

    Raises:
        ValueError: the slice has another number of chips, or there is none.

    Example:
        >>> for axes in factor_axes(parse_partition("1,1,16,32"), Mesh.of(4, 8, 16)):
        ...     print([axis.size for axis in axes.model2])
        [4, 8]
    """
    if partition.chips != mesh.chips:
        raise ValueError(
            f"The partition {partition} is for {partition.chips} chips, and {mesh} has "
            f"{mesh.chips}."
        )
    everywhere = all_factor_axes(mesh)
    found = tuple(each for each in everywhere if each.factors == partition.factors)
    if not found:
        near = sorted(
            {each.factors for each in everywhere},
            key=lambda factors: math.dist(
                *(map(math.log, x) for x in (factors, partition.factors))
            ),
        )
        ways = " or ".join(f"[{','.join(map(str, factors))}]" for factors in near[:3])
        raise ValueError(
            f"The partition {partition} does not lie on {mesh}: each factor needs to be a product "
            f"of whole dimensions. Near it are {ways}."
        )
    return found


def check_partition(
    partition: TrainingPartition, shape: ModelShape, batch: int, microbatches: int = 1
) -> None:
    """Raises where a model or a batch cannot be divided so.

    Args:
        partition: of the chips.
        shape: of the model.
        batch: sequences of a step.
        microbatches: that each copy's sequences go through in turn.

    Raises:
        ValueError: what does not divide, and by what.
    """
    rows = partition.sequence_parts * microbatches
    needs = [
        (shape.layers, partition.pipeline, "layers", "stages of the pipeline"),
        (shape.heads, partition.model2, "heads", "parts of model2"),
        (shape.d_ff, partition.model2, "columns of d_ff", "parts of model2"),
        (batch, rows, "sequences", "parts of data and model1, times microbatches"),
    ]
    if partition.activations == 2:
        needs.append((shape.d_model, partition.model2, "columns of d_model", "parts of model2"))
    if partition.weights == 2:
        needs.append((shape.d_model, partition.model1, "rows of d_model", "parts of model1"))
    if faults := [
        f"{size} {what} do not divide into {parts} {kind}"
        for size, parts, what, kind in needs
        if size % parts
    ]:
        raise ValueError(f"{shape.name} cannot be partitioned as {partition}: {'; '.join(faults)}.")
