"""What decides the result of a compression, and what is wrong with it before any weight is read."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TypeAlias, TypeVar

from gossamer.compression.calibration import Calibration
from gossamer.compression.image_calibration import ImageCalibration
from gossamer.compression.kernel import kernel_method
from gossamer.compression.methods import Method
from gossamer.compression.pair_calibration import PairCalibration
from gossamer.compression.rescale import rescalable, sources
from gossamer.loading import Checkpoint
from gossamer.models import Rescalable, T5Config, ViTConfig, block_class
from gossamer.packing import check_packable
from gossamer.recipe import Recipe, Rule

Value = TypeVar("Value")
CalibrationData: TypeAlias = Calibration | ImageCalibration | PairCalibration
"""What guides a method: tokens for a language model, images for a vision model, pairs of texts for
an encoder-decoder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """All that decides the result of a compression.

    Attributes:
        checkpoint: the dense model.
        recipe: what is done to which weights.
        method: how weights are chosen and rounded.
        calibration: the text, the images or the pairs whose activations guide the method; None
            where it needs none.
        seed: for methods that draw.
    """

    checkpoint: Checkpoint
    recipe: Recipe
    method: Method
    calibration: CalibrationData | None
    seed: int

    def rules(self) -> dict[str, Rule]:
        """Each selected kernel's rule; all faults of the recipe on this model are reported at once.

        Raises:
            ValueError: a rule matches nothing; a matched weight is no kernel; its shape does not
                suit the pattern or the groups; the method needs a calibration, or its tokens or
                images are not for the model.
        """
        if self.method.calibrated and self.calibration is None:
            raise ValueError(
                f"Method {self.method.name!r} needs {_wanted(self.checkpoint)}, or choose "
                "magnitude."
            )
        if self.calibration is not None:
            self.calibration.check(self.checkpoint.config)
        rules = select_kernels(self.checkpoint, self.recipe)
        self._check_method(rules)
        return rules

    def _check_method(self, rules: Mapping[str, Rule]) -> None:
        """Raises ValueError where the method cannot do what a rule asks for."""
        reasons: dict[str, str] = {}  # reason -> the first kernel that it is true of
        for path, rule in rules.items():
            inside = path.startswith(tuple(f"{block}." for block in self.checkpoint.config.blocks))
            method = kernel_method(self.method, inside, rule)
            if reason := method.why_not(rule):
                reasons.setdefault(reason, path)
        if reasons:
            faults = " ".join(f"{path}: {reason}" for reason, path in reasons.items())
            raise ValueError(f"Recipe {self.recipe.name!r} does not suit the method: {faults}")

    def rescaled(self, rules: Mapping[str, Rule], index: int) -> list[Rescalable]:
        """The inputs of block `index` that the method rescales."""
        config = self.checkpoint.config
        block = config.blocks[index]
        prefix = f"{block}."
        return rescalable(
            block_class(config, block).rescalable(config),
            self.method,
            {path: tensor.shape for path, tensor in within(prefix, self.checkpoint.tensors)},
            dict(within(prefix, rules)),
        )

    def rescaled_paths(self, rules: Mapping[str, Rule]) -> list[str]:
        """Parameters without a rule that rescaling changes: norms, biases, float projections."""
        changed: set[str] = set()
        for index, block in enumerate(self.checkpoint.config.blocks):
            prefix = f"{block}."
            present = [path for path, _ in within(prefix, self.checkpoint.tensors)]
            changed |= {prefix + path for path in sources(self.rescaled(rules, index), present)}
        return [path for path in self.checkpoint.paths if path in changed and path not in rules]


def _wanted(checkpoint: Checkpoint) -> str:
    """What a method is to be given that needs a calibration."""
    if isinstance(checkpoint.config, ViTConfig):
        return (
            "calibration images; give a folder with a sub-folder for each class, an .npz or the "
            "word digits (--calibration images)"
        )
    if isinstance(checkpoint.config, T5Config):
        return (
            "calibration pairs, and there are none built in; give a text file with two columns and "
            "a tab between them (--calibration pairs.tsv)"
        )
    return "a calibration text; give one"


def within(prefix: str, named: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """What lies under a prefix, by the rest of its name."""
    for path, value in named.items():
        if path.startswith(prefix):
            yield path.removeprefix(prefix), value


def select_kernels(checkpoint: Checkpoint, recipe: Recipe) -> dict[str, Rule]:
    """Each kernel that `recipe` selects, with its rule; no weight is read.

    Raises:
        ValueError: the recipe does not suit the model; all faults are named.
    """
    rules = recipe.match(checkpoint.paths)
    faults = [
        fault
        for path, rule in rules.items()
        if (fault := _fault(path, rule, checkpoint.tensors[path].shape))
    ]
    if faults:
        raise ValueError(f"Recipe {recipe.name!r} does not suit this model: " + " ".join(faults))
    return rules


def _fault(path: str, rule: Rule, shape: tuple[int, ...]) -> str | None:
    """Why `rule` cannot be done to this weight."""
    if not path.endswith(".kernel") or len(shape) != 2:
        return f"{path} {shape} is not a kernel [in, out]; narrow the rule {rule.path!r}."
    try:
        if rule.pattern is not None:
            rule.pattern.check(shape, 0)
        if rule.weights is not None:
            rule.weights.groups(shape[0])
        check_packable((shape[0], shape[1]), rule.pattern, rule.weights)
    except ValueError as error:
        return f"{path} {shape}: {error}"
    return None
