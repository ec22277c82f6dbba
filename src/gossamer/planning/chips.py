"""Chips as planners see them: peaks, memories, links, watts, each with its source."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

from gossamer.planning.names import find_known
from gossamer.planning.yaml_files import builtin_yaml, read_named, read_yaml


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """The constants of one accelerator; None where none is known.

    Attributes:
        bf16_flops: peak floating-point operations a second, a multiply-add counted as two.
        int8_ops: the same of products of int8; None where they are no faster than bf16.
        sparse_speedup: how many times the peak is with 2:4 weights; 1 where zeros are multiplied.
        memory_bytes: of the large memory (HBM or DRAM).
        memory_bandwidth: of it, in bytes a second.
        link_bandwidth: of one link to a neighbour, in bytes a second and direction.
        torus_axes: of the network: 3 for a 3D torus, 2 for a 2D torus; 0 where chips are joined by
            switches, and `links` of them leave each chip.
        links: how many leave a chip.
        linked_chips: the most that such links join; what is beyond goes through a network that is
            not planned. None: any number.
        chips_per_host: that share a host.
        clock_hz: of the matrix unit.
        array_size: rows and columns of one matrix unit.
        arrays: matrix units.
        vector_lanes: one-dimensional units, for softmax.
        on_chip_bytes: memory on the chip that software addresses.
        on_chip_bandwidth: of it, in bytes a second.
        watts: mean power of chip and memory while it runs.
        idle_watts: while it does not.
        sources: of each constant: where it is found. Tags as in the literature's sheets: [P] the
            maker's paper, [D] derived, [S] another source, [G] general knowledge.
    """

    name: str
    bf16_flops: float
    int8_ops: float | None = None
    sparse_speedup: float = 1.0
    memory_bytes: float
    memory_bandwidth: float
    link_bandwidth: float | None = None
    torus_axes: int = 0
    links: int = 0
    linked_chips: int | None = None
    chips_per_host: int | None = None
    clock_hz: float | None = None
    array_size: int | None = None
    arrays: int | None = None
    vector_lanes: int | None = None
    on_chip_bytes: float | None = None
    on_chip_bandwidth: float | None = None
    watts: float | None = None
    idle_watts: float | None = None
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            zero_is_right = field.name in ("torus_axes", "links")
            numeric = isinstance(value, int | float)
            if numeric and not (value > 0 or (zero_is_right and value == 0)):
                raise ValueError(f"{field.name} of a chip needs to be positive, got {value}")
        if self.torus_axes not in (0, 2, 3):
            raise ValueError(f"torus_axes of a chip needs 0, 2 or 3, got {self.torus_axes}")
        names = {field.name for field in dataclasses.fields(self)} - {"name", "sources"}
        if unknown := set(self.sources) - names:
            raise ValueError(f"sources of a chip names {sorted(unknown)}, which are no constants")

    @property
    def ridge(self) -> float:
        """FLOPs a byte of memory above which bf16 products are bound by the peak."""
        return self.bf16_flops / self.memory_bandwidth

    @property
    def links_bandwidth(self) -> float:
        """Bytes a second that leave a chip over all its links; 0 where none are known."""
        return self.links * (self.link_bandwidth or 0.0)

    def check_linked(self, chips: int) -> None:
        """Raises where so many chips are not joined by links of their own.

        Raises:
            ValueError: they are too many, or no links are known; it says what would do.
        """
        if chips > 1 and not self.links_bandwidth:
            raise ValueError(
                f"No links of {self.name} are known, so that one chip is all there can be; give "
                "link_bandwidth and links in a YAML file of chips."
            )
        if self.linked_chips is not None and chips > self.linked_chips:
            raise ValueError(
                f"Links join at most {self.linked_chips} {self.name}, and {chips} are more: the "
                "network beyond is not planned; take fewer chips, or narrower elements."
            )


def read_chips(file: str | pathlib.Path) -> dict[str, Chip]:
    """Reads a YAML file of chips: a mapping from each name to the fields of `Chip`.

    Raises:
        ValueError: the file cannot be read, or a field is unknown, missing or malformed; all faults
            are named.
    """
    return read_named(Chip, read_yaml(file, "chips"), "chips", str(file))


@functools.cache
def builtin_chips() -> Mapping[str, Chip]:
    """The chips that are known without a file, by name."""
    return read_named(Chip, builtin_yaml("chips.yaml"), "chips", "chips.yaml")


def find_chip(name: str, more: Mapping[str, Chip] | None = None) -> Chip:
    """A chip by its name.

    Args:
        name: such as `tpu-v4`.
        more: chips of the user's own, which come before those built in.

    Raises:
        ValueError: there is none of that name.

    Example:
        >>> round(find_chip("tpu-v4").ridge)
        229
    """
    known = {**builtin_chips(), **(more or {})}
    return find_known("chip", name, known, "Others are described in a YAML file.")
