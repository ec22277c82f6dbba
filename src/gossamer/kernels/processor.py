"""What processor this is, as far as the native kernels care."""

import dataclasses
import os
import pathlib

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_FEATURES = {  # by the name that Linux gives the list of all that a processor has
    "flags": (
        "avx2",
        "fma",
        "avx_vnni",
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512vbmi",
        "avx512_vnni",
        "avx512_bf16",
    ),
    "Features": ("asimd", "asimddp", "i8mm", "sve"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processor:
    """The first processor of the machine.

    Attributes:
        name: as Linux calls it; None if it does not say.
        features: whether it has each of those that kernels use or could use; None if that is not
            known.
    """

    name: str | None
    features: dict[str, bool] | None


def read(cpuinfo: pathlib.Path = _CPUINFO) -> Processor:
    """Reads what Linux says of the processor; elsewhere nothing is known.

    Args:
        cpuinfo: the file that says it.
    """
    fields = _first(cpuinfo)
    there = next((name for name in _FEATURES if name in fields), None)
    features = None
    if there is not None:
        has = set(fields[there].split())
        features = {name: name in has for name in _FEATURES[there]}
    return Processor(name=_name(fields), features=features)


def threads() -> int:
    """Processors that this process may run on, which is how many threads a program of XLA has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first(cpuinfo: pathlib.Path) -> dict[str, str]:
    """The fields of the first processor."""
    try:
        block = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _name(fields: dict[str, str]) -> str | None:
    """Its name; on most Arm machines Linux knows the numbers of maker and model alone."""
    if "model name" in fields:
        return fields["model name"]
    if "CPU implementer" in fields:
        return f"Arm implementer {fields['CPU implementer']} part {fields.get('CPU part')}"
    return None
