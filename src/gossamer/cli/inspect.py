"""`gossamer inspect`: where a model's bytes go."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from gossamer.cli.console import Command, Console, aligned

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
        """Reads headers only.

        The bytes of all tensors and of `files`, which is what lies around tensors, add up to
        `bytes_on_disk` for a model that gossamer saved; of another, only the file's size is known,
        headers included, and tensors are listed as they are once read.
        """
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
        """A line for each tensor, and the whole."""
        header = ["tensor", "shape", "stored", "bits/weight", *(f"{p}, bytes" for p in _PLANES)]
        rows = [
            [
                tensor["path"],
                " x ".join(map(str, tensor["shape"])),
                tensor["stored"],
                f"{tensor['bits_per_weight']:.3f}",
                *(f"{tensor['bytes'].get(plane, 0):,}" for plane in _PLANES),
            ]
            for tensor in result["tensors"]
        ]
        for line in aligned([header, *rows], words=3):
            console.out.print(line)
        for name, size in result["files"].items():
            console.out.print(f"{name}: {size:,} bytes besides tensors")
        disk, dense = result["bytes_on_disk"], result["bytes_float32"]
        console.out.print(
            f"{disk:,} bytes on disk, {disk / dense:.2%} of {dense:,} in float32; "
            f"{result['bits_per_weight']:.3f} bits a weight in tensors"
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
            # Every plane is whole bytes, and so is its share in unused lanes.
            "bytes": {plane: bits // 8 for plane in _PLANES if (bits := getattr(account, plane))},
        }
        for path, account in packed.accounts().items()
    ]
    return {
        "bytes_on_disk": model_bytes(folder),
        "bytes_tensors": sum(account.nbytes for account in packed.accounts().values()),
        "tensors": tensors,
        "files": packed.overhead_bytes(),
    }


def _other(checkpoint: "Checkpoint") -> dict[str, Any]:
    """A model of another format: its file's size, and its tensors as they are once read."""
    tensors = [
        {
            "path": path,
            "shape": list(tensor.shape),
            "stored": f"read as {tensor.dtype}",
            "bits_per_weight": 8.0 * tensor.dtype.itemsize,
            "bytes": {"values": math.prod(tensor.shape) * tensor.dtype.itemsize},
        }
        for path, tensor in checkpoint.tensors.items()
    ]
    size = checkpoint.source["bytes"]
    return {"bytes_on_disk": size, "bytes_tensors": size, "tensors": tensors, "files": {}}
