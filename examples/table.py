"""Runs every example, dense and sparse, one after the other, and writes README.md's table anew.

    python examples/table.py

Hardware: one core, ten minutes for all if nothing else runs there.
"""

import argparse
import dataclasses
import difflib
import json
import pathlib
import subprocess
import sys
from typing import Any

HERE = pathlib.Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- table.py: begin -->\n", "<!-- table.py: end -->\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A folder with two trainers.

    Attributes:
        name: of the folder.
        sparse: what the sparse trainer does, in the table's words.
        arguments: for both, beyond their defaults.
    """

    name: str
    sparse: str
    arguments: tuple[str, ...] = ()


EXAMPLES = (
    Example(name="optax_loop", sparse="`SRSTE` 2:4, int4 weights"),
    Example(name="flax_linen_vit", sparse="`MdGf` 1:4, int8 products"),
    Example(name="seq2seq", sparse="`GradualMagnitude` 90 %"),
    Example(name="dqn", sparse="`SET` 90 %"),
    Example(name="federated", sparse="`RigL` 90 %"),
    Example(name="equinox_mlp_mixer", sparse="`STE` 1:4, int8 weights"),
)


def changed_lines(folder: pathlib.Path) -> int:
    """Lines of the sparse trainer that are not in the dense one.

    A line that was replaced counts once. The docstring at the head does not count.
    """
    dense, sparse = (
        (folder / f"train_{kind}.py").read_text(encoding="utf-8").split('"""', 2)[2].splitlines()
        for kind in ("dense", "sparse")
    )
    return sum(line.startswith("+ ") for line in difflib.ndiff(dense, sparse))


def run(example: Example, kind: str) -> dict[str, Any]:
    """What a trainer says of itself; its progress is shown."""
    command = [sys.executable, HERE / example.name / f"train_{kind}.py", "--json"]
    print(f"{example.name}, {kind}", file=sys.stderr)
    done = subprocess.run(
        [*command, *example.arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def row(example: Example) -> str:
    dense, sparse = run(example, "dense"), run(example, "sparse")
    cells = [
        f"`{example.name}`",
        example.sparse,
        dense["metric"],
        f"{dense['result']:g}",
        f"{sparse['result']:g}",
        f"{100 * sparse['sparsity']:.1f} %",
        f"{dense['seconds']:.0f}",
        f"{sparse['seconds']:.0f}",
        str(changed_lines(HERE / example.name)),
    ]
    return "| " + " | ".join(cells) + " |\n"


HEAD = """\
| example | sparse with | result | dense | sparse | zeros | CPU seconds, dense | sparse | lines |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    table = HEAD + "".join(row(example) for example in EXAMPLES)
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    README.write_text(before + BEGIN + table + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
