"""Batches of examples: shuffled, the same for a seed, and from any position on.

The input pipeline is Grain's. Every batch is a function of the seed and its number alone, and the
examples of a batch are the same for any number of processes.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import jax

if TYPE_CHECKING:
    from grain import DatasetIterator


@runtime_checkable
class Examples(Protocol):
    """What is learned from, an example at a time: an array or a tuple of arrays, shaped alike."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Batches(Iterator[Any]):
    """This process's rows of one batch after the other, without end; epochs differ in their order.

    Process p of P has the rows p, p + P, ... of every batch.

    Args:
        examples: what is learned from.
        batch: examples of a step, of all processes together.
        seed: of the order.

    Raises:
        ValueError: the batch does not divide among the processes.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch: int,
        seed: int,
        process: int | None = None,
        processes: int | None = None,
    ) -> None:
        process = jax.process_index() if process is None else process
        processes = jax.process_count() if processes is None else processes
        if batch % processes:
            raise ValueError(f"A batch of {batch} does not divide among {processes} processes.")
        import grain  # seconds, which those who only wrap weights are spared

        shuffled = grain.MapDataset.source(cast(Any, examples)).seed(seed).shuffle().repeat()
        mine = shuffled[process::processes].batch(batch // processes)
        # An example is a slice of memory: threads that read ahead would cost more than they hide.
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._iterator: DatasetIterator[Any] = iter(mine.to_iter_dataset(options))

    def __next__(self) -> Any:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """The position, as plain data."""
        return dict(self._iterator.get_state())

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        self._iterator.set_state(state)
