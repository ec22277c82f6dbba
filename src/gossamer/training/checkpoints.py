"""Training state on disk: written by Orbax while training goes on, and all or nothing.

A checkpoint has the arrays, the position in the data, and the run's settings as plain data, which
are compared when it is read: Orbax would fill a state of another recipe without a word.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from gossamer.training.config import RESUMABLE, TrainingConfig, differences

if TYPE_CHECKING:
    from orbax.checkpoint import CheckpointManager

State = TypeVar("State")


class Checkpoints:
    """The checkpoints of a run, by the steps done.

    Args:
        folder: where they are; None keeps none.
        config: the run's settings.
        keep: how many of the latest stay.
    """

    def __init__(self, folder: Path | None, config: TrainingConfig, *, keep: int = 2) -> None:
        self._settings = config.to_dict()
        self._folder = folder
        self._manager: CheckpointManager | None = None
        if folder is None:
            return
        import orbax.checkpoint as ocp  # a second, which those who only wrap weights are spared

        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest(self) -> int | None:
        """Steps done at the latest checkpoint; None if there is none."""
        return None if self._manager is None else self._manager.latest_step()

    def save(self, step: int, state: Any, position: dict[str, Any]) -> None:
        """Begins to write a checkpoint; it is there once it is whole."""
        if self._manager is None or self._manager.latest_step() == step:
            return
        import orbax.checkpoint as ocp

        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=ocp.args.JsonSave(position),
                settings=ocp.args.JsonSave(self._settings),
            ),
        )

    def restore(self, step: int, like: State) -> tuple[State, dict[str, Any]]:
        """The state and the position in the data of a checkpoint.

        Args:
            step: of the checkpoint.
            like: shapes, dtypes and shardings of the state; the devices may be others than those
                that wrote it.

        Raises:
            ValueError: it belongs to a run with other settings; the fields are named.
        """
        assert self._manager is not None, "there is a checkpoint"
        import orbax.checkpoint as ocp

        settings: Any = self._manager.restore(
            step, args=ocp.args.Composite(settings=ocp.args.JsonRestore())
        )
        self._check(step, settings["settings"])
        found: Any = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), data=ocp.args.JsonRestore()
            ),
        )
        # What the optimizer's state holds besides arrays is `like`'s.
        leaves = jax.tree.leaves(found["state"])
        return jax.tree.unflatten(jax.tree.structure(like), leaves), found["data"]

    def close(self) -> None:
        """Waits until the last checkpoint is whole."""
        if self._manager is not None:
            self._manager.wait_until_finished()
            self._manager.close()

    def _check(self, step: int, settings: dict[str, Any]) -> None:
        same = {name: value for name, value in self._settings.items() if name not in RESUMABLE}
        stored = {name: value for name, value in settings.items() if name not in RESUMABLE}
        if faults := differences(stored, same):
            raise ValueError(
                f"The checkpoint of step {step} in {self._folder} belongs to another run, with "
                + "; ".join(faults)
                + ": train into another folder, or with its settings."
            )
