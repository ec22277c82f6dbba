"""A lower part never imports a higher one, and a folder's `__init__` only names what is public."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "src" / "gossamer"

# From the lowest up, as docs/architecture.md draws them; parts of one row do not know each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("weights", "plots", "parameters", "plain"),
    ("sparsity", "quantization"),
    ("recipe",),
    ("kernels",),
    ("packing",),
    ("nn", "selftest"),
    ("models", "data"),
    ("loading", "planning"),
    ("inference",),
    ("evaluation",),
    ("compression", "training"),
    ("cli",),
    ("__main__",),
)
HEIGHT = {part: height for height, row in enumerate(LAYERS) for part in row}
FILES = sorted(PACKAGE.rglob("*.py"))
# The package's own __init__ imports what it offers when it is first asked for: it has no height.
FACADE = PACKAGE / "__init__.py"


def name(file: pathlib.Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def part_of(file: pathlib.Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """The dotted names that any import of the file could load, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_parts(tree: ast.AST) -> set[str]:
    """The parts of gossamer that a file imports; the version alone may come from the top."""
    ours = [found.split(".") for found in imported_modules(tree)]
    return {parts[1] for parts in ours if parts[0] == "gossamer"} - {"__version__"}


def test_imported_parts_sees_every_kind_of_import():
    source = """
import gossamer.cli.main
from gossamer import __version__, load
from gossamer.sparsity import NM
def inner():
    from gossamer.packing.layout import fields
    import numpy
"""
    assert imported_parts(ast.parse(source)) == {"cli", "load", "sparsity", "packing"}


def test_every_part_has_a_place_in_the_order():
    assert {part_of(file) for file in FILES if file != FACADE} == set(HEIGHT)


@pytest.mark.parametrize("file", [file for file in FILES if file != FACADE], ids=name)
def test_a_part_imports_only_lower_parts(file):
    mine = part_of(file)
    for part in imported_parts(ast.parse(file.read_text(encoding="utf-8"))) - {mine}:
        assert part in HEIGHT, f"{name(file)} imports gossamer.{part}: import it from its home"
        assert HEIGHT[part] < HEIGHT[mine], f"{name(file)} imports {part}, which is not lower"


def is_plain(node: ast.stmt) -> bool:
    """A docstring, an import, or the list of public names."""
    if isinstance(node, ast.Assign):
        targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return targets == ["__all__"]
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return docstring or isinstance(node, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.name == "__init__.py" and file != FACADE], ids=name
)
def test_an_init_names_things_and_computes_nothing(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name(file)} does not say why the folder exists"
    assert [ast.unparse(node) for node in tree.body if not is_plain(node)] == []


def test_every_folder_is_a_package():
    folders = {file.parent for file in FILES}
    assert [name(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
