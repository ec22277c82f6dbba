"""Entry point: reads the arguments, runs a command, and turns what happened into an exit status."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import tyro

from gossamer.cli.compress import Compress
from gossamer.cli.console import Command, Console, WrongUseError
from gossamer.cli.demo import Demo
from gossamer.cli.doctor import Doctor
from gossamer.cli.evaluate import Evaluate
from gossamer.cli.export import Export
from gossamer.cli.generate import Generate
from gossamer.cli.inspect import Inspect
from gossamer.cli.interplay import Interplay
from gossamer.cli.plan.questions import Plan
from gossamer.cli.train import Train

WORKED, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

Commands: TypeAlias = (
    Annotated[Compress, tyro.conf.subcommand("compress")]
    | Annotated[Evaluate, tyro.conf.subcommand("eval")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Interplay, tyro.conf.subcommand("interplay")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs `gossamer` and exits: 0 worked, 1 failed, 2 called wrongly, 130 interrupted."""
    command: Command | Plan = tyro.cli(
        Commands,  # type: ignore[arg-type]  # a union of dataclasses, which tyro takes
        prog="gossamer",
        description="Makes transformer models small and fast, and measures what that costs.",
        args=argv,
        config=(
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.PositionalMetavarFromFieldName,
            tyro.conf.UseAppendAction,
        ),
    )
    if isinstance(command, Plan):
        command = command.question
    sys.exit(_run(command, Console()))


def _run(command: Command, console: Console) -> int:
    try:
        result = command.run(console)
        console.close()
        if command.json:
            console.json(result)
        else:
            command.show(result, console)
        sys.stdout.flush()
        command.check(result)
    except WrongUseError as error:
        return _fail(command, console, str(error), WRONG_USE)
    except BrokenPipeError:
        return _reader_left()
    except (ValueError, OSError) as error:
        return _fail(command, console, str(error), FAILED)
    except KeyboardInterrupt:
        return _fail(command, console, command.interrupted, INTERRUPTED)
    except Exception as error:
        # Our own bug: say so, and how to see where.
        message = f"Unexpected {type(error).__name__}: {error} (--verbose shows where)"
        return _fail(command, console, message, FAILED)
    return WORKED


def _reader_left() -> int:
    """Ends quietly when whoever read standard output has left, such as `head`."""
    # Python flushes what is left when it exits, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _fail(command: Command, console: Console, message: str, status: int) -> int:
    console.close()
    if command.verbose:
        console.note(traceback.format_exc())
    console.note(f"gossamer: {message}")
    return status
