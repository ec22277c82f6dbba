"""JSON objects that come with models."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that must hold a JSON object.

    Raises:
        ValueError: it is missing or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    return parse_json(path, content)


def parse_json(path: Path, content: bytes) -> dict[str, Any]:
    """Parses what must be a JSON object; `path` is its name for errors.

    Raises:
        ValueError: it is something else.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {str(value)[:40]}.")
    return value
