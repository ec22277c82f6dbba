"""The documentation names everything public, and points only at what exists."""

import ast
import pathlib
import re
import shlex
import typing

import pytest
import tyro
import yaml

from gossamer.cli.main import Commands
from gossamer.recipe import PRESETS, Recipe

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "gossamer"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def public_names(init: pathlib.Path) -> list[str]:
    """The dotted names in a folder's `__all__`, read without importing it."""
    package = ".".join(init.relative_to(ROOT / "src").parent.parts)
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [f"{package}.{item}" for item in ast.literal_eval(node.value)]
    return []


def documented() -> set[str]:
    """What the API pages show: what a directive names, and the public names of a folder."""
    shown = set()
    for page in (ROOT / "docs" / "api").glob("*.md"):
        for target in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            init = ROOT.joinpath("src", *target.split("."), "__init__.py")
            shown |= {target, *(public_names(init) if init.exists() else [])}
    return shown


def test_every_public_name_is_on_an_api_page():
    public = {item for init in PACKAGE.rglob("__init__.py") for item in public_names(init)}
    assert public - documented() == set()


def test_every_module_beside_the_folders_is_on_an_api_page():
    modules = {f"gossamer.{file.stem}" for file in PACKAGE.glob("*.py") if file.stem[0] != "_"}
    assert modules - documented() == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_to_files_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in LINK.findall(text) if "://" not in link]
    assert [file for file in files if not (page.parent / file).exists()] == []


def test_every_preset_is_described():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert [preset for preset in PRESETS if f"| `{preset}` |" not in text] == []


def test_the_recipe_files_of_the_documentation_are_valid():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    recipes = [Recipe.from_dict(yaml.safe_load(block)) for block in blocks]
    assert [recipe.name for recipe in recipes] == [
        "attention-stays-wider",
        "int3-clipped",
        "int4-asymmetric",
        "fp4",
        "mxfp4-mxfp8",
    ]


def test_the_examples_of_the_commands_are_understood_and_show_them_all():
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    lines = re.findall(r"^gossamer (.*)$", text, re.MULTILINE)
    shown = {type(tyro.cli(Commands, args=shlex.split(line))) for line in lines}
    assert shown == {typing.get_args(command)[0] for command in typing.get_args(Commands)}
