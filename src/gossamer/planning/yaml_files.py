"""YAML files of what users add, and of what is known without them."""

import functools
import importlib.resources
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

from gossamer import plain


def read_yaml(file: str | pathlib.Path, what: str) -> Any:
    """What a user's file holds.

    Args:
        file: in UTF-8.
        what: it holds, for the message.

    Raises:
        ValueError: there is no such file, or it is no YAML.
    """
    try:
        return yaml.safe_load(pathlib.Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"The {what} {str(file)!r} cannot be read: {error}") from error


def builtin_yaml(name: str) -> Any:
    """What a file beside this one holds."""
    file = importlib.resources.files("gossamer.planning") / name
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def reader() -> plain.Reader:
    """Reads dataclasses from YAML, whose numbers may have no point where floats are meant."""
    return plain.Reader({}, special={hint: _float(hint) for hint in (float, float | None)})


def read_named(cls: type, data: Any, what: str, where: str) -> dict[str, Any]:
    """Dataclasses by their names, which are a field of theirs too.

    Args:
        cls: the dataclass; one of its fields is `name`.
        data: a mapping from names to the other fields.
        what: they are, in the plural.
        where: they are from.

    Raises:
        ValueError: a field is unknown, missing or malformed; all faults are named.
    """
    if not isinstance(data, Mapping) or not data:
        raise ValueError(f"The {what} {where!r} need a mapping from names to fields.")
    reading = reader()
    found = {
        str(name): reading.build(
            cls, {"name": str(name), **fields} if isinstance(fields, Mapping) else fields, name
        )
        for name, fields in data.items()
    }
    check_faults(reading, f"{what} {where!r} are")
    return found


def check_faults(reading: plain.Reader, subject: str) -> None:
    """Raises where something was wrong.

    Args:
        reading: that noted it.
        subject: of the sentence, with its verb.

    Raises:
        ValueError: it names all faults.
    """
    if reading.faults:
        raise ValueError(f"The {subject} not valid: " + "; ".join(reading.faults) + ".")


def _float(hint: Any) -> Any:
    return functools.partial(_read_float, hint)


def _read_float(hint: Any, reading: plain.Reader, value: Any, where: str) -> Any:
    value = plain.Reader({}, faults=reading.faults).read(hint, value, where)
    return float(value) if isinstance(value, int) else value
