"""Runs `gossamer` inside this process, on a tiny saved model."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from gossamer.cli.main import main
from gossamer.loading import save
from gossamer.packing import pack
from gossamer.quantization import Int
from gossamer.sparsity import NM
from tests.inference.tiny import tiny

FORMAT = Int(4, group=16, scale="bfloat16")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        assert self.status == 0, self.err
        assert self.out.count("\n") == 1
        return json.loads(self.out)


@pytest.fixture
def gossamer(capsys) -> Callable[..., Outcome]:
    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as exit:
            main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return Outcome(int(exit.value.code or 0), written.out, written.err)

    return run


@pytest.fixture(scope="session")
def checkpoint():
    """A dense model and three packed kernels: 2:4 int4, int4 with padding lanes, int8."""
    dense = tiny("llama")
    down, up, ends = (
        "layers.0.mlp.down_proj.kernel",
        "layers.1.mlp.up_proj.kernel",
        "embedding.kernel",
    )
    kernel = jnp.asarray(dense.read(down))
    mask = NM(2, 4).mask(jnp.abs(kernel), 0)
    sparse = pack(FORMAT.encode(jnp.where(mask, kernel, 0)), FORMAT, NM(2, 4), mask)
    return dense.with_tensors(
        {
            down: sparse,
            up: pack(FORMAT.encode(jnp.asarray(dense.read(up))), FORMAT),
            ends: pack(Int(8).encode(jnp.asarray(dense.read(ends))), Int(8)),
        }
    )


@pytest.fixture(scope="session")
def model(checkpoint, tmp_path_factory) -> Path:
    """The folder of a saved model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(checkpoint, folder)
    return folder
