"""The model that a question is about, and what its weights are stored as."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gossamer.cli.console import WrongUseError, arguments
from gossamer.cli.plan.chip import ChipCommand

if TYPE_CHECKING:
    from gossamer.planning import Bits, ModelShape, Weights
    from gossamer.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCommand(ChipCommand):
    """A question about a model on a kind of chip."""

    model_file: Path | None = None
    """YAML file with more models: their names, and under each its sizes."""

    def found_model(
        self, name: str, others: "Mapping[str, ModelShape] | None" = None
    ) -> "tuple[ModelShape, Recipe | None]":
        """Sizes of a model, and the recipe that it is stored by if gossamer compressed it.

        Args:
            name: of sizes that are known, a `config.json` of Hugging Face, or a model as the other
                commands take it.
            others: that this question knows too; sizes of --model-file come before them.
        """
        from gossamer.planning import builtin_shapes, find_shape, read_shapes

        with arguments():
            more = dict(others or {})
            if self.model_file is not None:
                more |= read_shapes(self.model_file)
            known = name in more or name in builtin_shapes()
            if known or not (name == "smollm2" or "/" in name or Path(name).exists()):
                return find_shape(name, more), None
            return _read(name)


def chosen_weights(
    bits: "Bits | None", recipe: str | None, own: "Recipe | None" = None
) -> "Weights":
    """What weights are stored as: what is given, else as the model is, else bf16.

    Raises:
        WrongUseError: both are given, or there is no such recipe.
    """
    from gossamer.recipe import Recipe

    if bits is not None and recipe is not None:
        raise WrongUseError("Give either --weights or --recipe: a recipe says all of the weights.")
    if recipe is not None:
        with arguments():
            return Recipe.load(recipe)
    return bits or own or "bf16"


def _read(source: str) -> "tuple[ModelShape, Recipe | None]":
    from gossamer.data.json_files import read_json
    from gossamer.loading import load
    from gossamer.models import config_from_hf
    from gossamer.planning import shape_of
    from gossamer.recipe import Recipe

    path = Path(source)
    if path.suffix == ".json":
        return shape_of(config_from_hf(read_json(path)), path.parent.name or path.stem), None
    checkpoint = load(source)
    recipe = None if checkpoint.recipe is None else Recipe.from_dict(checkpoint.recipe)
    return shape_of(checkpoint.config, path.name), recipe
