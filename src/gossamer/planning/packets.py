"""An all-to-all packet by packet, which the loads of links are held against.

The model, the same for every topology:

- Time goes in steps: a link sends one packet a step in each direction, and a packet that arrived in
  one step can leave in the next. Packets are of one size.
- Each chip sends so many packets to each other chip, in rounds: one to each, in a new random order.
- A chip has at most a window of packets in the network, and sends the next as one arrives; the
  acknowledgement takes neither time nor bandwidth.
- At each chip a packet joins the queue of one link, first come, first served, those that come in
  one step in random order. Queues have no end: the windows bound them.
- Which link is drawn, weighted by the shortest paths that go on from it: all shortest paths are
  equally likely, as link loads assume. Routes do not see queues.

Source: a reconstruction. Jouppi et al. 2023, arXiv 2304.01433, figure 6, measure with transfers of
4 KiB in a steady state, and find a twist to gain 1.63 for 4x4x8 and 1.31 for 4x8x8; routing, queues
and windows of the machine were not found. With 8 packets a pair and seed 0, windows of 16, 64 and
256 packets give 1.54, 1.70 and 1.70 for the one and 1.32, 1.38 and 1.38 for the other; link loads
give 1.745 and 1.391. Nothing here is fitted to either.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from gossamer.planning.topology import Topology

PACKET_BYTES = 4096
"""Bytes of a packet, as large as the transfers of figure 6."""
_MAX_CHIPS = 1024  # the table of next links has 6 N^2 entries
_MAX_PACKETS = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class PacketRun:
    """What happened to the packets.

    Attributes:
        chips: that took part.
        packets: that were sent, all arrived.
        steps: until the last arrived.
        middle_steps: in which the middle half of them arrived, after a quarter and before the last.
        link_packets: that each link carried; columns as those of `Topology.link_loads`.
    """

    chips: int
    packets: int
    steps: int
    middle_steps: float
    link_packets: Int[np.ndarray, "chips directions"]

    @property
    def steady_load(self) -> float:
        """Steps in which each chip sends a packet to each other one, in the steady state.

        The `max_link_load` of the topology is what it tends to as windows and the number of packets
        grow; queues that run empty make it more.
        """
        return self.middle_steps / (self.packets / 2) * self.chips * (self.chips - 1)

    def seconds(self, *, link_bandwidth: float) -> float:
        """Seconds until the last packet arrived.

        Args:
            link_bandwidth: of one link, one direction, in bytes a second.
        """
        return self.steps * PACKET_BYTES / link_bandwidth


def simulate_all_to_all(
    topology: Topology, *, packets_per_pair: int = 8, window: int = 64, seed: int = 0
) -> PacketRun:
    """Sends packets from every chip to every other.

    Args:
        topology: of 2 to 1024 chips.
        packets_per_pair: from each chip to each other one.
        window: packets that a chip may have in the network.
        seed: of the orders and routes.

    Raises:
        ValueError: the topology or the number of packets is too small or too large.

    Example:
        >>> from gossamer.planning import torus
        >>> run = simulate_all_to_all(torus((4, 4)), packets_per_pair=2)
        >>> run.packets, int(run.link_packets.sum())
        (480, 1024)
    """
    _check(topology, packets_per_pair, window)
    rng = np.random.default_rng(seed)
    traffic = _Traffic(topology, packets_per_pair, window, rng)
    arrived = [0]
    while arrived[-1] < len(traffic.targets):
        arrived.append(arrived[-1] + traffic.step())
    quarters = len(traffic.targets) * np.array([0.25, 0.75])
    first, third = np.interp(quarters, arrived, np.arange(len(arrived)))
    return PacketRun(
        chips=topology.chips,
        packets=len(traffic.targets),
        steps=len(arrived) - 1,
        middle_steps=float(third - first),
        link_packets=traffic.carried.reshape(topology.neighbours.shape),
    )


def _check(topology: Topology, packets_per_pair: int, window: int) -> None:
    if not 2 <= topology.chips <= _MAX_CHIPS:
        raise ValueError(
            f"Packets are simulated between 2 and {_MAX_CHIPS} chips, got {topology.chips}; link "
            "loads have no such limit."
        )
    if packets_per_pair < 1 or window < 1:
        raise ValueError(
            "packets_per_pair and window need to be 1 or more, got "
            f"{packets_per_pair} and {window}."
        )
    pairs = topology.chips * (topology.chips - 1)
    if packets_per_pair * pairs > _MAX_PACKETS:
        raise ValueError(
            f"{packets_per_pair} packets for each of {pairs} pairs of chips are more than "
            f"{_MAX_PACKETS}; at most {_MAX_PACKETS // pairs} fit."
        )


class _Traffic:
    """All packets, and where they are.

    A packet's number is that of its place in its chip's order, after those of the chips before. The
    packets in the queue of a link are a chain from `first` through `behind` to `last`.
    """

    def __init__(
        self, topology: Topology, packets_per_pair: int, window: int, rng: np.random.Generator
    ) -> None:
        self.rng = rng
        self.targets = _orders(topology.chips, packets_per_pair, rng)
        self.link_ends = topology.neighbours.ravel()
        self.choices = _choices(topology)
        self.each = len(self.targets) // topology.chips
        self.sent = np.zeros(topology.chips, np.int64)  # by each chip
        self.room = np.full(topology.chips, window)  # in the window of each
        self.first, self.last = np.full((2, len(self.link_ends)), -1)
        self.behind = np.full(len(self.targets), -1)
        self.carried = np.zeros(len(self.link_ends), np.int64)
        self._queue(*self._sent_now())

    def step(self) -> int:
        """Every link sends the first packet of its queue; how many arrived where they are going."""
        packets, chips = self._moved()
        done = self.targets[packets] == chips
        self.room += np.bincount(packets[done] // self.each, minlength=len(self.room))
        new, sources = self._sent_now()
        self._queue(np.concatenate([packets[~done], new]), np.concatenate([chips[~done], sources]))
        return int(done.sum())

    def _moved(self) -> tuple[Int[np.ndarray, " moved"], Int[np.ndarray, " moved"]]:
        """The packets that links send, and the chips that they come to."""
        busy = np.flatnonzero(self.first >= 0)
        packets = self.first[busy]
        self.first[busy] = self.behind[packets]
        self.carried[busy] += 1
        return packets, self.link_ends[busy]

    def _sent_now(self) -> tuple[Int[np.ndarray, " new"], Int[np.ndarray, " new"]]:
        """The packets that windows let in, and the chips that send them."""
        counts = np.minimum(self.room, self.each - self.sent)
        sources = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(sources)) - np.repeat(np.cumsum(counts) - counts, counts)
        packets = sources * self.each + self.sent[sources] + place
        self.room -= counts
        self.sent += counts
        return packets, sources

    def _queue(self, packets: Int[np.ndarray, " new"], chips: Int[np.ndarray, " new"]) -> None:
        """Appends packets to the queues of the links that they leave these chips by."""
        if not len(packets):
            return
        weights = self.choices[chips, self.targets[packets]]
        directions = (self.rng.random((len(packets), 1)) >= weights).sum(1)
        links = chips * weights.shape[1] + directions
        order = np.argsort(links + self.rng.random(len(links)))  # by link, then at random
        packets, links = packets[order], links[order]
        same = links[1:] == links[:-1]
        self.behind[packets] = -1
        self.behind[packets[:-1][same]] = packets[1:][same]
        begins = np.concatenate([[True], ~same])
        ends = np.concatenate([~same, [True]])
        queues, heads = links[begins], packets[begins]
        empty = self.first[queues] < 0
        self.first[queues[empty]] = heads[empty]
        self.behind[self.last[queues[~empty]]] = heads[~empty]
        self.last[queues] = packets[ends]


def _orders(
    chips: int, packets_per_pair: int, rng: np.random.Generator
) -> Int[np.ndarray, " packets"]:
    """Where each chip sends its packets, chip after chip, in rounds."""
    others = (np.arange(chips)[:, None] + np.arange(1, chips)) % chips
    rounds = np.repeat(others[:, None], packets_per_pair, axis=1)
    return rng.permuted(rounds, axis=2).ravel()


def _choices(topology: Topology) -> Float[np.ndarray, "chips targets directions"]:
    """For a chip and a target, how likely a packet leaves by a direction or an earlier one."""
    hops, paths = topology.shortest_paths(np.arange(topology.chips))
    onward = [
        np.where((ends >= 0)[:, None] & (hops[ends] == hops - 1), paths[ends], 0.0)
        for ends in topology.neighbours.T
    ]
    likely = np.cumsum(np.stack(onward, axis=-1), axis=-1)
    return likely / np.maximum(likely[..., -1:], 1.0)  # 0 at the target itself
