"""The library of native kernels: found, loaded and made known to XLA when it is first wanted.

Two environment variables matter. GOSSAMER_TARGET names the instruction set to use in place of the
fastest. GOSSAMER_REQUIRE_KERNELS=1 makes it an error that there are no kernels, so that a test run
cannot pass on the reference path alone; while gossamer is being installed too.
"""

import ctypes
import functools
import importlib.metadata
import os
import pathlib
import warnings
from collections.abc import Callable

import jax
import jax.ffi

ATTENTION = "gossamer_attention"
PRODUCT = "gossamer_product"
HANDLERS = (ATTENTION, PRODUCT)
"""The library's handlers of XLA's foreign function interface, each registered under its name."""

_FILE = "libgossamer_kernels.so"
_NOT_BUILT = (
    "gossamer was installed without them. Install it again on a machine with a C++17 compiler; "
    "`pip install --verbose` shows what went wrong."
)


def missed() -> str | None:
    """Asks for native kernels: `why_unavailable`, said in one warning too; None when they are here.

    Raises:
        RuntimeError: they are not, and GOSSAMER_REQUIRE_KERNELS says that they must be.
    """
    reason = why_unavailable()
    if reason is None:
        return None
    if required():
        raise RuntimeError(f"GOSSAMER_REQUIRE_KERNELS is set, but no native kernels: {reason}")
    _warn(reason)
    return reason


def why_unavailable() -> str | None:
    """Why native kernels cannot be used here, in words; None when they can."""
    library = _library()
    if isinstance(library, str):
        return library
    target = os.environ.get("GOSSAMER_TARGET")
    if target and target not in targets():
        return (
            f"GOSSAMER_TARGET is {target!r}, but this machine has {', '.join(targets())}. Name one "
            "of these, or unset it."
        )
    return None


def targets() -> tuple[str, ...]:
    """The instruction sets that this machine and this build have, the fastest first."""
    library = _library()
    return () if isinstance(library, str) else tuple(library.gossamer_targets().decode().split())


def chosen() -> str | None:
    """The instruction set in use: the one that GOSSAMER_TARGET names, or the fastest.

    None without kernels.
    """
    if why_unavailable() is not None:
        return None
    return os.environ.get("GOSSAMER_TARGET") or targets()[0]


def reader() -> Callable[[int, int, int, int], int] | None:
    """Reads memory: address, bytes, parts side by side, bytes ahead. None without kernels."""
    arguments = [ctypes.c_void_p] + 3 * [ctypes.c_int64]
    return _function("gossamer_read", arguments, ctypes.c_uint64)


def multiplier() -> Callable[[int, int, bool, int], int] | None:
    """Multiplies and adds: address of 64 bytes, steps, whether of floats, address of 192 floats.

    Gives how often it did. None without kernels.
    """
    arguments = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_bool, ctypes.c_void_p]
    return _function("gossamer_multiply_adds", arguments, ctypes.c_int64)


def required() -> bool:
    """Whether GOSSAMER_REQUIRE_KERNELS says that there must be kernels."""
    return os.environ.get("GOSSAMER_REQUIRE_KERNELS", "0") not in ("", "0")


def _function(name: str, arguments: list[type], result: type) -> Callable[..., int] | None:
    """A function of the library; None where there is no target for it to use."""
    library = _library()
    if isinstance(library, str) or why_unavailable() is not None:
        return None
    function = getattr(library, name)
    function.argtypes, function.restype = arguments, result
    return function


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(
        f"No native kernels, so the slower reference path is used: {reason}", stacklevel=3
    )


@functools.cache
def _library() -> ctypes.CDLL | str:
    """The library with its handlers registered, or the reason why there is none."""
    file = _find()
    if file is None:
        return _NOT_BUILT
    try:
        library = ctypes.CDLL(str(file))
    except OSError as error:
        return f"{file} does not load: {error}. Install gossamer again, on this machine."
    if missing := [name for name in HANDLERS if not hasattr(library, name)]:
        return f"{file} is not of this version of gossamer, it lacks {missing}: install it again."
    library.gossamer_targets.restype = ctypes.c_char_p
    return _register(library) or library


def _find() -> pathlib.Path | None:
    """The library beside this file, or where an editable installation puts it."""
    files = [pathlib.Path(__file__).with_name(_FILE)]
    try:
        installed = importlib.metadata.distribution("gossamer")
        files.append(pathlib.Path(str(installed.locate_file(f"gossamer/kernels/{_FILE}"))))
    except importlib.metadata.PackageNotFoundError:
        pass
    return next((file for file in files if file.exists()), None)


def _register(library: ctypes.CDLL) -> str | None:
    """Makes the handlers known to XLA; its reason if it refuses."""
    try:
        # XLA takes handlers built with an older JAX, and refuses those of a newer one: here if its
        # CPU backend runs. If not, the backend would fail later, at its start, and JAX with it.
        jax.devices("cpu")
        for name in HANDLERS:
            handler = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
    except RuntimeError as error:
        return (
            f"JAX {jax.__version__} refuses them ({error}) Install gossamer again with "
            "`--no-build-isolation`, which builds them with the JAX that is installed."
        )
    return None
