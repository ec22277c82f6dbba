"""Where finished parts of a compression go: memory, or a folder that an interrupted run resumes."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gossamer import __version__
from gossamer.compression.job import Job
from gossamer.compression.kernel import KernelReport
from gossamer.compression.one_shot import Tensors
from gossamer.loading import Checkpoint, load_saved
from gossamer.packing import FolderWriter, Packed, shard_name


class MemorySink:
    """Keeps all parts in memory."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._tensors: dict[str, Any] = {}

    def finished(self, part: int) -> None:
        """Nothing outlives an interruption."""

    def put(self, part: int, tensors: Tensors, reports: list[KernelReport]) -> None:
        """Keeps a part."""
        self._tensors |= tensors

    def finish(self) -> Checkpoint:
        """The model with all its weights in memory."""
        return dataclasses.replace(
            self._job.checkpoint.with_tensors(self._tensors),
            recipe=self._job.recipe.to_dict(),
            source=provenance(self._job),
        )


class FolderSink:
    """Writes each part as a file; what an interrupted run of the same job wrote is kept.

    Args:
        job: what is done; another job's remains are not taken for its own.
        out: the folder to make.
        overwrite: whether a saved model that is there already is replaced.

    Raises:
        ValueError: `out` exists and is not to be replaced.
    """

    def __init__(self, job: Job, out: pathlib.Path, *, overwrite: bool) -> None:
        self._job, self._out = job, out
        self._writer = FolderWriter(out, job=_fingerprint(job), overwrite=overwrite)
        self._count = job.checkpoint.config.num_blocks + 1

    def finished(self, part: int) -> tuple[Tensors, list[KernelReport]] | None:
        """The tensors and reports of a part that is written already."""
        name = shard_name(part + 1, self._count)
        notes = self._writer.shards()
        if name not in notes:
            return None
        reports = [KernelReport(**note | {"shape": tuple(note["shape"])}) for note in notes[name]]
        return self._writer.read_shard(name), reports

    def put(self, part: int, tensors: Tensors, reports: list[KernelReport]) -> None:
        """Writes a part; its reports are kept with it until the end."""
        notes = [dataclasses.asdict(report) for report in reports]
        packed = {
            path: tensor
            for path, tensor in tensors.items()
            if isinstance(tensor, Packed | np.ndarray)
        }
        assert len(packed) == len(tensors), "a folder holds what is packed"
        self._writer.add_shard(shard_name(part + 1, self._count), packed, note=notes)

    def finish(self) -> Checkpoint:
        """Completes the folder, moves it to its place and opens it."""
        for name, data in self._job.checkpoint.side_files().items():
            self._writer.add_file(name, data)
        self._writer.finish(
            {"recipe": self._job.recipe.to_dict(), "provenance": provenance(self._job)}
        )
        return load_saved(self._out)


def provenance(job: Job) -> Mapping[str, str | int | float]:
    """Where a compressed model comes from: its source, and how it was compressed."""
    calibration = job.calibration.describe() if job.calibration else {}
    return {
        **job.checkpoint.source,
        "method": job.method.name,
        **{f"method_{name}": value for name, value in job.method.settings.items()},
        "seed": job.seed,
        **{f"calibration_{name}": value for name, value in calibration.items()},
    }


def _fingerprint(job: Job) -> str:
    """Equal for jobs whose results are the same bytes."""
    files = {
        name: hashlib.sha256(data).hexdigest() for name, data in job.checkpoint.side_files().items()
    }
    facts = [__version__, job.recipe.to_dict(), dict(provenance(job)), files]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
