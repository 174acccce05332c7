"""Where results are to go: tried before anything is analysed, so that no work is lost at a place that cannot be written."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.recordings import files_of, header_of

if TYPE_CHECKING:
    from ecgnat_stream.batch.choose import RecordingFile
    from ecgnat_stream.batch.work import Order

__all__ = ["check_targets"]

_OURS = (".ecg", ".png", ".html", ".json", ".jsonl", ".csv")
"""Suffixes of what is written. A file beside a header, with its name and another suffix, belongs to the record: 100.atr, say."""


def check_targets(order: Order, recordings: Sequence[RecordingFile], files: Iterable[Path]) -> None:
    """Try the places of all that is to be written. Nothing is changed.

    Parameters
    ----------
    order
        Names the folders.
    files
        Other files that will be written.

    Raises
    ------
    ConfigError
        For a folder in the place of a file or the other way round, a place that cannot be written, a file that is named twice,
        and one that holds a recording which is to be read.
    """
    targets = [*files, *([order.html / "index.html"] if order.html is not None else [])]
    targets += [path for recording in recordings for path in order.files_of(recording)]
    often = Counter(map(os.path.realpath, targets))
    if twice := next((path for path in targets if often[os.path.realpath(path)] > 1), None):
        raise ConfigError(f"{twice}: two results cannot go to one file: name another one")
    try:
        for folder in (order.html, order.annotations, order.plots):
            if folder is not None and folder.exists() and not folder.is_dir():
                raise ConfigError(f"{folder}: is a file, but a folder is wanted here")
        for path in targets:
            _try_file(path)
        for folder in dict.fromkeys(path.parent for path in targets if not path.exists() or path.is_file()):
            _try_folder(folder)
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be written ({error.strerror})") from error
    _spare(recordings, targets)


def _try_file(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, but a file is wanted here: name one in it")
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"{path}: cannot be written: this account may not change it")


def _try_folder(folder: Path) -> None:
    """Write a file without a name into a folder; into the one that is there, if folders must be made first."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise ConfigError(f"{folder}: there can be no such folder, {there} is a file")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(f"{folder}: nothing can be written here ({error.strerror})") from error


def _spare(recordings: Sequence[RecordingFile], targets: Iterable[Path]) -> None:
    """Refuse to write over what is to be read, whatever name leads to it."""
    there = {known: path for path in targets if (known := _identity(path)) is not None}
    if not there:
        return
    asked = {Path(recording.path): recording for recording in recordings}
    for path in there.values():
        header = None if path.suffix.lower() in _OURS else header_of(Path(os.path.abspath(path)))
        if header in asked:
            raise _read(path, asked[header])
    for source, recording in asked.items():
        for file in files_of(source):
            known = _identity(file)
            if known in there:
                raise _read(there[known], recording)


def _read(path: Path, recording: RecordingFile) -> ConfigError:
    return ConfigError(f"{path}: will not be written over, it belongs to the recording {recording.name}: name another place")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        known = path.stat()
    except OSError:
        return None
    return known.st_dev, known.st_ino
