"""The loop: batches in, a trained model out, with metrics and checkpoints on the way."""

import bisect
import dataclasses
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from gossamer.training.checkpoints import Checkpoints
from gossamer.training.config import TrainingConfig
from gossamer.training.corpora import Corpus, read_corpus
from gossamer.training.flops import model_flops, patterns_of
from gossamer.training.metrics import MetricsWriter
from gossamer.training.pipeline import Batches
from gossamer.training.sharding import check_batch, make_mesh, put_batch
from gossamer.training.step import Params, Step, TrainState

TIMES = (
    *("seconds", "tokens_per_second", "images_per_second"),
    *("flops_per_second", "utilization"),
)
"""Metrics that differ between two runs of the same settings; all others are equal."""


class Evaluation(NamedTuple):
    """On what is held out: the loss in nats a prediction, and the share that was the likeliest."""

    loss: float
    accuracy: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run ended with.

    Attributes:
        params: what was trained, by path; dense where the method keeps dense weights.
        weights: what the model runs with: with zeros where the method prunes.
        state: all of the training state.
        evaluation: loss on what is held out, in nats a prediction.
        accuracy: the share of these predictions that were the likeliest.
        skipped: steps that changed nothing, since their gradients were not finite.
        history: metrics of the logged steps of this run, the steps before a resume left out.
    """

    params: Params
    weights: Params
    state: TrainState
    evaluation: float
    accuracy: float
    skipped: int
    history: list[dict[str, int | float]]


def train(
    config: TrainingConfig,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    corpus: Corpus | None = None,
    params: Mapping[str, Any] | None = None,
    progress: Callable[[str, int], Callable[[], None]] = lambda name, steps: lambda: None,
) -> Trained:
    """Trains a model of ours.

    A step is a function of the state, its number and the seed, so a run that is killed and resumed
    ends with the same bits as one that is not, on as many devices.

    Args:
        config: what is to be done.
        folder: for checkpoints, `metrics.jsonl` and TensorBoard's `events`; None writes nothing.
        resume: goes on from the latest checkpoint in `folder`, or begins if there is none.
        corpus: data that are read already; None reads the config's.
        params: weights to begin with, by path; None draws them from the seed.
        progress: called with a name and how many steps there are; what it returns is called after
            each step.

    Warns where the run ends before its method has every pattern in full.

    Raises:
        ValueError: the data or the devices do not do, the folder holds a run and is not to be
            resumed or has other settings, or a gradient is not finite and `on_nan` says stop.
    """
    warn_of_an_early_end(config)
    folder = None if folder is None else Path(folder)
    mesh = make_mesh(config.mesh)
    check_batch(config.batch, config.accumulate, mesh)
    corpus = read_corpus(config.data) if corpus is None else corpus
    corpus.check(config)
    checkpoints = Checkpoints(None if folder is None else folder / "checkpoints", config)
    done = checkpoints.latest()
    try:
        if done is not None and not resume:
            raise ValueError(
                f"{folder} holds a run of {done} steps: resume it, or train into another folder."
            )
        step = Step(config, mesh)
        batches = Batches(corpus.examples(config), batch=config.batch, seed=config.seed)
        if done is None:
            state = step.init(params)
        else:
            state, position = checkpoints.restore(done, step.abstract())
            batches.set_state(position)
        writer = MetricsWriter(folder if jax.process_index() == 0 else None, step=done or 0)
        run = _Run(config, step, batches, corpus, checkpoints, writer)
        try:
            done = done or 0
            return run.go(state, done, progress("training", config.steps - done))
        finally:
            writer.close()
    finally:
        checkpoints.close()


def warn_of_an_early_end(config: TrainingConfig) -> None:
    """Warns the caller's caller where what a run saves may be denser than its pattern.

    It computes, so it is no part of making a config: presets are made when they are imported, which
    must leave JAX as it is for `start_processes`.
    """
    method, steps = config.method, config.steps
    if method is None:
        return
    for path, pattern in patterns_of(method, config.model).items():
        if method.settled(pattern, steps):
            continue
        settled = functools.partial(method.settled, pattern)
        first = bisect.bisect_left(range(2**30), True, lo=steps, key=settled)
        name = type(method).__name__
        warnings.warn(
            f"The run ends after {steps} steps, and {name} may not have {path} at {pattern} before "
            f"step {first}: what is saved would be denser. Train for {first} steps or more, or let "
            f"{name} come to its end earlier.",
            stacklevel=3,
        )
        return


class _Run:
    """One run in progress."""

    def __init__(
        self,
        config: TrainingConfig,
        step: Step,
        batches: Batches,
        corpus: Corpus,
        checkpoints: Checkpoints,
        writer: MetricsWriter,
    ) -> None:
        self.config, self.step, self.batches = config, step, batches
        self.held_out = corpus.evaluation(config)
        self.checkpoints, self.writer = checkpoints, writer
        self.history: list[dict[str, int | float]] = []
        self.began = (0.0, 0)  # when, and at which step, the last line of metrics was written
        self.flops = 3 * config.batch * model_flops(config.model, config.length)

    def go(self, state: TrainState, done: int, advance: Callable[[], None]) -> Trained:
        """Does what is left of the steps."""
        config, evaluation = self.config, None
        self.began = (time.perf_counter(), done)
        waiting: tuple[int, dict[str, Array]] | None = None
        for number in range(done, config.steps):
            batch = put_batch(self.step.mesh, next(self.batches))
            state, metrics = self.step(state, batch)
            # Read a step late: the device has its next step already when the host waits.
            if waiting is not None:
                self._note(*waiting)
            waiting = (number, metrics)
            evaluation = None
            if self._is_due(number + 1, config.evaluate_every):
                evaluation = self._evaluate(state, number + 1)
            if self._is_due(number + 1, config.checkpoint_every):
                self._note(*waiting)
                waiting = None
                self.checkpoints.save(number + 1, state, self.batches.get_state())
            advance()
        if waiting is not None:
            self._note(*waiting)
        if evaluation is None:
            # A finished run that is resumed has its line already.
            evaluation = self._evaluate(state, config.steps, write=done < config.steps)
        self.checkpoints.save(config.steps, state, self.batches.get_state())
        return Trained(
            params=state.params,
            weights=self.step.gathered(state),
            state=state,
            evaluation=evaluation.loss,
            accuracy=evaluation.accuracy,
            skipped=int(state.skipped),
            history=self.history,
        )

    def _is_due(self, step: int, every: int | None) -> bool:
        return every is not None and step % every == 0

    def _note(self, number: int, metrics: Mapping[str, Array]) -> None:
        """Logs a step, if it is one to log; raises where its gradients were not finite."""
        step, config = number + 1, self.config
        if config.on_nan == "stop" and not bool(metrics["finite"]):
            raise ValueError(
                f"The gradients of step {step} are not finite (loss {float(metrics['loss'])}): "
                "weights are as they were before it. A lower learning rate, a longer warm-up or a "
                "smaller clip may help; on_nan: skip goes on without such steps."
            )
        if not self._is_due(step, config.log_every):
            return
        values = {name: float(value) for name, value in metrics.items() if name != "finite"}
        values["skipped"] = 0.0 if bool(metrics["finite"]) else 1.0
        now = time.perf_counter()
        then, before = self.began
        self.began = (now, step)
        rate = (step - before) / max(now - then, 1e-9)
        values["seconds"] = (now - then) / (step - before)
        name = "images_per_second" if config.context is None else "tokens_per_second"
        values[name] = rate * config.batch * config.length
        values["flops_per_second"] = rate * self.flops
        if config.peak_flops is not None:
            values["utilization"] = rate * self.flops / config.peak_flops
        self.history.append({"step": step, **values})
        self.writer.write(step, values)

    def _evaluate(self, state: TrainState, step: int, *, write: bool = True) -> "Evaluation":
        """What the model, with the weights that it runs with, makes of what is held out."""
        sums, counts, correct = 0.0, 0.0, 0.0
        for batch, rows in self._evaluation_batches():
            losses = jax.tree.map(
                lambda each, rows=rows: float(np.asarray(each, np.float64)[:rows].sum()),
                self.step.losses(state, batch),
            )
            sums, counts = sums + losses.sums, counts + losses.counts
            correct += losses.correct
        found = Evaluation(loss=sums / counts, accuracy=correct / counts)
        if write:
            self.writer.write(
                step,
                {
                    "evaluation_loss": found.loss,
                    "evaluation_accuracy": found.accuracy,
                    "bits_per_token": found.loss / math.log(2),
                },
            )
        return found

    def _evaluation_batches(self) -> Iterator[tuple[Any, int]]:
        """Batches of one size, the last padded, and how many of their rows count."""
        size = self.config.batch
        share = size // jax.process_count()
        total = len(jax.tree.leaves(self.held_out)[0])
        for start in range(0, total, size):
            rows = np.arange(start, min(start + size, total))
            mine = np.resize(rows, size)[jax.process_index() * share :][:share]
            batch = jax.tree.map(lambda leaf, mine=mine: leaf[mine], self.held_out)
            yield put_batch(self.step.mesh, batch), len(rows)
