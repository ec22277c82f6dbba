"""Recipes: what is done to which weights, as plain data.

A recipe is an ordered list of rules. The first rule whose regular expression matches a weight's
whole path wins; what no rule matches is left alone and reported.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import yaml

from gossamer import plain
from gossamer.quantization import (
    HBFP,
    MX,
    NVFP4,
    ClipSearch,
    Codebook,
    Float8,
    Format,
    Int,
)
from gossamer.quantization.quantized import check_activations
from gossamer.sparsity import NM, Block, Channel, Pattern, Unstructured

_PATTERNS = (NM, Unstructured, Block, Channel)
_FORMATS = (Int, HBFP, MX, Float8, NVFP4, Codebook)
KINDS: dict[str, type] = {cls.__name__: cls for cls in (*_PATTERNS, *_FORMATS, ClipSearch)}
"""What a `type` in a recipe's plain data may name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What is done to the weights whose whole path matches `path`.

    Attributes:
        path: a regular expression for `re.fullmatch`, such as `layers\\..*\\.kernel`.
        pattern: which weights stay; None keeps all.
        weights: the format of the weights; None keeps their float values.
        activations: the format in which the weight's inputs are multiplied; None leaves them.
    """

    path: str
    pattern: Pattern | None = None
    weights: Format | None = None
    activations: Format | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.path)
        except re.error as error:
            raise ValueError(
                f"The rule's path {self.path!r} is no regular expression: {error}."
            ) from error
        if self.activations is not None and self.weights is None:
            raise ValueError(
                f"The rule {self.path!r} quantizes activations but not weights: an integer product "
                "needs both; name a format in `weights`."
            )
        if self.activations is not None and self.weights is not None:
            try:
                check_activations(self.activations, self.weights)
            except ValueError as error:
                raise ValueError(f"The rule {self.path!r}: {error}") from error

    def describe(self) -> str:
        """The rule's parts in words, for tables: "2:4, int4, groups of 64"."""
        parts = [str(part) for part in (self.pattern, self.weights) if part is not None]
        if self.activations is not None:
            parts.append(f"activations {self.activations}")
        return ", ".join(parts) or "left alone"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """An ordered list of rules, and the name it goes by."""

    rules: tuple[Rule, ...]
    name: str = "custom"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        if not self.rules:
            raise ValueError("A recipe needs at least one rule.")

    @classmethod
    def of(
        cls,
        path: str,
        *,
        pattern: Pattern | None = None,
        weights: Format | None = None,
        activations: Format | None = None,
    ) -> "Recipe":
        r"""A recipe of one rule; see `Rule`.

        Example:
            >>> Recipe.of(r"layers\..*\.kernel", pattern=NM(2, 4)).rules[0].describe()
            '2:4'
        """
        rule = Rule(path=path, pattern=pattern, weights=weights, activations=activations)
        return cls(rules=(rule,))

    def match(self, paths: Iterable[str]) -> dict[str, Rule]:
        """Finds each path's rule; paths that no rule matches are not in the result.

        Raises:
            ValueError: a rule matches nothing, or earlier rules take all that it matches.

        Example:
            >>> list(PRESETS["int8"].match(["layers.0.mlp.up_proj.kernel", "norm.scale",
            ...                             "embedding.kernel"]))
            ['layers.0.mlp.up_proj.kernel', 'embedding.kernel']
        """
        paths = list(paths)
        chosen: dict[str, int] = {}
        for path in paths:
            for i, rule in enumerate(self.rules):
                if re.fullmatch(rule.path, path):
                    chosen[path] = i
                    break
        used = set(chosen.values())
        if unused := [rule.path for i, rule in enumerate(self.rules) if i not in used]:
            raise ValueError(
                f"Rules {unused} of recipe {self.name!r} match no weight that an earlier rule left;"
                f" weights are named like {paths[:3]}."
            )
        return {path: self.rules[i] for path, i in chosen.items()}

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, for JSON and YAML; `from_dict` reads it back equal."""
        return {"name": self.name, "rules": [to_plain(rule) for rule in self.rules]}

    @classmethod
    def from_dict(cls, data: object) -> "Recipe":
        """Reads a mapping of plain data with the same field names as `Recipe` and `Rule`.

        Patterns and formats are mappings with a `type`, such as `{type: NM, n: 2, m: 4}`.

        Raises:
            ValueError: no mapping, an unknown or missing field or a bad value; all faults are
                listed.
        """
        reader = plain.Reader(KINDS)
        recipe = reader.build(cls, data, "recipe")
        if reader.faults:
            raise ValueError("The recipe is not valid: " + "; ".join(reader.faults) + ".")
        return recipe

    @classmethod
    def load(cls, source: "str | pathlib.Path | Recipe") -> "Recipe":
        """A preset by its name, or a recipe from a YAML (or JSON) file.

        Raises:
            ValueError: neither a preset nor a file, or the file is not a valid recipe.

        Example:
            >>> Recipe.load("2:4-int4").rules[0].describe()
            '2:4, int4, groups of 64, bfloat16 scales'
        """
        if isinstance(source, Recipe):
            return source
        if str(source) in PRESETS:
            return PRESETS[str(source)]
        file = pathlib.Path(source)
        if not file.is_file():
            raise ValueError(
                f"{str(source)!r} is neither a recipe file nor a preset; presets: {list(PRESETS)}."
            )
        try:
            data = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"The recipe file {file} is not valid YAML: {error}.") from error
        try:
            recipe = cls.from_dict(data)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        return recipe if "name" in data else dataclasses.replace(recipe, name=file.stem)


def to_plain(value: Any) -> Any:
    """A pattern, a format or a rule as a mapping of its fields that differ from their defaults.

    Example:
        >>> to_plain(Int(4, group=64))
        {'type': 'Int', 'bits': 4, 'group': 64}
    """
    return plain.to_plain(value, KINDS)


def format_from_plain(data: object) -> Format:
    """Reads back a format that `to_plain` wrote.

    Raises:
        ValueError: an unknown type or field, or a bad value; all faults are listed.
    """
    reader = plain.Reader(KINDS)
    format = reader.tagged({cls.__name__: cls for cls in _FORMATS}, data, "format")
    if reader.faults:
        raise ValueError("; ".join(reader.faults))
    return format


_BLOCKS = r"(\w+\.)?layers\..*\.kernel"
_ENDS = r"(embedding|output|patch_embedding|head)\.kernel"
_INT4 = Int(4, group=64, scale="bfloat16")
_INT2 = Int(2, group=64, scale="bfloat16")


def _preset(
    name: str,
    pattern: Pattern | None,
    weights: Format | None,
    activations: Format | None = None,
) -> Recipe:
    """Blocks as told; the two ends as int8, a scale for each token of the vocabulary or class."""
    rules = (
        Rule(path=_BLOCKS, pattern=pattern, weights=weights, activations=activations),
        Rule(path=_ENDS, weights=Int(8)),
    )
    return Recipe(name=name, rules=rules if weights else rules[:1])


PRESETS: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _preset("int8", None, Int(8)),
        _preset("int4", None, _INT4),
        _preset("int2", None, _INT2),
        _preset("2:4", NM(2, 4), None),
        _preset("2:4-int8", NM(2, 4), Int(8)),
        _preset("2:4-int4", NM(2, 4), _INT4),
        _preset("4:8", NM(4, 8), None),
        _preset("4:8-int4", NM(4, 8), _INT4),
        _preset("1:4-int4", NM(1, 4), _INT4),
        _preset("1:4-int2", NM(1, 4), _INT2),
        _preset("50%", Unstructured(0.5), None),
        _preset("mxfp8", None, MX("e4m3")),
        _preset("mxfp6", None, MX("e2m3")),
        _preset("mxfp4", None, MX("e2m1")),
        _preset("nvfp4", None, NVFP4()),
        _preset("hbfp8", None, HBFP(8)),
        _preset("2:4-mxfp4", NM(2, 4), MX("e2m1")),
        _preset("w8a8", None, Int(8), activations=Int(8)),
    )
}
"""Recipes by name. With a weight format, the kernels of the two ends, such as embedding and output,
become int8 with a scale for each token or class; without one they are left alone."""
