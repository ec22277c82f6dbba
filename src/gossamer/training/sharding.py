"""Who holds what: a mesh of devices with the axes `data` and `fsdp`, in one process or several."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gossamer.training.config import MeshConfig


def start_processes(*, coordinator: str, processes: int, process: int) -> None:
    """Makes this process one of several that train together; call it before anything uses JAX.

    Args:
        coordinator: address and port of process 0.
        processes: how many there are.
        process: which one this is, from 0 on.

    Raises:
        ValueError: there is no such process.
    """
    if not 0 <= process < processes:
        raise ValueError(f"Of {processes} processes there is no number {process}.")
    jax.distributed.initialize(coordinator, processes, process)


def make_mesh(config: MeshConfig) -> Mesh:
    """The devices of all processes as `[data, fsdp]`.

    Raises:
        ValueError: there are too few, or `fsdp` does not divide them.
    """
    devices = jax.devices()
    data = config.data
    if data is None:
        data, rest = divmod(len(devices), config.fsdp)
        if rest:
            raise ValueError(
                f"{len(devices)} devices do not divide into parts of fsdp={config.fsdp}."
            )
    if (size := data * config.fsdp) > len(devices):
        raise ValueError(
            f"A mesh of data={data} and fsdp={config.fsdp} needs {size} devices, and there are "
            f"{len(devices)}."
        )
    if jax.process_count() > 1 and size < len(devices):
        raise ValueError(
            f"Several processes use all of their {len(devices)} devices, and the mesh of "
            f"data={data} and fsdp={config.fsdp} has {size}; leave data out."
        )
    return Mesh(np.asarray(devices[:size]).reshape(data, config.fsdp), ("data", "fsdp"))


def check_batch(batch: int, accumulate: int, mesh: Mesh) -> None:
    """Raises ValueError where the parts of a batch do not divide among the devices."""
    if (batch // accumulate) % mesh.size:
        parts = f" in {accumulate} parts" if accumulate > 1 else ""
        raise ValueError(
            f"A batch of {batch}{parts} does not divide among {mesh.size} devices: take a "
            "multiple, or fewer devices in `mesh`."
        )


def leaf_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """How an array of the training state is kept, by its shape alone.

    A weight, its moments and its mask have the same shape, or masks of bits one with the same last
    axis, so they are cut alike. That axis is `out` of a kernel: groups of M along `in` stay whole.
    What does not divide, vectors and scalars are on every device.
    """
    parts = mesh.shape["fsdp"]
    if parts == 1 or len(shape) < 2 or math.prod(shape) == 0 or shape[-1] % parts:
        return NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) - 1), "fsdp"))


def state_shardings(mesh: Mesh, shapes: Any) -> Any:
    """The sharding of every leaf of a tree of arrays or their shapes."""
    return jax.tree.map(lambda leaf: leaf_sharding(mesh, leaf.shape), shapes)


def put_batch(mesh: Mesh, rows: Any) -> Any:
    """The batch of all processes, of which each gives its rows of every array."""
    sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    return jax.tree.map(lambda each: jax.make_array_from_process_local_data(sharding, each), rows)
