"""Goodput: the share of a machine that does useful work although hosts fail.

A machine consists of cubes of chips; a cube works if all its hosts do. Where optical switches join
the cubes, a slice takes any that work; where cables do, it needs those of a fixed part of the
machine. All slices have the same size, and goodput counts the chips of slices that run.

Source: Jouppi et al. 2023, arXiv 2304.01433, figure 4, whose stated values this
reproduces; the model behind the figure is not printed, and this one is a reconstruction.
"""

import bisect
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from gossamer.plots import Line, line_panels

_BLOCK_HOSTS = 1 << 22  # hosts drawn at a time, so that a simulation's memory stays at some 16 MiB
_MOST_CUBES = 10_000  # that a number of spares is looked for in; no machine has as many


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine is built of; by default a TPU v4 of 64 cubes of 4 x 4 x 4 chips.

    Attributes:
        chips: in all.
        cube_chips: of a cube, which works or fails as a whole.
        host_chips: that depend on one host.

    Source: Jouppi et al. 2023, arXiv 2304.01433.
    """

    chips: int = 4096
    cube_chips: int = 64
    host_chips: int = 4

    def __post_init__(self) -> None:
        for small, large in (("host_chips", "cube_chips"), ("cube_chips", "chips")):
            part, whole = getattr(self, small), getattr(self, large)
            if part < 1 or whole < 1 or whole % part:
                raise ValueError(
                    f"A machine needs {large} to be a multiple of {small}, got {whole} and {part}."
                )

    @property
    def cubes(self) -> int:
        """Cubes in all."""
        return self.chips // self.cube_chips

    @property
    def cube_hosts(self) -> int:
        """Hosts of a cube."""
        return self.cube_chips // self.host_chips

    def cube_availability(self, host_availability: float) -> float:
        """The probability that all hosts of a cube work.

        Example:
            >>> round(Machine().cube_availability(0.99), 4)
            0.8515
        """
        _check_share("host_availability", host_availability)
        return host_availability**self.cube_hosts

    def slice_cubes(self, slice_chips: int) -> int:
        """The cubes of a slice.

        Raises:
            ValueError: the slice is not of whole cubes, or the machine is smaller.
        """
        if slice_chips < 1 or slice_chips % self.cube_chips:
            near = max(1, round(slice_chips / self.cube_chips)) * self.cube_chips
            raise ValueError(
                f"A slice is made of cubes of {self.cube_chips} chips, got {slice_chips} chips; "
                f"{near} would do."
            )
        if slice_chips > self.chips:
            raise ValueError(
                f"A slice of {slice_chips} chips needs {slice_chips - self.chips} more than the "
                f"{self.chips} of the machine."
            )
        return slice_chips // self.cube_chips


TPU_V4_MACHINE = Machine()
"""The machine of Jouppi et al. 2023: 4096 chips, 64 cubes, 1024 hosts."""


def switched_goodput(
    slice_chips: int,
    host_availability: float,
    machine: Machine = TPU_V4_MACHINE,
    *,
    spare_cubes: int = 0,
) -> float:
    r"""Expected goodput where optical switches join any cubes to slices.

    .. math:: \frac{s}{C}\, \mathrm{E} \Big[\min \Big(\lfloor U / s \rfloor,
        \lfloor (C - r) / s \rfloor \Big)\Big], \quad U \sim B(C, a^h)

    Args:
        slice_chips: of each slice; it has s cubes.
        host_availability: a, the share of time that a host works.
        machine: C cubes of h hosts.
        spare_cubes: r, that no slice is planned on: they stand in for those that fail.

    Example:
        >>> for chips in (1024, 2048, 3072):
        ...     print(round(switched_goodput(chips, 0.99), 3))
        0.747
        0.5
        0.742
    """
    cubes = machine.slice_cubes(slice_chips)
    most = _planned_cubes(machine, cubes, spare_cubes) // cubes
    running = [min(up // cubes, most) for up in range(machine.cubes + 1)]
    chances = _binomial(machine.cubes, machine.cube_availability(host_availability))
    expected = math.fsum(chance * count for chance, count in zip(chances, running, strict=True))
    return expected * cubes / machine.cubes


def confident_slices(
    slice_chips: int,
    host_availability: float,
    machine: Machine = TPU_V4_MACHINE,
    *,
    confidence: float = 0.97,
) -> int:
    """The most slices of a size that run at once with a probability, any cubes joined.

    Example:
        >>> confident_slices(1024, 0.99), confident_slices(4096, 0.999)
        (3, 0)
    """
    _check_share("confidence", confidence)
    cubes = machine.slice_cubes(slice_chips)
    chances = _binomial(machine.cubes, machine.cube_availability(host_availability))
    enough = [
        count
        for count in range(1, machine.cubes // cubes + 1)
        if math.fsum(chances[count * cubes :]) >= confidence
    ]
    return max(enough, default=0)


def confident_goodput(
    slice_chips: int,
    host_availability: float,
    machine: Machine = TPU_V4_MACHINE,
    *,
    confidence: float = 0.97,
) -> float:
    """Goodput of the slices that can be promised; see `confident_slices`."""
    count = confident_slices(slice_chips, host_availability, machine, confidence=confidence)
    return count * slice_chips / machine.chips


def static_goodput(
    slice_chips: int, host_availability: float, machine: Machine = TPU_V4_MACHINE
) -> float:
    r"""Expected goodput where a slice needs all cubes of its own fixed part of the machine.

    .. math:: a^{h s} \lfloor C / s \rfloor \frac{s}{C}

    Example:
        >>> round(static_goodput(1024, 0.99), 3)
        0.076
    """
    cubes = machine.slice_cubes(slice_chips)
    works = machine.cube_availability(host_availability) ** cubes
    return works * (machine.cubes // cubes) * cubes / machine.cubes


def spare_cubes_needed(
    slice_chips: int,
    slices: int,
    host_availability: float,
    machine: Machine = TPU_V4_MACHINE,
    *,
    confidence: float = 0.97,
) -> int:
    """Cubes beside those of the slices, for all slices to run at once with a probability.

    Args:
        slice_chips: of each slice.
        slices: that are promised.
        host_availability: the share of time that a host works.
        machine: whose cubes these are; slices and spares may be more than it has.
        confidence: the probability, below 1.

    Raises:
        ValueError: no number of spares does it, or one beyond all machines.

    Example:
        >>> spare_cubes_needed(1024, 3, 0.99)
        15
    """
    works = machine.cube_availability(host_availability)
    cubes = slices * machine.slice_cubes(slice_chips)
    if slices < 1:
        raise ValueError(f"slices needs to be 1 or more, got {slices}.")
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence needs to be 0 or more and below 1, got {confidence}.")
    if cubes > _MOST_CUBES * works:
        raise ValueError(
            f"With a host_availability of {host_availability} a cube works {100 * works:.2g} % of "
            f"the time: {cubes} of them at once take more than {_MOST_CUBES} cubes."
        )
    return bisect.bisect_left(
        range(2 * _MOST_CUBES),
        confidence,
        key=lambda spares: math.fsum(_binomial(cubes + spares, works)[cubes:]),
    )


@dataclasses.dataclass(frozen=True)
class SimulatedSlices:
    """How many slices ran, in each trial of a simulation.

    Attributes:
        running: a count for each trial.
        slice_share: of the machine's chips, in a slice.
    """

    running: np.ndarray
    slice_share: float

    @property
    def goodput(self) -> float:
        """Mean share of the chips that are in slices which run."""
        return float(self.running.mean()) * self.slice_share

    @property
    def standard_error(self) -> float:
        """Of `goodput`."""
        return float(self.running.std(ddof=1)) * self.slice_share / math.sqrt(len(self.running))

    def share_with(self, slices: int) -> float:
        """Share of the trials in which so many slices ran, or more."""
        return float((self.running >= slices).mean())


def simulate_slices(
    slice_chips: int,
    host_availability: float,
    machine: Machine = TPU_V4_MACHINE,
    *,
    switched: bool = True,
    trials: int = 10_000,
    seed: int = 0,
) -> SimulatedSlices:
    """Draws the state of every host of the machine, again and again, and counts slices.

    Args:
        slice_chips: of each slice.
        host_availability: the probability that a host works.
        machine: of which hosts are drawn.
        switched: whether any cubes make a slice; if not, slices lie one after the other.
        trials: independent states of the machine.
        seed: the same gives the same.
    """
    _check_share("host_availability", host_availability)
    cubes = machine.slice_cubes(slice_chips)
    if trials < 2:
        raise ValueError(f"A standard error needs 2 trials or more, got {trials}.")
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_HOSTS // (machine.cubes * machine.cube_hosts))
    running = []
    for start in range(0, trials, block):
        # Hosts come first: what is reduced over is then long rows, not 16 bytes.
        shape = (machine.cube_hosts, min(block, trials - start), machine.cubes)
        works = np.all(generator.random(shape, np.float32) < host_availability, axis=0)
        if switched:
            running.append(works.sum(axis=1) // cubes)
        else:
            fixed = works[:, : machine.cubes // cubes * cubes]
            running.append(fixed.reshape(len(works), -1, cubes).all(axis=-1).sum(axis=1))
    return SimulatedSlices(np.concatenate(running), cubes / machine.cubes)


def goodput_plot(
    host_availabilities: Sequence[float] = (0.99, 0.995, 0.999),
    machine: Machine = TPU_V4_MACHINE,
) -> bytes:
    """Draws goodput against the cubes of a slice, with optical switches and without, as PNG."""
    sizes = [cubes * machine.cube_chips for cubes in range(1, machine.cubes + 1)]
    switched, static = [], []
    for color, available in enumerate(host_availabilities):
        label = f"hosts {100 * available:g} % available"
        for lines, found in ((switched, switched_goodput), (static, static_goodput)):
            points = [(float(size), found(size, available, machine)) for size in sizes]
            lines.append(Line(label, points, color))
    panels = {"any cubes make a slice (optical switches)": switched, "fixed parts": static}
    return line_panels(panels, x="chips of a slice", y="goodput", title="Goodput of equal slices")


def _planned_cubes(machine: Machine, cubes: int, spare_cubes: int) -> int:
    """The cubes on which slices are planned."""
    if not 0 <= spare_cubes <= machine.cubes - cubes:
        raise ValueError(
            f"spare_cubes needs 0 to {machine.cubes - cubes}, so that a slice of {cubes} of "
            f"{machine.cubes} cubes is left, got {spare_cubes}."
        )
    return machine.cubes - spare_cubes


def _binomial(count: int, chance: float) -> list[float]:
    """The probability of each number of successes, from none to all."""
    if chance in (0, 1):
        return [float(hits == count * chance) for hits in range(count + 1)]
    # In logarithms: the number of ways is beyond a float from 1030 cubes on.
    yes, no, ways = math.log(chance), math.log1p(-chance), math.lgamma(count + 1)
    return [
        math.exp(
            ways
            - math.lgamma(hits + 1)
            - math.lgamma(count - hits + 1)
            + hits * yes
            + (count - hits) * no
        )
        for hits in range(count + 1)
    ]


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} needs 0 to 1, got {value}.")
