"""Reads fields of a Hugging Face `config.json` and reports all that is wrong with it at once."""

from collections.abc import Mapping
from typing import Any

from gossamer.nn.rotary import Llama3Scaling, Rotary


class HfFields:
    """The fields of one `config.json`; faults are gathered until `check`.

    A value that is absent or null takes the default; without one it is a fault.
    """

    def __init__(self, data: Mapping[str, Any], where: str = "") -> None:
        self.data = data
        self.where = where
        self.faults: list[str] = []

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 1; `num_hidden_layers` may be 0."""
        value = self._value(name, default)
        least = 0 if name == "num_hidden_layers" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self._fault(name, value, f"a whole number of at least {least}")
            return least
        return value

    def token(self, name: str, default: int) -> int:
        """A token's id."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self._fault(name, value, "a token's id")
            return default
        return value

    def pair(self, name: str, default: int) -> tuple[int, int]:
        """Height and width: a list of both, or one whole number that is both."""
        value = self._value(name, default)
        both = [value, value] if isinstance(value, int) else value
        if (
            not isinstance(both, list | tuple)
            or len(both) != 2
            or not all(type(each) is int and each >= 1 for each in both)
        ):
            self._fault(name, value, "a whole number of at least 1 or a list of two")
            return (1, 1)
        return (both[0], both[1])

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            self._fault(name, value, "a positive number")
            return 1.0
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            self._fault(name, value, "true or false")
        return bool(value)

    def only(self, name: str, *accepted: Any) -> None:
        """Refuses a value that would change the maths; absent means the first accepted one."""
        value = self._value(name, accepted[0])
        if value not in accepted:
            self._fault(name, value, " or ".join(repr(each) for each in accepted))

    def rotary(self) -> Rotary:
        """Rotary settings: `rope_parameters`, or `rope_theta` and `rope_scaling` as of old."""
        nested = self.data.get("rope_parameters") or self.data.get("rope_scaling") or {}
        name = "rope_parameters" if self.data.get("rope_parameters") else "rope_scaling"
        rope = HfFields(nested, f"{name}.")
        kind = nested.get("rope_type", nested.get("type", "default"))
        theta = rope.number("rope_theta", self.number("rope_theta", 10000.0))
        rope.only("partial_rotary_factor", 1.0)
        scaling = None
        if kind == "llama3":
            scaling = {
                "factor": rope.number("factor"),
                "low_frequency_factor": rope.number("low_freq_factor"),
                "high_frequency_factor": rope.number("high_freq_factor"),
                "original_positions": rope.integer("original_max_position_embeddings"),
            }
        elif kind != "default":
            rope._fault("rope_type", kind, "'default' or 'llama3'")
        self.faults += rope.faults
        if rope.faults:
            return Rotary()
        try:
            return Rotary(theta=theta, scaling=Llama3Scaling(**scaling) if scaling else None)
        except ValueError as error:
            self.faults.append(f"{name}: {error}".rstrip("."))
            return Rotary()

    def check(self) -> None:
        """Raises what was gathered.

        Raises:
            ValueError: a field is missing, malformed, or asks for what is not supported.
        """
        if self.faults:
            kind = self.data.get("model_type")
            raise ValueError(
                f"This config.json (model_type {kind!r}) cannot be used: "
                + "; ".join(self.faults)
                + "."
            )

    def _value(self, name: str, default: Any) -> Any:
        value = self.data.get(name)
        return default if value is None else value

    def _fault(self, name: str, value: Any, wanted: str) -> None:
        self.faults.append(f"{self.where}{name} must be {wanted}, got {value!r}")


def rotary_to_hf(rotary: Rotary) -> dict[str, Any]:
    """Rotary settings as both transformers 5 (`rope_parameters`) and older ones read them."""
    kind: dict[str, Any] = {"rope_type": "default"}
    if rotary.scaling is not None:
        kind = {
            "rope_type": "llama3",
            "factor": rotary.scaling.factor,
            "low_freq_factor": rotary.scaling.low_frequency_factor,
            "high_freq_factor": rotary.scaling.high_frequency_factor,
            "original_max_position_embeddings": rotary.scaling.original_positions,
        }
    return {
        "rope_theta": rotary.theta,
        "rope_scaling": None if rotary.scaling is None else kind,
        "rope_parameters": {"rope_theta": rotary.theta, **kind},
    }
