"""Where finished parts of a compression go: memory, or a folder that an interrupted run resumes."""

from typing import Any

from gossamer.compression.kernel import KernelReport
from gossamer.compression.one_shot import Tensors
from gossamer.loading import Checkpoint


class MemorySink:
    """Keeps all parts in memory."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._tensors: dict[str, Any] = {}

    def finished(self, part: int) -> None:
        """Nothing outlives an interruption."""

    def put(self, part: int, tensors: Tensors, reports: list[KernelReport]) -> None:
        """Keeps a part."""
        self._tensors |= tensors

    def finish(self) -> Checkpoint:
        """The model with all its weights in memory."""
        return self._checkpoint.with_tensors(self._tensors)
