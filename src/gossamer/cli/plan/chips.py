"""`gossamer plan chips`: the chips that are known, and where their constants come from."""

import dataclasses
from pathlib import Path
from typing import Any

from gossamer.cli.console import Command, Console, aligned, arguments

COLUMNS = {
    "bf16_flops": ("bf16, TFLOP/s", 1e12),
    "int8_ops": ("int8, TOP/s", 1e12),
    "memory_bytes": ("memory, GiB", 2**30),
    "memory_bandwidth": ("GB/s", 1e9),
    "links": ("links", 1),
    "link_bandwidth": ("GB/s each", 1e9),
    "watts": ("W", 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chips(Command):
    """The chips that are known; --json has all their constants, and the source of each.

    Example: gossamer plan chips
    """

    chip_file: Path | None = None
    """YAML file with more chips: their names, and under each the constants that are known."""

    def run(self, console: Console) -> dict[str, Any]:
        """Lists them, those of the file first."""
        from gossamer.planning import builtin_chips, read_chips

        with arguments():
            more = {} if self.chip_file is None else read_chips(self.chip_file)
        known = {**more, **{n: chip for n, chip in builtin_chips().items() if n not in more}}
        return {"chips": {name: dataclasses.asdict(chip) for name, chip in known.items()}}

    def show(self, result: dict[str, Any], console: Console) -> None:
        """A line for each chip."""
        rows = [["chip", *(title for title, _ in COLUMNS.values())]]
        for name, chip in result["chips"].items():
            cells = [
                "-" if chip[field] is None else f"{chip[field] / unit:.4g}"
                for field, (_, unit) in COLUMNS.items()
            ]
            rows.append([name, *cells])
        for line in aligned(rows, words=1):
            console.out.print(line)
