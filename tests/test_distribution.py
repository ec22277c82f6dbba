"""The source distribution carries what the build and the tests need, and builds the package."""

import pathlib
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

import gossamer
from gossamer.kernels import library

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*command: str | pathlib.Path, cwd: pathlib.Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> pathlib.Path:
    """The unpacked source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    build = "import sys, scikit_build_core.build as b; b.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, folder, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    assert archive.name == f"gossamer-{gossamer.__version__}.tar.gz"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory) -> zipfile.ZipFile:
    """The wheel that pip builds from the source distribution alone."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, sources, cwd=folder)
    (file,) = folder.glob("gossamer-*.whl")
    return zipfile.ZipFile(file)


def tree(root: pathlib.Path) -> set[str]:
    files = (file for file in root.rglob("*") if file.is_file())
    return {file.relative_to(root).as_posix() for file in files if "__pycache__" not in file.parts}


@pytest.mark.parametrize("folder", [".ci", "constraints", "csrc", "docs", "src", "tests"])
def test_sources_carry_the_whole_folder(sources, folder):
    assert tree(sources / folder) == tree(ROOT / folder)


def test_sources_carry_what_the_make_targets_need(sources):
    wanted = {"LICENSE", "Makefile", "README.md", "CHANGELOG.md", "mkdocs.yml", "pyproject.toml"}
    assert wanted | {"CMakeLists.txt"} <= tree(sources)


def test_wheel_holds_the_package_its_kernels_and_nothing_else(wheel):
    metadata = f"gossamer-{gossamer.__version__}.dist-info/"
    packaged = {file for file in wheel.namelist() if not file.startswith(metadata)}
    kernels = set() if library._find() is None else {"gossamer/kernels/libgossamer_kernels.so"}
    assert packaged == tree(ROOT / "src") | kernels
    assert f"{metadata}licenses/LICENSE" in wheel.namelist()


def test_wheel_is_typed_and_brings_the_command(wheel):
    assert "gossamer/py.typed" in wheel.namelist()
    entry_points = wheel.read(f"gossamer-{gossamer.__version__}.dist-info/entry_points.txt")
    assert b"gossamer = gossamer.cli.main:main" in entry_points


def run_away_from_the_checkout(wheel, folder, check):
    """Runs Python code with the wheel's gossamer, which the installed one would hide from it."""
    wheel.extractall(folder)
    code = f"import sys; sys.path.append({sysconfig.get_path('purelib')!r}); {check}"
    run(sys.executable, "-S", "-c", code, cwd=folder)


def test_installed_wheel_imports_away_from_the_checkout(wheel, tmp_path):
    check = f"import gossamer.recipe as r; assert r.__file__.startswith({str(tmp_path)!r})"
    run_away_from_the_checkout(wheel, tmp_path, check)


@pytest.mark.skipif(library._find() is None, reason="gossamer was installed without its kernels")
def test_installed_wheel_has_its_kernels_beside_it(wheel, tmp_path):
    check = (
        "from gossamer.kernels import library, why_unavailable; "
        f"assert str(library._find()).startswith({str(tmp_path)!r}); "
        "assert why_unavailable() is None, why_unavailable()"
    )
    run_away_from_the_checkout(wheel, tmp_path, check)
