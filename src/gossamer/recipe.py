"""Recipes: what is done to which weights, as plain data.

A recipe is an ordered list of rules. The first rule whose regular expression matches a weight's
whole path wins; what no rule matches is left alone and reported.
"""

import dataclasses
import pathlib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

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
_VALUES: dict[str, type] = {cls.__name__: cls for cls in (*_PATTERNS, *_FORMATS, ClipSearch)}


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
        faults: list[str] = []
        recipe = _build(cls, data, "recipe", faults)
        if faults:
            raise ValueError("The recipe is not valid: " + "; ".join(faults) + ".")
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
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {
        field.name: to_plain(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if field.init and getattr(value, field.name) != field.default
    }
    name = type(value).__name__
    return {"type": name, **fields} if name in _VALUES else fields


def format_from_plain(data: object) -> Format:
    """Reads back a format that `to_plain` wrote.

    Raises:
        ValueError: an unknown type or field, or a bad value; all faults are listed.
    """
    faults: list[str] = []
    format = _read_tagged({cls.__name__: cls for cls in _FORMATS}, data, "format", faults)
    if faults:
        raise ValueError("; ".join(faults))
    return format


def _build(cls: type, data: Any, where: str, faults: list[str]) -> Any:
    """Makes a `cls` of a mapping; what is wrong goes to `faults` and gives None."""
    if not isinstance(data, Mapping):
        faults.append(f"{where} needs a mapping, got {data!r}")
        return None
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    before = len(faults)
    faults += [
        f"{where} has an unknown field {name!r}; it takes {list(known)}"
        for name in data
        if name not in known
    ]
    faults += [
        f"{where} lacks {name!r}"
        for name, field in known.items()
        if name not in data and field.default is dataclasses.MISSING
    ]
    values = {
        name: _read(hints[name], value, f"{where}.{name}", faults)
        for name, value in data.items()
        if name in known
    }
    if len(faults) > before:
        return None
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        faults.append(f"{where}: {error}".rstrip("."))
        return None


def _read(hint: Any, value: Any, where: str, faults: list[str]) -> Any:
    """Reads one field: a list of rules, a tagged pattern or format, or a plain scalar."""
    if hint == tuple[Rule, ...]:
        if not isinstance(value, list):
            faults.append(f"{where} needs a list of rules, got {value!r}")
            return ()
        return tuple(_build(Rule, v, f"{where}[{i}]", faults) for i, v in enumerate(value))
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else ()
    tagged = {name: value for name, value in _VALUES.items() if issubclass(value, choices)}
    if tagged and value is not None:
        return _read_tagged(tagged, value, where, faults)
    return _scalar(hint, value, where, faults)


def _read_tagged(kinds: Mapping[str, type], value: Any, where: str, faults: list[str]) -> Any:
    """Reads a mapping whose `type` says which of `kinds` it is."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        faults.append(f"{where} needs a mapping with a type in {list(kinds)}, got {value!r}")
        return None
    fields = {name: item for name, item in value.items() if name != "type"}
    return _build(kinds[kind], fields, where, faults)


def _scalar(hint: Any, value: Any, where: str, faults: list[str]) -> Any:
    """Checks a plain value: numbers are not taken from text, nor the other way round."""
    if typing.get_origin(hint) is tuple:
        size = None if ... in (items := typing.get_args(hint)) else len(items)
        right = isinstance(value, list) and all(type(item) is int for item in value)
        if not right or size not in (None, len(value)):
            faults.append(f"{where} needs a list of {f'{size} ' if size else ''}int, got {value!r}")
            return None
        return tuple(value)
    if typing.get_origin(hint) is typing.Literal:
        if value not in (names := list(typing.get_args(hint))):
            faults.append(f"{where} needs one of {names}, got {value!r}")
        return value
    accepted = tuple(
        arg
        for arg in (typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,))
        if isinstance(arg, type)
    )
    if float in accepted:
        accepted += (int,)
    right = isinstance(value, accepted) and (not isinstance(value, bool) or bool in accepted)
    if accepted and not right:
        names = [kind.__name__ for kind in accepted]
        faults.append(f"{where} needs {' or '.join(names)}, got {value!r}")
    return value


_BLOCKS = r"layers\..*\.kernel"
_ENDS = r"(embedding|output)\.kernel"
_INT4 = Int(4, group=64, scale="bfloat16")
_INT2 = Int(2, group=64, scale="bfloat16")


def _preset(
    name: str,
    pattern: Pattern | None,
    weights: Format | None,
    activations: Format | None = None,
) -> Recipe:
    """Blocks as told; embedding and output as int8, a scale per token of the vocabulary."""
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
"""Recipes by name. With a weight format, embedding and output become int8 per token; without one
they are left alone."""
