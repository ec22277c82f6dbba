"""Settings as plain data: frozen dataclasses from and to what YAML and JSON hold.

A dataclass is a mapping with its field names. Where a field takes one of several classes the
mapping has a `type`, such as `{type: NM, n: 2, m: 4}`. All faults of a file are collected, none is
repaired.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any


def to_plain(value: Any, kinds: Mapping[str, type], *, defaults: bool = False) -> Any:
    """A dataclass as a mapping of its fields; tuples as lists.

    Args:
        value: a dataclass, a tuple of them, or a scalar.
        kinds: the classes that are written with a `type`, by that name.
        defaults: whether fields that have their defaults are written too.
    """
    if isinstance(value, tuple):
        return [to_plain(item, kinds, defaults=defaults) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {
        field.name: to_plain(getattr(value, field.name), kinds, defaults=defaults)
        for field in dataclasses.fields(value)
        if field.init and (defaults or getattr(value, field.name) != _default(field))
    }
    name = type(value).__name__
    return {"type": name, **fields} if kinds.get(name) is type(value) else fields


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads plain data into dataclasses and notes what is wrong with it.

    Attributes:
        kinds: the classes that a `type` may name.
        special: for a field's type, what reads its values in another way than its class says.
        faults: what was wrong so far, in words; what is read from faulty data is None.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Point:
        ...     x: int
        ...     y: int = 0
        >>> reader = Reader({})
        >>> reader.build(Point, {"x": 1}, "point")
        Point(x=1, y=0)
        >>> reader.build(Point, {"x": "1", "z": 2}, "point"), len(reader.faults)
        (None, 2)
    """

    kinds: Mapping[str, type]
    special: Mapping[Any, Callable[["Reader", Any, str], Any]] = dataclasses.field(
        default_factory=dict
    )
    faults: list[str] = dataclasses.field(default_factory=list)

    def build(self, cls: type, data: Any, where: str) -> Any:
        """Makes a `cls` of a mapping."""
        if not isinstance(data, Mapping):
            self.faults.append(f"{where} needs a mapping, got {data!r}")
            return None
        known = {field.name: field for field in dataclasses.fields(cls) if field.init}
        hints = typing.get_type_hints(cls)
        before = len(self.faults)
        self.faults.extend(
            f"{where} has an unknown field {name!r}; it takes {list(known)}"
            for name in data
            if name not in known
        )
        self.faults.extend(
            f"{where} lacks {name!r}"
            for name, field in known.items()
            if name not in data and _default(field) is dataclasses.MISSING
        )
        values = {
            name: self.read(hints[name], value, f"{where}.{name}")
            for name, value in data.items()
            if name in known
        }
        if len(self.faults) > before:
            return None
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:
            self.faults.append(f"{where}: {error}".rstrip("."))
            return None

    def read(self, hint: Any, value: Any, where: str) -> Any:
        """Reads one field: a list of dataclasses, a dataclass or one of several, or a scalar."""
        if hint in self.special:
            return self.special[hint](self, value, where)
        items = typing.get_args(hint) if typing.get_origin(hint) is tuple else ()
        element = items[0] if len(items) == 2 and items[1] is ... else None
        if isinstance(element, type) and dataclasses.is_dataclass(element):
            return self._list(element, value, where)
        union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        choices = typing.get_args(hint) if union else (hint,)
        classes = tuple(choice for choice in choices if isinstance(choice, type))
        tagged = {name: kind for name, kind in self.kinds.items() if issubclass(kind, classes)}
        if value is None and type(None) in classes:
            return None
        if tagged:
            return self.tagged(tagged, value, where)
        nested = [choice for choice in classes if dataclasses.is_dataclass(choice)]
        if nested:
            return self.build(nested[0], value, where)
        return self._scalar(hint, choices, value, where)

    def tagged(self, kinds: Mapping[str, type], value: Any, where: str) -> Any:
        """Reads a mapping whose `type` says which of `kinds` it is."""
        kind = value.get("type") if isinstance(value, Mapping) else None
        if not isinstance(kind, str) or kind not in kinds:
            self.faults.append(
                f"{where} needs a mapping with a type in {list(kinds)}, got {value!r}"
            )
            return None
        fields = {name: item for name, item in value.items() if name != "type"}
        return self.build(kinds[kind], fields, where)

    def _list(self, cls: type, value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            self.faults.append(f"{where} needs a list of {cls.__name__.lower()}s, got {value!r}")
            return ()
        return tuple(self.build(cls, item, f"{where}[{i}]") for i, item in enumerate(value))

    def _scalar(self, hint: Any, choices: tuple[Any, ...], value: Any, where: str) -> Any:
        """Checks a plain value: numbers are not taken from text, nor the other way round."""
        if lists := [choice for choice in choices if typing.get_origin(choice) is tuple]:
            size = None if ... in (items := typing.get_args(lists[0])) else len(items)
            right = isinstance(value, list) and all(type(item) is int for item in value)
            if not right or size not in (None, len(value)):
                count = f"{size} " if size else ""
                self.faults.append(f"{where} needs a list of {count}int, got {value!r}")
                return None
            return tuple(value)
        names = [n for c in choices if typing.get_origin(c) is typing.Literal for n in c.__args__]
        if names:
            if value not in names:
                self.faults.append(f"{where} needs one of {names}, got {value!r}")
            return value
        accepted = tuple(choice for choice in choices if isinstance(choice, type))
        if float in accepted:
            accepted += (int,)
        right = isinstance(value, accepted) and (not isinstance(value, bool) or bool in accepted)
        if accepted and not right:
            kinds = [kind.__name__ for kind in accepted]
            self.faults.append(f"{where} needs {' or '.join(kinds)}, got {value!r}")
        return value


def _default(field: "dataclasses.Field[Any]") -> Any:
    """What a field has unless told; `MISSING` if it must be."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
