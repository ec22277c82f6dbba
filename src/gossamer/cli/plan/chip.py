"""The chip that a question is about."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from gossamer.cli.console import Command, arguments

if TYPE_CHECKING:
    from gossamer.planning import Chip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChipCommand(Command):
    """A question about one kind of chip."""

    chip: str
    """A chip: tpu-v3, tpu-v4, tpu-v5e, tpu-v5p, tpu-v6e, a100-80gb, h100-sxm, flat-edge,
    flat-cloud, cpu, or one of --chip-file."""
    chip_file: Path | None = None
    """YAML file with more chips: their names, and under each the constants that are known."""

    def found_chip(self) -> "Chip":
        """The chip of that name."""
        from gossamer.planning import find_chip, read_chips

        with arguments():
            more = None if self.chip_file is None else read_chips(self.chip_file)
            return find_chip(self.chip, more)
