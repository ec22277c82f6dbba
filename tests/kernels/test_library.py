"""The library of native kernels: found in every kind of installation, and missed in words."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from gossamer.kernels import library, targets, why_unavailable
from gossamer.kernels.library import missed
from gossamer.packing import pack
from gossamer.quantization import Int

FILE = "libgossamer_kernels.so"
needs_kernels = pytest.mark.skipif(
    library._find() is None and not library.required(),
    reason="gossamer was installed without its kernels",
)


@pytest.fixture(autouse=True)
def _forget():
    """Each test loads anew, and none sees what another made of the library."""
    library._library.cache_clear()
    library._warn.cache_clear()
    yield
    library._library.cache_clear()
    library._warn.cache_clear()


@pytest.fixture(autouse=True)
def _as_users_have_it(monkeypatch):
    monkeypatch.delenv("GOSSAMER_REQUIRE_KERNELS", raising=False)
    monkeypatch.delenv("GOSSAMER_TARGET", raising=False)


@pytest.fixture
def _missing(monkeypatch):
    monkeypatch.setattr(library, "_find", lambda: None)


def test_importing_loads_nothing():
    check = (
        "from gossamer.kernels import library as l; assert l._library.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


@needs_kernels
def test_kernels_that_were_built_are_available():
    assert why_unavailable() is missed() is None
    assert targets()[-1] == "portable"


@needs_kernels
def test_every_handler_is_registered_once_for_the_cpu(monkeypatch):
    registered = []
    monkeypatch.setattr(
        jax.ffi,
        "register_ffi_target",
        lambda name, _, platform: registered.append((name, platform)),
    )
    assert why_unavailable() is missed() is None
    assert registered == [(name, "cpu") for name in library.HANDLERS]


@pytest.mark.usefixtures("_missing")
def test_what_was_not_built_is_missed_in_one_warning():
    with pytest.warns(UserWarning, match="slower reference path .* installed without them") as said:
        assert missed() == missed() == why_unavailable() is not None
    assert len(said) == 1
    assert targets() == ()
    assert library.chosen() is library.reader() is None


@pytest.mark.usefixtures("_missing")
@pytest.mark.parametrize("value", ["", "0"])
def test_kernels_are_optional_unless_the_environment_says_otherwise(monkeypatch, value):
    monkeypatch.setenv("GOSSAMER_REQUIRE_KERNELS", value)
    with pytest.warns(UserWarning, match="No native kernels"):
        assert missed() is not None


@pytest.mark.usefixtures("_missing")
def test_kernels_that_are_required_must_be_there(monkeypatch):
    monkeypatch.setenv("GOSSAMER_REQUIRE_KERNELS", "1")
    with pytest.raises(RuntimeError, match=r"GOSSAMER_REQUIRE_KERNELS .* C\+\+17 compiler"):
        missed()


@pytest.mark.usefixtures("_missing")
@pytest.mark.parametrize("required", [False, True])
def test_whoever_multiplies_first_misses_what_was_not_built(monkeypatch, required):
    kernel = pack(Int(4).encode(jnp.eye(8, 16)), Int(4))
    size = 3 + required  # a shape that was not traced before
    if required:
        monkeypatch.setenv("GOSSAMER_REQUIRE_KERNELS", "1")
        with pytest.raises(RuntimeError, match="GOSSAMER_REQUIRE_KERNELS is set"):
            kernel.dot(jnp.ones((size, 8)))
    else:
        with pytest.warns(UserWarning, match="slower reference path"):
            y = kernel.dot(jnp.ones((size, 8)))
        assert y.shape == (size, 16)
    jax.clear_caches()  # of the program that knows no kernels


@needs_kernels
def test_a_target_of_another_machine_is_refused_with_those_of_this_one(monkeypatch):
    monkeypatch.setenv("GOSSAMER_TARGET", "abacus")
    assert why_unavailable() == (
        f"GOSSAMER_TARGET is 'abacus', but this machine has {', '.join(targets())}. Name one of "
        "these, or unset it."
    )
    assert library.chosen() is library.reader() is None


@needs_kernels
def test_every_target_of_this_machine_can_be_asked_for(monkeypatch):
    for target in targets():
        monkeypatch.setenv("GOSSAMER_TARGET", target)
        assert why_unavailable() is None
        assert library.chosen() == target


@needs_kernels
@pytest.mark.parametrize("value", [None, ""])
def test_the_fastest_target_is_chosen_unless_the_environment_names_one(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("GOSSAMER_TARGET", value)
    assert library.chosen() == targets()[0]


def test_a_file_that_is_no_library_is_named(monkeypatch, tmp_path):
    (tmp_path / FILE).write_text("not a library")
    monkeypatch.setattr(library, "_find", lambda: tmp_path / FILE)
    assert str(why_unavailable()).startswith(f"{tmp_path / FILE} does not load: ")


@needs_kernels
def test_a_library_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(library, "HANDLERS", ("gossamer_tomorrow",))
    assert "lacks ['gossamer_tomorrow']: install it again." in str(why_unavailable())


@needs_kernels
def test_handlers_that_xla_refuses_leave_the_reference_path(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("the handler's API version (9.9) is incompatible.")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    assert "refuses them (the handler's API version (9.9)" in str(why_unavailable())


def test_the_library_of_a_wheel_lies_beside_the_module(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    (tmp_path / FILE).touch()
    assert library._find() == tmp_path / FILE


def test_the_library_of_an_editable_installation_lies_where_packages_are_installed(
    monkeypatch, tmp_path
):
    metadata = tmp_path / "gossamer-0.0.0.dist-info" / "METADATA"
    built = tmp_path / "gossamer" / "kernels" / FILE
    for file in (metadata, built):
        file.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: gossamer\nVersion: 0.0.0\n")
    built.touch()
    monkeypatch.setattr(library, "__file__", str(pathlib.Path("elsewhere") / "library.py"))
    monkeypatch.syspath_prepend(tmp_path)
    assert library._find() == built
