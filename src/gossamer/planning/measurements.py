"""Measured seconds of partitioned models, and what the planner says of each."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gossamer.planning.chips import Chip
from gossamer.planning.layer_time import StepConstants
from gossamer.planning.layouts import AttentionLayout, Layout
from gossamer.planning.meshes import Mesh
from gossamer.planning.shapes import ModelShape, Phase, find_shape
from gossamer.planning.step import step_costs
from gossamer.planning.stored_weights import Bits
from gossamer.planning.yaml_files import builtin_yaml, check_faults, read_yaml, reader


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Seconds of a prompt's prefill, of some steps of decoding, or of both together.

    Attributes:
        table: that it is from.
        model: a name of `find_shape`.
        weights: their bits.
        chips: as `Mesh.of_chips` arranges them.
        layout: of the feed-forward layer and the projections.
        attention: what attention is divided over.
        batch: sequences.
        seconds: measured.
        prompt: tokens of each sequence that a prefill reads; 0: none is in it.
        steps: of decoding; 0: none are in it.
        context: tokens of each sequence in the middle of the steps.
        heads: with padding; None: the model's own.
        layers: that ran; None: all.
        ends: whether scores of the vocabulary are in it.

    Raises:
        ValueError: a size is not positive, or there is neither prefill nor step in it.
    """

    table: str
    model: str
    weights: Bits
    chips: int
    layout: Layout
    attention: AttentionLayout
    batch: int
    seconds: float
    prompt: int = 0
    steps: int = 0
    context: int = 0
    heads: int | None = None
    layers: int | None = None
    ends: bool = False

    def __post_init__(self) -> None:
        if min(self.chips, self.batch, self.seconds) <= 0:
            raise ValueError(f"A measurement needs positive chips, batch and seconds, got {self}.")
        if self.prompt < 1 and (self.steps < 1 or self.context < 1):
            raise ValueError(f"A measurement needs a prompt, or steps and a context, got {self}.")

    @property
    def shape(self) -> ModelShape:
        """Of the model as it ran."""
        shape = find_shape(self.model)
        if self.layers is not None:
            shape = dataclasses.replace(shape, layers=self.layers)
        return shape if self.heads is None else shape.with_heads(self.heads)


def predicted_seconds(
    measurements: Sequence[Measurement], chip: Chip, constants: StepConstants
) -> np.ndarray:
    """What the planner says that each measurement takes.

    Args:
        measurements: what ran.
        chip: on which.
        constants: losses.
    """
    seconds = np.zeros(len(measurements))
    for group in _groups(tuple(measurements)):
        seconds[list(group.places)] = _seconds_of_batches(group, chip, constants)
    return seconds


def read_measurements(file: str | pathlib.Path) -> dict[str, tuple[Measurement, ...]]:
    """Reads a YAML file of tables; see `builtin_measurements` for one.

    A table is a mapping with `rows`, what they have in common as `shared`, a `source`, and whether
    it is `fitted`. Only the latter go into a fit.

    Raises:
        ValueError: the file cannot be read, or is malformed; all faults are named.
    """
    data = read_yaml(file, "measurements")
    return {name: rows for name, (rows, _) in _tables(data, str(file)).items()}


@functools.cache
def builtin_measurements(*, fitted: bool | None = None) -> Mapping[str, tuple[Measurement, ...]]:
    """The published measurements on TPU v4, by table.

    Args:
        fitted: only tables that the shipped constants are fitted to, or only the others.

    Example:
        >>> list(builtin_measurements(fitted=True))
        ['table-d.2', 'table-d.3', 'figure-1-decode', 'figure-1-prefill']

    Source: Pope et al. 2022, arXiv 2211.05102; its figures are read off vector drawings.
    """
    tables = _tables(builtin_yaml("measurements.yaml"), "measurements.yaml")
    return {
        name: rows for name, (rows, in_fit) in tables.items() if fitted is None or in_fit == fitted
    }


@dataclasses.dataclass(frozen=True)
class _Group:
    """Measurements that differ in their batch alone, and their places among all."""

    one: Measurement
    shape: ModelShape
    mesh: Mesh
    batches: tuple[int, ...]
    places: tuple[int, ...]


@functools.lru_cache(maxsize=64)
def _groups(measurements: tuple[Measurement, ...]) -> tuple[_Group, ...]:
    places: dict[Measurement, list[int]] = {}
    for place, each in enumerate(measurements):
        same = dataclasses.replace(each, table="", batch=1, seconds=1.0)
        places.setdefault(same, []).append(place)
    return tuple(
        _Group(
            one=one,
            shape=one.shape,
            mesh=Mesh.of_chips(one.chips),
            batches=tuple(measurements[place].batch for place in found),
            places=tuple(found),
        )
        for one, found in places.items()
    )


def _seconds_of_batches(group: _Group, chip: Chip, constants: StepConstants) -> np.ndarray:
    one = group.one

    def step_seconds(phase: Phase, context: int) -> np.ndarray:
        cost = step_costs(
            group.shape,
            chip,
            group.mesh,
            layout=one.layout,
            attention=one.attention,
            phase=phase,
            batch=np.array(group.batches),
            context=context,
            weights=one.weights,
            constants=constants,
            ends=one.ends,
        )
        return np.asarray(cost.seconds)

    prefill = step_seconds("prefill", one.prompt) if one.prompt else np.array(0.0)
    return prefill + (one.steps * step_seconds("decode", one.context) if one.steps else 0.0)


def _tables(data: Any, where: str) -> dict[str, tuple[tuple[Measurement, ...], bool]]:
    if not isinstance(data, Mapping) or not data:
        raise ValueError(f"The measurements {where!r} need a mapping from names to tables.")
    reading = reader()
    found: dict[str, tuple[tuple[Measurement, ...], bool]] = {}
    for name, table in data.items():
        if not isinstance(table, Mapping) or not isinstance(table.get("rows"), list):
            reading.faults.append(f"{name} needs a mapping with a list of rows")
            continue
        if unknown := set(table) - {"source", "fitted", "shared", "rows"}:
            reading.faults.append(f"{name} has unknown fields {sorted(unknown)}")
        shared = table.get("shared") or {}
        rows = tuple(
            reading.build(
                Measurement, {"table": str(name), **shared, **row}, f"{name}, row {index}"
            )
            for index, row in enumerate(table["rows"])
        )
        found[str(name)] = rows, bool(table.get("fitted", True))
    check_faults(reading, f"measurements {where!r} are")
    return found
