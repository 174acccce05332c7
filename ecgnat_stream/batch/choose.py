"""Which recordings a command is asked for: files, folders and patterns in, each recording once, with a name of its own, out."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.places import NAMES_NOTHING, path_of
from ecgnat_stream.recordings import WFDB_SUFFIXES, find_recordings, header_of, is_recording, no_file, not_read

__all__ = ["Chosen", "RecordingFile", "choose"]


class RecordingFile(msgspec.Struct, frozen=True, kw_only=True):
    """One recording to analyse.

    Parameters
    ----------
    path
        Absolute; of a WFDB record its header.
    name
        Its place below the folder that all recordings lie in, without suffix where that is unique: names of outputs.
    size, modified_ns
        Of its files, to see that they are still the same: bytes, and the time of the last change.
    """

    path: str
    name: str
    size: int
    modified_ns: int


class Chosen(NamedTuple):
    """What was found, what was passed over in folders, and what was asked for but is not there, each with the reason."""

    recordings: list[RecordingFile]
    passed: dict[str, str]
    missing: dict[str, str]


def choose(arguments: Sequence[str], looked: Callable[[], None] | None = None) -> Chosen:
    """Return the recordings that files, folders and patterns stand for, in the order of the arguments.

    A folder is searched with all folders below it. A pattern (``*``, ``?``, ``[...]``, ``**``) that the shell has not replaced is
    matched here. A WFDB record counts once, whichever of its files are named.
    ``looked`` is called for every file that was looked at in folders.
    """
    paths: dict[Path, None] = {}
    passed: dict[str, str] = {}
    missing: dict[str, str] = {}
    for argument in arguments:
        if not argument.strip():
            missing[repr(argument)] = NAMES_NOTHING
            continue
        try:
            _find(argument, paths, passed, missing, looked)
        except OSError as error:
            missing[argument] = f"cannot be read ({error.strerror})"
        except ConfigError as error:
            missing[argument] = str(error).removeprefix(f"{argument}: ")
    return Chosen([_recording(path, name) for path, name in _named(list(paths)).items()], passed, missing)


def _find(
    argument: str, paths: dict[Path, None], passed: dict[str, str], missing: dict[str, str], looked: Callable[[], None] | None
) -> None:
    path = path_of(argument)
    header = header_of(path)
    if path.is_dir():
        found = find_recordings(path, looked)
        paths |= dict.fromkeys(_absolute(found.recordings))
        passed |= {str(one): why for one, why in found.passed.items()}
    elif header is not None or path.is_file():
        paths |= dict.fromkeys(_absolute([header or path]))
    elif glob.has_magic(argument):
        _match(argument, paths, passed, missing, looked)
    else:
        missing[argument] = no_file(path) or "there is no such file, folder or record"


def _match(
    pattern: str, paths: dict[Path, None], passed: dict[str, str], missing: dict[str, str], looked: Callable[[], None] | None
) -> None:
    matches = [Path(match) for match in sorted(glob.glob(str(path_of(pattern)), recursive=True))]
    before = len(paths)
    known = False
    others: list[Path] = []
    for match in matches:
        if match.is_dir():
            found = find_recordings(match, looked)
            known = known or bool(found.recordings)
            paths |= dict.fromkeys(_absolute(found.recordings))
            passed |= {str(one): why for one, why in found.passed.items()}
        elif (header := header_of(match)) is not None or is_recording(match):
            known = True
            paths |= dict.fromkeys(_absolute([header or match]))
        else:
            others.append(match)
    passed |= {str(one): why for one, why in not_read(others).items()}
    if len(paths) == before and not known:
        missing[pattern] = "matches no recording" if matches else "matches nothing"


def _absolute(paths: Iterable[Path]) -> list[Path]:
    return [Path(os.path.abspath(path)) for path in paths]


def _named(paths: Sequence[Path]) -> dict[Path, str]:
    """Name each path by its place below what they have in common; a suffix tells apart what would be called the same."""
    if not paths:
        return {}
    root = os.path.commonpath([path.parent for path in paths])
    short = {path: str(path.relative_to(root).with_suffix("")) for path in paths}
    often = Counter(name.casefold() for name in short.values())
    return {
        path: name if often[name.casefold()] == 1 or path.suffix.lower() == ".hea" else str(path.relative_to(root))
        for path, name in short.items()
    }


def _recording(path: Path, name: str) -> RecordingFile:
    files = [path]
    if path.suffix.lower() == ".hea":
        files += [path.with_suffix(suffix) for suffix in WFDB_SUFFIXES[1:]]
    known = []
    for file in files:
        try:
            known.append(file.stat())
        except OSError:
            continue
    size, modified = sum(stat.st_size for stat in known), max((stat.st_mtime_ns for stat in known), default=0)
    return RecordingFile(path=str(path), name=name, size=size, modified_ns=modified)
