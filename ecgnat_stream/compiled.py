"""Compiled kernels: when the signal stages run as machine code (numba), and where that code is kept.

A stage that has kernels has them in a module or folder ``kernels`` of its own, and imports it in its constructor, only if
:func:`kernels_wanted`. The plain numpy code beside it is the reference: it runs where numba is missing or nothing was prepared,
so that a start never compiles. A kernel takes constants from its own folder and from ``signal`` alone: these, and the versions
of what compiled them, name the folder of the code.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.places import cache_folder

__all__ = ["SETTING", "describe", "kernel", "kernels_wanted", "prepare_kernels"]

SETTING = "ECGNAT_KERNELS"
"""Variable of the environment: ``auto`` (the default) uses what ``ecgnat compile`` has prepared, ``on`` compiles now what is
missing, ``off`` uses none."""

_INSTALL = "pip install 'ecgnat-stream[fast]'"
_STAMP = "prepared"
_PACKAGE = Path(__file__).parent

_F = TypeVar("_F", bound=Callable[..., object])


def kernel(signature: str | Sequence[str]) -> Callable[[_F], _F]:
    """Compile a function for one signature of numba's, or several, when its module is imported.

    The code is kept, and loaded from there the next time. The lock of the interpreter is not held in it, and arithmetic is that
    of IEEE 754, in the order written.

    Parameters
    ----------
    signature
        For example ``"void(int64[::1], float32[:, :, ::1])"``.
    """
    import numba

    def compiled(function: _F) -> _F:
        folder, before = _own_folder(), numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(folder or "")
        try:
            wanted = signature if isinstance(signature, str) else list(signature)
            done: _F = numba.njit(wanted, cache=folder is not None, nogil=True, fastmath=False, error_model="numpy")(function)
        finally:
            numba.config.CACHE_DIR = before
        return done

    return compiled


def kernels_wanted() -> bool:
    """Return whether the stages are to use their kernels.

    Raises
    ------
    ConfigError
        For a value of :data:`SETTING` that is none, and "on" without numba.
    """
    return _unwanted() is None


def describe() -> str:
    """Return in one line which way the stages go, and why."""
    why = _unwanted()
    return f"compiled by numba {version('numba')}" if why is None else f"numpy: {why}"


def prepare_kernels() -> list[str]:
    """Compile all kernels for this machine, and let every later start use them; return their modules.

    Raises
    ------
    ConfigError
        Without numba, and where nothing can be kept.
    """
    if not _numba():
        raise ConfigError(f"the kernels of the signal stages need numba: {_INSTALL}")
    folder = _folder()
    if _own_folder() is None:
        raise ConfigError(f"cannot keep compiled kernels in {folder}: it is not this account's to write; set XDG_CACHE_HOME")
    for old in folder.parent.glob(f"{_place()}-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    modules = [f"ecgnat_stream.{'.'.join(path.relative_to(_PACKAGE).with_suffix('').parts)}" for path in _sources()]
    for module in modules:
        import_module(module)
    (folder / _STAMP).write_text(_processor(), encoding="utf-8")
    _prepared.cache_clear()
    return modules


def _unwanted() -> str | None:
    """Return why kernels are not used, None where they are."""
    setting = os.environ.get(SETTING, "").strip().lower() or "auto"
    if setting not in ("auto", "on", "off"):
        raise ConfigError(f"{SETTING}={setting[:20]!r} is none of auto, on, off")
    if setting == "off":
        return f"{SETTING}=off"
    if not _numba():
        if setting == "on":
            raise ConfigError(f"{SETTING}=on needs numba: {_INSTALL}")
        return f"numba is not installed ({_INSTALL})"
    return None if setting == "on" else _prepared()


@cache
def _numba() -> bool:
    try:
        return bool(version("numba"))
    except PackageNotFoundError:
        return False


@cache
def _prepared() -> str | None:
    """Return why what was prepared cannot be used, None where it can."""
    try:
        folder = _folder()
        made_for = (folder / _STAMP).read_text(encoding="utf-8")
    except ConfigError as error:
        return str(error)
    except FileNotFoundError:
        return "not prepared for these versions (ecgnat compile)"
    except (OSError, UnicodeDecodeError) as error:
        return f"what was prepared cannot be read ({error})"
    if _own_folder() is None:
        return f"{folder} is not this account's to write"
    return None if made_for == _processor() else "prepared for another processor (ecgnat compile)"


def _own_folder() -> Path | None:
    """Return the folder of the code, made if it is not there; None where it is not this account's to write.

    numba runs what it finds in it, and where it may not write it would turn to the folder of the package.
    """
    try:
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (ConfigError, OSError):
        return None
    return folder if found.st_uid == os.geteuid() and not found.st_mode & 0o022 and os.access(folder, os.W_OK) else None


def _folder() -> Path:
    return cache_folder("kernels") / f"{_place()}-{_digest()}"


@cache
def _place() -> str:
    """Return a name for where this package lies: several may be installed side by side."""
    return hashlib.sha256(os.fsencode(_PACKAGE.resolve())).hexdigest()[:8]


@cache
def _digest() -> str:
    """Return a digest of what the code is made of and by."""
    content = hashlib.sha256()
    for part in (sys.version, platform.machine(), *(f"{name} {version(name)}" for name in ("numba", "llvmlite", "numpy"))):
        content.update(part.encode())
    stages = sorted({_PACKAGE / path.relative_to(_PACKAGE).parts[0] for path in _sources()})
    for path in (Path(__file__), _PACKAGE / "signal.py", *(path for stage in stages for path in sorted(stage.rglob("*.py")))):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    """Return the modules of kernels."""
    yield from sorted(_PACKAGE.glob("*/kernels.py"))
    yield from sorted(path for path in _PACKAGE.glob("*/kernels/*.py") if path.stem != "__init__")


def _processor() -> str:
    """Return the processor that code is made for, as LLVM calls it."""
    from llvmlite import binding

    return f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"
