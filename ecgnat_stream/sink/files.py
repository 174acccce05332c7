"""Files of patients' data as the sinks write them: private from the first byte, of one monitor at a time, whole after a failure.

Files are made 0600 and folders 0700, whatever the umask; what is there already is left as it is, and named if others may read it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from ecgnat_stream.errors import SinkError
from ecgnat_stream.places import kind_of

__all__ = ["Claim", "Growing", "holder", "make_file", "make_folder", "taken", "unfit", "warn_of_readers"]

_log = logging.getLogger(__name__)

_OTHERS, _BEYOND_THE_GROUP = 0o077, 0o027
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks answers."""

_CLAIM_S = 1.0
"""A claim waits so long for a monitor that is just ending, and for a check that only looks."""


def make_folder(path: Path, *, group: bool = False) -> None:
    """Make a folder and what is missing above it, for the own account alone, or readable for the folder's group."""
    if path.is_dir():
        return
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if group:
                # The bit that hands the group down to what is made within must stay.
                folder.chmod(stat.S_IMODE(folder.stat().st_mode) & 0o7000 | 0o750)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def make_file(path: Path, *, group: bool = False) -> int:
    """Make a file that is not there, for the own account alone, or readable for the folder's group; return its descriptor.

    Raises
    ------
    OSError
        If it is there already, or cannot be made.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o640 if group else 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unfit(path: Path) -> str | None:
    """Return why no file can be written at a path, None if one can; nothing is made.

    Its folder has to be there: a slip of the pen would make another one.
    """
    real = Path(os.path.realpath(path))
    try:
        mode = real.stat().st_mode
    except FileNotFoundError:
        if not real.parent.is_dir():
            return f"{path} cannot be made: there is no folder {real.parent}; make it, or name another place"
    except OSError as error:
        return f"{path} cannot be written to ({error.strerror}): name another place"
    else:
        if not stat.S_ISREG(mode):
            return f"{path} is {kind_of(mode)}: name a file"
        if not os.access(real, os.W_OK):
            return f"cannot write to {path}: it is not writable for this account"
    if not os.access(real.parent, os.W_OK | os.X_OK):
        return f"cannot write to {path}: {real.parent} is not writable for this account"
    return None


def warn_of_readers(path: Path, *, group: bool = False) -> None:
    """Name a file or folder that others may read: it was made by somebody else or by an earlier version, and is not changed."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (_BEYOND_THE_GROUP if group else _OTHERS):
        _log.warning(
            "%s can be read by others (mode %o) and holds patients' data; `chmod -R %s %s` makes it private",
            *(path, mode, "g-w,o=" if group else "go=", path),
        )


class Growing:
    """A file that only grows; an append that fails leaves it as it was, so that the next one can go on.

    Parameters
    ----------
    path
        It must not be there yet; it is made with the first append.
    tail
        Bytes that end the file; every append takes their place and writes them anew.
    """

    def __init__(self, path: Path, *, tail: bytes = b"", group: bool = False) -> None:
        self.path, self._tail, self._group = path, tail, group
        self._size, self._made = 0, False

    def append(self, data: bytes) -> None:
        """Write data at the end.

        Raises
        ------
        OSError
            If it could not be written whole.
        """
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC) if self._made else make_file(self.path, group=self._group)
        self._made = True
        start = max(0, self._size - len(self._tail))
        try:
            _write(descriptor, data + self._tail, start)
        except OSError as error:
            self._undo(descriptor, start)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        finally:
            os.close(descriptor)
        self._size = start + len(data) + len(self._tail)

    def _undo(self, descriptor: int, start: int) -> None:
        with suppress(OSError):  # what is left over is written over by the next append, or no header names it
            if self._size:
                _write(descriptor, self._tail, start)
                os.ftruncate(descriptor, self._size)
            else:
                os.unlink(self.path)
                self._made = False


def _write(descriptor: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written


class Claim:
    """The sole right to write somewhere: a lock that the end of the process releases, however it ends.

    Parameters
    ----------
    path
        The file to lock; made if it is not there, and left behind.
    what
        What is claimed, for the message.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what
        self._descriptor: int | None = None

    def take(self) -> None:
        """Claim it, unless that is done.

        Raises
        ------
        SinkError
            If another process has it.
        OSError
            If the file cannot be made.
        """
        if self._descriptor is not None:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _locked(descriptor, time.monotonic() + _CLAIM_S):
                raise SinkError(taken(self._what, _holder(descriptor)))
            with suppress(OSError):  # a full disk: the lock holds without a name in it
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another monitor have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()  # of a monitor that could not start


def taken(what: str, process: str) -> str:
    """Return what is said of a place that another monitor has."""
    return f"{what}: another monitor writes there (process {process}); stop it, or name another place"


def _locked(descriptor: int, until_s: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                return False
            time.sleep(0.05)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning("this file system has no locks: see to it that no second monitor writes to the same place")
            return True
        else:
            return True


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"


def holder(path: Path) -> str | None:
    """Return the process that has claimed what this file locks; None if nobody has."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None
