"""What a training run is, as a value: frozen, checked when it is made, read from YAML."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import yaml

from gossamer import plain
from gossamer.models import (
    DecoderConfig,
    LlamaConfig,
    ModelConfig,
    OptConfig,
    T5Config,
    ViTConfig,
    parameter_shapes,
)
from gossamer.recipe import KINDS as RECIPE_KINDS
from gossamer.recipe import Recipe
from gossamer.sparsity import methods
from gossamer.sparsity.methods import Method
from gossamer.sparsity.methods.method import Selection
from gossamer.sparsity.schedules import Cubic, Exponential, Linear, Periodic, Staircase
from gossamer.training.aware import quantize_aware
from gossamer.training.optimizers import OPTIMIZERS, AdamW, Optimizer, chain

_METHODS = {
    name: kind
    for name in methods.__all__
    if issubclass(kind := getattr(methods, name), Method) and kind is not Method
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is learned from.

    Attributes:
        text: a text file, perhaps `.gz` or `.xz`; or `python`, the sources of this Python's
            standard library, which every machine has.
        tokenizer: `bytes`, whose 256 tokens are those of UTF-8; or a model's folder with a
            tokenizer.json.
        held_out: the share of the tokens, at the end, that is evaluated on and not learned from.
    """

    text: str = "python"
    tokenizer: str = "bytes"
    held_out: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ValueError(f"DataConfig needs 0 < held_out < 1, got held_out={self.held_out}.")

    def at(self, source: str) -> "DataConfig":
        """The same of another text."""
        return dataclasses.replace(self, text=source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Pairs of texts to learn from: what an encoder-decoder reads, and what it is to write.

    Attributes:
        pairs: a text file with a pair a line, its two columns with a tab between them, perhaps
            `.gz` or `.xz`. None must be replaced before the run.
        tokenizer: a model's folder with a tokenizer.json; None learns one from the pairs.
        vocab_size: tokens of the tokenizer that is learned.
        held_out: the share of the sources, chosen by a hash, that is evaluated on and not learned
            from.
    """

    pairs: str | None = None
    tokenizer: str | None = None
    vocab_size: int = 4096
    held_out: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ValueError(f"PairsConfig needs 0 < held_out < 1, got held_out={self.held_out}.")

    def at(self, source: str) -> "PairsConfig":
        """The same of another file."""
        return dataclasses.replace(self, pairs=source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagesConfig:
    """Labelled images to learn from.

    Attributes:
        images: a folder with a sub-folder of files for each class; an `.npz` with `x` and `y`; or
            `digits`, scikit-learn's, which come with it.
        size: height and width that files are resized to; None takes them as they are.
        channels: of files, 1 or 3.
        held_out: the share of each class that is evaluated on and not learned from, the same in
            every run.
    """

    images: str = "digits"
    size: tuple[int, int] | None = None
    channels: Literal[1, 3] = 3
    held_out: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ValueError(f"ImagesConfig needs 0 < held_out < 1, got held_out={self.held_out}.")

    def at(self, source: str) -> "ImagesConfig":
        """The same of other images."""
        return dataclasses.replace(self, images=source)


Data: TypeAlias = DataConfig | PairsConfig | ImagesConfig

KINDS: dict[str, type] = (
    RECIPE_KINDS
    | _METHODS
    | {
        kind.__name__: kind
        for kind in (
            *OPTIMIZERS,
            *(LlamaConfig, OptConfig, T5Config, ViTConfig),
            *(PairsConfig, ImagesConfig),
            *(Periodic, Cubic, Linear, Exponential, Staircase),
        )
    }
)
"""What a `type` in the plain data of a training run may name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """Training as if weights, and perhaps activations, were quantized; see `quantize_aware`.

    Attributes:
        recipe: which weights, and how. Under a sparse-training method its patterns are left out:
            the method says what is pruned.
        multiply: integers or rounded floats.
        activation_scale: a scale a row of activations or one for all.
    """

    recipe: Recipe
    multiply: Literal["native", "fake"] = "native"
    activation_scale: Literal["row", "tensor"] = "row"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How devices share the work: `data * fsdp` of them.

    Attributes:
        data: replicas; each takes its part of a batch. None takes the devices that `fsdp` leaves.
        fsdp: parts in which parameters, moments and masks are kept; each takes a part of a batch.
    """

    data: int | None = None
    fsdp: int = 1

    def __post_init__(self) -> None:
        if self.fsdp < 1 or (self.data is not None and self.data < 1):
            raise ValueError(f"A mesh needs axes of 1 or more, got {self.data} x {self.fsdp}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A training run.

    Attributes:
        model: its sizes.
        data: what it learns from.
        steps: optimizer steps.
        batch: sequences, rows or images of a step, on all devices together.
        context: tokens of a sequence that are predicted; of pairs, those of a row on either side,
            in which several pairs may lie. Images have none.
        optimizer: and its learning rate.
        seed: of the first weights, the order of the data and all that is drawn.
        method: a sparse-training method with its recipe; None trains dense.
        quantization: None trains in floats.
        precision: what products are computed in; the weights that are kept are float32 always.
        accumulate: parts in which a batch is computed, one after the other.
        on_nan: what a step whose gradients are not finite does: it changes nothing and is counted,
            or the run stops.
        checkpoint_every: steps from one checkpoint to the next; there is one at the end too.
        log_every: steps from one line of metrics to the next.
        evaluate_every: steps from one evaluation to the next; None evaluates at the end only.
        evaluation_windows: sequences, rows or images held out that are evaluated; None takes all.
        mesh: how devices share the work.
        peak_flops: what all devices together could do, in FLOPs a second; with it the metrics have
            the model-FLOPs utilization.

    Raises:
        ValueError: with all faults, those of methods and recipes on this model included.
    """

    model: ModelConfig
    data: Data = dataclasses.field(default_factory=DataConfig)
    steps: int
    batch: int
    context: int | None = None
    optimizer: Optimizer = dataclasses.field(default_factory=AdamW)
    seed: int = 0
    method: Method | None = None
    quantization: QuantizationConfig | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    accumulate: int = 1
    on_nan: Literal["skip", "stop"] = "stop"
    checkpoint_every: int = 1000
    log_every: int = 10
    evaluate_every: int | None = None
    evaluation_windows: int | None = 256
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "accumulate", "checkpoint_every", "log_every")
        optional = ("context", "evaluate_every", "evaluation_windows")
        faults = [
            f"{name} must be 1 or more, got {value}"
            for name in (*counts, *optional)
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if self.peak_flops is not None and not self.peak_flops > 0:
            faults.append(f"peak_flops must be above 0, got {self.peak_flops}")
        if self.accumulate > 0 and self.batch % self.accumulate:
            faults.append(f"a batch of {self.batch} is not cut in {self.accumulate} equal parts")
        faults += _faults_of_kind(self)
        if self.optimizer.warmup >= max(self.steps, 1):
            faults.append(f"a warm-up of {self.optimizer.warmup} steps leaves none of {self.steps}")
        if self.precision == "bfloat16" and self.quantization is not None:
            faults.append("quantized products are in float32: precision bfloat16 is without them")
        if getattr(self.method, "drive", "step") != "step":
            faults.append(
                f"{type(self.method).__name__} is driven by the host, and the loop's step drives "
                "masks itself; use drive='step'"
            )
        faults += _faults_on_model(self)
        if faults:
            raise ValueError("The training run cannot be: " + "; ".join(faults) + ".")

    @property
    def length(self) -> int:
        """Predictions of an example: its tokens, or one class of an image."""
        return 1 if self.context is None else self.context

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, defaults too; `from_dict` reads it back equal."""
        return plain.to_plain(self, KINDS, defaults=True)

    @classmethod
    def from_dict(cls, data: object) -> "TrainingConfig":
        """Reads a mapping of plain data with the field names of these classes.

        Raises:
            ValueError: no mapping, an unknown or missing field or a bad value; all faults are
                listed.
        """
        special = {Selection: _read_recipe, Recipe: _read_recipe, Data: _read_data}
        reader = plain.Reader(KINDS, special)
        config = reader.build(cls, data, "training")
        if reader.faults:
            raise ValueError("The training file is not valid: " + "; ".join(reader.faults) + ".")
        return config

    @classmethod
    def from_file(cls, file: str | pathlib.Path) -> "TrainingConfig":
        """Reads a YAML file.

        Raises:
            ValueError: the file is not there or no YAML, or its content is not valid.
        """
        file = pathlib.Path(file)
        try:
            data = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"The training file {file} cannot be read: {error}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"The training file {file} is not valid YAML: {error}.") from error
        try:
            return cls.from_dict(data)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error


RESUMABLE = frozenset(
    {
        *("checkpoint_every", "log_every", "evaluate_every", "evaluation_windows"),
        *("mesh", "on_nan", "peak_flops"),
    }
)
"""Fields that may be others when a run is resumed: they change no weight, but for `mesh`, by the
order in which floats are summed."""


def differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """The fields in which two runs' plain data differ, each with both values.

    Example:
        >>> print(*differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}))
        a.b: 1, not 3
    """
    found = []
    for name in dict.fromkeys((*stored, *wanted)):
        old, new = stored.get(name), wanted.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}: {old!r}, not {new!r}")
    return found


def _read_recipe(reader: plain.Reader, value: Any, where: str) -> Recipe | None:
    """A preset's name, a file, or the recipe itself."""
    if not isinstance(value, str):
        return reader.build(Recipe, value, where)
    try:
        return Recipe.load(value)
    except ValueError as error:
        reader.faults.append(f"{where}: {error}".rstrip("."))
        return None


def _read_data(reader: plain.Reader, value: Any, where: str) -> Data | None:
    """A text, unless a `type` says otherwise."""
    kinds = {kind.__name__: kind for kind in (PairsConfig, ImagesConfig)}
    if isinstance(value, Mapping) and "type" in value:
        return reader.tagged(kinds, value, where)
    return reader.build(DataConfig, value, where)


_LEARNERS: dict[type, tuple[Any, str]] = {
    DataConfig: (DecoderConfig, "a text, which language models continue"),
    PairsConfig: (T5Config, "pairs of texts, which an encoder-decoder translates"),
    ImagesConfig: (ViTConfig, "images, which a vision transformer classifies"),
}


def _faults_of_kind(config: TrainingConfig) -> list[str]:
    """What model and data have against each other."""
    model = config.model
    learner, what = _LEARNERS[type(config.data)]
    if not isinstance(model, learner):
        return [f"the data are {what}, and the model is a {type(model).__name__}"]
    if isinstance(config.data, ImagesConfig):
        return [] if config.context is None else ["images have no context; leave it out"]
    if config.context is None:
        return ["a context is needed: tokens of a sequence or a row"]
    if isinstance(model, DecoderConfig) and config.context > model.max_positions:
        return [
            f"a context of {config.context} is more than the model's {model.max_positions} "
            "positions"
        ]
    return []


def _faults_on_model(config: TrainingConfig) -> list[str]:
    """What method, optimizer and recipes have against the model's parameters."""
    shapes = {
        path: jax.ShapeDtypeStruct(shape, jnp.float32)
        for path, shape in parameter_shapes(config.model).items()
    }
    optimizer, method, quantization = config.optimizer, config.method, config.quantization
    attempts: list[Callable[[Any], Any]] = [
        lambda params: chain(optimizer, method, max(config.steps, 1)).init(params)
    ]
    if quantization is not None:
        attempts.append(lambda params: quantize_aware(params, quantization.recipe))

    def traced(attempt: Callable[[Any], Any], params: Any) -> None:
        attempt(params)  # what it raises is all that is asked for

    faults = []
    for attempt in attempts:
        try:
            jax.eval_shape(functools.partial(traced, attempt), shapes)
        except ValueError as error:
            faults.append(str(error).rstrip("."))
    return faults
