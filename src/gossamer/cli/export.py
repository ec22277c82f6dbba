"""`gossamer export`: a model as other programs read it."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro

from gossamer.cli.console import Command, Console, WrongUseError, check_free


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write a model as a Hugging Face folder with the compressed values as plain numbers.

    Example: gossamer export small --dense --out dense --dtype bfloat16
    """

    model: tyro.conf.Positional[str]
    """A saved model, or whatever the other commands take."""
    out: Path
    """Folder for the result."""
    dense: bool = False
    """Plain numbers, which every program reads; the one form there is so far."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the numbers; bfloat16 rounds them."""
    overwrite: bool = False
    """Replace the output folder."""

    def run(self, console: Console) -> dict[str, Any]:
        """Exports; returns where to and how large."""
        if not self.dense:
            raise WrongUseError("Say --dense: it is the one form that models are exported in.")
        check_free(self.out, self.overwrite)
        from gossamer.loading import export_dense, load

        console.note(f"writing {self.out} ...")
        export_dense(load(self.model), self.out, dtype=self.dtype, overwrite=self.overwrite)
        size = sum(file.stat().st_size for file in self.out.iterdir())
        return {"out": str(self.out), "dtype": self.dtype, "bytes_on_disk": size}

    def show(self, result: dict[str, Any], console: Console) -> None:
        """One line."""
        console.out.print(
            f"{result['out']}: {result['bytes_on_disk'] / 1e6:.1f} MB, {result['dtype']}"
        )
