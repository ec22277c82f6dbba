"""Runs the cells of a grid on a model under one protocol.

Every cell is compressed one-shot from the dense model and measured on the same windows. All kernels
of all blocks take part, if every format and pattern of the catalogue suits them; embedding, output
and norms never do. Both orders go the same way but for the order.
"""

import dataclasses
import functools
import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gossamer import __version__
from gossamer.compression.calibration import Calibration
from gossamer.compression.interplay.catalogue import FORMATS, PATTERNS
from gossamer.compression.interplay.cells import DENSE, Cell, Result
from gossamer.compression.interplay.depth import DepthErrors
from gossamer.compression.interplay.errors import relative_error
from gossamer.compression.interplay.journal import Journal
from gossamer.compression.interplay.orders import Order, quantize_then_sparsify
from gossamer.compression.job import Job
from gossamer.compression.kernel import KernelReport
from gossamer.compression.measure import Progress
from gossamer.compression.methods import Method, Wanda, magnitude_mask, make_method
from gossamer.compression.methods.method import Solved, Task
from gossamer.compression.methods.prune import task_mask
from gossamer.compression.one_shot import run
from gossamer.compression.sinks import MemorySink
from gossamer.evaluation import check_windows, perplexity
from gossamer.loading import Checkpoint
from gossamer.models import decoder_config
from gossamer.packing import check_packable, stored_bytes
from gossamer.quantization import Format, Quantized
from gossamer.recipe import Recipe, Rule
from gossamer.weights import materialize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A model and the texts on which all cells are compressed and measured.

    Attributes:
        checkpoint: the dense model.
        text: name of the text that is predicted.
        tokens: its windows.
        calibration: the text whose activations guide Wanda and SparseGPT.

    Raises:
        ValueError: the model is compressed already, or none of its kernels suits the catalogue;
            windows or calibration sequences are not for it.
    """

    checkpoint: Checkpoint
    text: str
    tokens: Int[np.ndarray, "windows context"]
    calibration: Calibration

    def __post_init__(self) -> None:
        name = self.checkpoint.source.get("name")
        limit = decoder_config(self.checkpoint.config).max_positions
        if self.checkpoint.recipe is not None:
            raise ValueError(
                f"Model {name!r} is compressed already; a grid starts from the dense model."
            )
        check_windows(self.checkpoint, self.tokens)
        if (length := self.calibration.tokens.shape[1]) > limit:
            raise ValueError(
                f"Calibration sequences of {length} tokens are longer than the {limit} positions "
                "of this model."
            )
        if not self.kernels:
            raise ValueError(
                f"Model {name!r} has no kernel in its blocks that every format and pattern suits: "
                + "; ".join(f"{path}: {why}" for path, why in list(self.left_out.items())[:3])
            )

    @functools.cached_property
    def left_out(self) -> Mapping[str, str]:
        """Kernels of the blocks that take part in no cell, and why."""
        return {path: why for path, why in self._kernels() if why is not None}

    @functools.cached_property
    def kernels(self) -> list[str]:
        """Kernels of the blocks that take part in every cell."""
        return [path for path, why in self._kernels() if why is None]

    def _kernels(self) -> Iterable[tuple[str, str | None]]:
        for path in self.checkpoint.paths:
            if re.fullmatch(r"layers\..*\.kernel", path):
                yield path, _why_not(self.checkpoint.tensors[path].shape)

    @functools.cached_property
    def dense(self) -> Checkpoint:
        """The model with all weights in memory, from where every cell takes them."""
        weights = {path: self.checkpoint.read(path) for path in self.checkpoint.paths}
        return self.checkpoint.with_tensors(weights)

    @functools.cached_property
    def reference(self) -> list[Float[np.ndarray, "B T D"]]:
        """Hidden states of the dense model: behind the embedding, then behind each block."""
        states: list[np.ndarray] = []
        perplexity(self.dense, self.tokens, watch=lambda hidden: states.append(np.asarray(hidden)))
        return states

    def protocol(self) -> dict[str, Any]:
        """All that decides a result besides the cell, as plain data."""
        windows, context = self.tokens.shape
        return {
            "gossamer": __version__,
            "model": dict(self.checkpoint.source),
            "text": self.text,
            "windows": windows,
            "context": context,
            "tokens_sha256": hashlib.sha256(self.tokens.astype("<i4").tobytes()).hexdigest(),
            "calibration": self.calibration.describe(),
            "kernels": len(self.kernels),
            "left_out": dict(self.left_out),
        }


def run_grid(
    experiment: Experiment, cells: Iterable[Cell], journal: Journal, progress: Progress
) -> list[Result]:
    """Runs what the journal does not hold yet.

    Args:
        experiment: model, texts and protocol.
        cells: what is wanted.
        journal: takes each cell when it is finished.
        progress: see `Progress`.

    Returns:
        The results of all cells that are wanted, in their order.

    Raises:
        ValueError: a cell cannot be compressed or gives no finite likelihood; it is named.
    """
    cells = list(cells)
    todo = [cell for cell in cells if cell not in journal.results]
    advance = progress(f"{len(cells)} cells, {len(cells) - len(todo)} done before", len(todo))
    for cell in todo:
        try:
            journal.append(run_cell(experiment, cell))
        except ValueError as error:
            raise ValueError(f"Cell {cell.label!r}: {error}") from error
        advance()
    return [journal.results[cell] for cell in cells]


def run_cell(experiment: Experiment, cell: Cell) -> Result:
    """Compresses the model as the cell says and measures it."""
    start = time.perf_counter()
    compressed = compress_cell(experiment, cell)
    depth = DepthErrors(experiment.reference)
    found = perplexity(compressed, experiment.tokens, watch=depth.watch)
    kernel_bytes, model_bytes = _sizes(experiment, cell)
    shapes = [experiment.checkpoint.tensors[path].shape for path in experiment.kernels]
    return Result(
        cell=cell,
        losses=found.losses,
        bits_per_weight=8 * kernel_bytes / sum(size * out for size, out in shapes),
        model_bytes=model_bytes,
        weight_error=_weight_error(experiment, compressed),
        depth_relative=tuple(depth.relative),
        depth_absolute=tuple(depth.absolute),
        seconds=time.perf_counter() - start,
    )


def compress_cell(experiment: Experiment, cell: Cell) -> Checkpoint:
    """The dense model with its kernels as the cell says, in memory and unpacked.

    Raises:
        ValueError: activations are not finite on the calibration text, or a kernel overflows.
    """
    if cell == DENSE:
        return experiment.dense
    format = FORMATS[cell.format] if cell.format else None
    rule = Rule(
        path="|".join(map(re.escape, experiment.kernels)),
        pattern=PATTERNS[cell.pattern] if cell.pattern else None,
        weights=format,
        activations=format if cell.activations else None,
    )
    assert cell.method is not None
    method = make_method(cell.method, {})
    job = Job(
        checkpoint=experiment.dense,
        recipe=Recipe(name=cell.label, rules=(rule,)),
        method=method,
        calibration=experiment.calibration if method.calibrated else None,
        seed=0,
    )
    sink = MemorySink(job)
    run(job, sink, compress=functools.partial(_compress_kernel, cell.order))
    return sink.finish()


def _weight_error(experiment: Experiment, compressed: Checkpoint) -> float:
    """L2 norm of what changed in all kernels that take part, over that of them."""
    change = base = 0.0
    for path in experiment.kernels:
        before = np.asarray(experiment.dense.read(path))
        after = np.asarray(materialize(compressed.read(path)))
        change += float(np.square(after - before).sum(dtype=np.float64))
        base += float(np.square(before).sum(dtype=np.float64))
    return float(np.sqrt(change / base)) if base else 0.0


def _compress_kernel(
    order: Order | None, task: Task, method: Method
) -> tuple[Quantized | np.ndarray, KernelReport]:
    """Compresses one kernel and leaves it in the form in which it is measured: unpacked."""
    rule, shape = task.rule, task.kernel.shape
    solved = _quantize_first(task, method) if order == "qs" else method.compress(task)
    stored = stored_bytes((shape[0], shape[1]), rule.pattern, rule.weights)
    report = KernelReport(
        path=task.path,
        shape=shape,
        rule=rule.describe(),
        method=method.name,
        damping=solved.damping,
        stored="unpacked",
        bits_per_weight=8 * stored / task.kernel.size,
        sparsity=float(jnp.mean(solved.values == 0)),
        weight_error=relative_error(task.kernel, solved.values),
        output_error=None,
    )
    if rule.activations is None:
        return np.asarray(solved.values), report
    assert rule.weights is not None
    assert solved.codes is not None
    return Quantized(solved.codes, rule.weights, rule.activations), report


def _quantize_first(task: Task, method: Method) -> Solved:
    """Q->S: the method's mask is that of the rounded kernel."""
    pattern, format = task.rule.pattern, task.rule.weights
    assert pattern is not None
    assert format is not None

    def choose(kernel: Float[Array, "in out"]) -> Bool[Array, "in out"]:
        mask = None
        if isinstance(method, Wanda):
            mask = task_mask(dataclasses.replace(task, kernel=kernel))
        return magnitude_mask(kernel, pattern) if mask is None else mask

    return Solved(*quantize_then_sparsify(task.kernel, format, choose))


def _why_not(shape: tuple[int, ...]) -> str | None:
    """Why a kernel cannot take part in every cell."""
    size, out = shape
    try:
        for pattern in PATTERNS.values():
            pattern.check(shape, 0)
            for format in FORMATS.values():
                format.groups(size)
                check_packable((size, out), pattern, format)
    except ValueError as error:
        return str(error)
    return None


def _sizes(experiment: Experiment, cell: Cell) -> tuple[int, int]:
    """Bytes of the kernels that take part, and of the whole model, as they would be packed."""
    pattern = PATTERNS[cell.pattern] if cell.pattern else None
    format: Format | None = FORMATS[cell.format] if cell.format else None
    stored = functools.cache(functools.partial(stored_bytes, pattern=pattern, format=format))
    tensors = experiment.checkpoint.tensors
    kernels = sum(stored(tensors[path].shape) for path in experiment.kernels)
    rest = set(tensors) - set(experiment.kernels)
    return kernels, kernels + sum(4 * int(np.prod(tensors[path].shape)) for path in rest)
