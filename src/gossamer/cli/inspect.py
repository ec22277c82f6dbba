"""`gossamer inspect`: where a model's bytes go."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich.table
import tyro

from gossamer.cli.console import Command, Console

if TYPE_CHECKING:
    from gossamer.loading import Checkpoint

_PLANES = ("values", "indices", "scales", "zeros", "padding")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect(Command):
    """Account for a model's size, tensor by tensor and plane by plane.

    Example: gossamer inspect small
    """

    model: tyro.conf.Positional[str]
    """A saved model, a Hugging Face folder or hub id, a .gguf or llama2.c .bin file, or the word
    smollm2."""

    def run(self, console: Console) -> dict[str, Any]:
        """Reads headers only; the bytes of all tensors and files add up to `bytes_on_disk`."""
        from gossamer.loading import load

        checkpoint = load(self.model)
        saved = checkpoint.source["format"] == "gossamer"
        parameters = sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values())
        account = _saved(Path(self.model)) if saved else _other(checkpoint)
        return {
            "model": checkpoint.source["name"],
            "recipe": checkpoint.recipe,
            "parameters": parameters,
            "bytes_float32": 4 * parameters,
            **account,
            "bits_per_weight": 8 * account["bytes_tensors"] / parameters,
        }

    def show(self, result: dict[str, Any], console: Console) -> None:
        """A table of tensors, and the whole."""
        table = rich.table.Table("tensor", "shape", "stored", "bits/weight")
        for plane in _PLANES:
            table.add_column(f"{plane}, bytes", justify="right")
        for tensor in result["tensors"]:
            table.add_row(
                tensor["path"],
                " x ".join(map(str, tensor["shape"])),
                tensor["stored"],
                f"{tensor['bits_per_weight']:.3f}",
                *(f"{tensor['bytes'].get(plane, 0):,}" for plane in _PLANES),
            )
        console.out.print(table)
        for name, size in result["files"].items():
            console.out.print(f"{name}: {size:,} bytes besides tensors")
        console.out.print(
            f"{result['bytes_on_disk']:,} bytes on disk, "
            f"{result['bytes_on_disk'] / result['bytes_float32']:.2%} of {result['bytes_float32']:,}"
            f" in float32; {result['bits_per_weight']:.3f} bits a weight in tensors"
        )


def _saved(folder: Path) -> dict[str, Any]:
    """Every byte of a saved model: its tensors' planes, and what else is in its files."""
    from gossamer.packing import PackedFolder, model_bytes

    packed = PackedFolder(folder)
    tensors = [
        {
            "path": path,
            "shape": list(packed.tensors[path].shape),
            "stored": packed.tensors[path].describe(),
            "bits_per_weight": account.bits_per_weight,
            "bytes": {
                plane: getattr(account, plane) / 8
                for plane in _PLANES
                if getattr(account, plane)
            },
        }
        for path, account in packed.accounts().items()
    ]
    total = sum(account.nbytes for account in packed.accounts().values())
    return {
        "bytes_on_disk": model_bytes(folder),
        "bytes_tensors": total,
        "tensors": tensors,
        "files": packed.overhead_bytes(),
    }


def _other(checkpoint: "Checkpoint") -> dict[str, Any]:
    """A model of another format: its tensors as they are once read."""
    import numpy as np

    tensors = [
        {
            "path": path,
            "shape": list(tensor.shape),
            "stored": f"read as {np.dtype(tensor.dtype)}",
            "bits_per_weight": 8.0 * np.dtype(tensor.dtype).itemsize,
            "bytes": {"values": math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize},
        }
        for path, tensor in checkpoint.tensors.items()
    ]
    total = sum(tensor["bytes"]["values"] for tensor in tensors)
    return {"bytes_on_disk": total, "bytes_tensors": total, "tensors": tensors, "files": {}}
