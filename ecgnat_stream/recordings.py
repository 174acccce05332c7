"""Which files are recordings: by their names, and by a look into those that could be something else. No sample is read here."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["SINGLE_FILES", "WFDB_SUFFIXES", "Format", "Found", "decimal_comma", "files_of", "find_recordings", "header_of"]

Format = Literal["auto", "wfdb", "edf", "csv", "npy"]

SINGLE_FILES: dict[str, Format] = {".edf": "edf", ".bdf": "edf", ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".npy": "npy"}
"""Suffixes of files that are a recording by themselves."""

WFDB_SUFFIXES = (".hea", ".dat", ".mat", ".flac")
"""Suffixes of the files of a WFDB record; the name without them is the record's."""

_LOOK_BYTES = 65_536
_HEADER_BYTES = 2**20

_WITH_COMMA = re.compile(r'"?[-+]?\d+(,\d+)?(e[-+]?\d+)?"?', re.IGNORECASE)
"""A number whose decimals stand behind a comma, as spreadsheets write it in many countries."""


class Found(NamedTuple):
    """What a folder holds: recordings, a WFDB record by its header; and what was passed over, with the reason."""

    recordings: list[Path]
    passed: dict[Path, str]


def find_recordings(folder: Path) -> Found:
    """Return the recordings in a folder and below it, in the order of their names.

    WFDB records are found by their headers, without the segments of records that have several. A CSV or text file counts if it
    is a table of numbers. Hidden files are left out.
    """
    found = Found([], {})
    segments: set[Path] = set()

    def refused(error: OSError) -> None:
        found.passed[Path(error.filename or folder)] = f"cannot be read ({error.strerror})"

    for place, folders, files in os.walk(folder, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path, suffix = Path(place, name), Path(name).suffix.lower()
            if name.startswith(".") or (suffix != ".hea" and suffix not in SINGLE_FILES):
                continue
            why = None
            if suffix == ".hea":
                why = _look_at_header(path, segments)
            elif SINGLE_FILES[suffix] == "csv" and not _is_table(path):
                why = decimal_comma(path) or "is no table of numbers"
            if why is None:
                found.recordings.append(path)
            else:
                found.passed[path] = why
    return Found([path for path in found.recordings if path not in segments], found.passed)


def header_of(path: Path) -> Path | None:
    """Return the header of the WFDB record that a name stands for, or that a file of it belongs to; None if there is none."""
    if not path.name:
        return None  # "." and "/"
    candidates = [path.with_name(f"{path.name}.hea")]
    if path.suffix and path.suffix.lower() not in SINGLE_FILES:
        candidates.insert(0, path.with_suffix(".hea"))
    return next((header for header in candidates if header.is_file()), None)


def files_of(recording: Path) -> set[Path]:
    """Return the files that a recording is read from; of a WFDB record its header and what that names, with all segments."""
    if recording.suffix.lower() != ".hea":
        return {recording}
    files = {recording, *(recording.with_suffix(suffix) for suffix in WFDB_SUFFIXES[1:])}
    first, *others = _header_lines(recording, most=_HEADER_BYTES) or [[""]]
    named = [recording.parent / words[0] for words in others if _is_name(words[0])]
    if "/" not in first[0]:
        return files | set(named)
    segments = {Path(f"{segment}.hea") for segment in named} - files
    return files.union(*(_files_of_segment(segment) for segment in segments))


def _files_of_segment(header: Path) -> set[Path]:
    """Return the files of a segment, which has none of its own."""
    first, *others = _header_lines(header, most=_HEADER_BYTES) or [[""]]
    named = set() if "/" in first[0] else {header.parent / words[0] for words in others if words[0] not in ("~", "-")}
    return {header, *(header.with_suffix(suffix) for suffix in WFDB_SUFFIXES[1:])} | named


def _header_lines(path: Path, most: int = _LOOK_BYTES) -> list[list[str]]:
    return [line.split() for line in _beginning(path, most).splitlines() if line.strip() and not line.startswith("#")]


def _is_name(word: str) -> bool:
    """Return whether a word of a header can be the name of a file; "~" and "-" are none in header(5)."""
    return word not in ("~", "-") and "\0" not in word


def _look_at_header(path: Path, segments: set[Path]) -> str | None:
    """Add the segments that a header names; say why it describes no recording, or return None. header(5) of the WFDB guide."""
    lines = _header_lines(path)
    if not lines or len(lines[0]) < 2:
        return None  # whatever it is, its reader says
    _, several, _ = lines[0][0].partition("/")
    if several:
        segments |= {path.parent / f"{words[0]}.hea" for words in lines[1:] if _is_name(words[0])}
    return "describes no signals" if lines[0][1] == "0" else None


def _is_table(path: Path) -> bool:
    lines = [line for line in _beginning(path).splitlines()[:4] if line.strip()]
    return any(_numbers(line) for line in lines[:2])


def decimal_comma(path: Path) -> str:
    """Return what is wrong with a table whose numbers have decimal commas, and what to do; empty for all others."""
    for line in _beginning(path).splitlines()[:4]:
        cells = [cell.strip() for cell in re.split("[;\t]", line) if cell.strip()]
        number = next((cell.strip('"') for cell in cells if "," in cell), None)
        if number is not None and len(cells) > 1 and all(_WITH_COMMA.fullmatch(cell) for cell in cells):
            points = number.replace(",", ".")
            return (
                f"has decimal commas ({number}), which are not read: save it with decimal points ({points}), "
                f"for example sed 's/,/./g' {shlex.quote(path.name)} > points{path.suffix}"
            )
    return ""


def _numbers(line: str) -> bool:
    delimiter = next((mark for mark in ",;\t" if mark in line), None)
    try:
        return bool([float(cell) for cell in line.split(delimiter) if cell.strip()])
    except ValueError:
        return False


def _beginning(path: Path, most: int = _LOOK_BYTES) -> str:
    try:
        with path.open("rb") as file:
            return file.read(most).decode("utf-8-sig", "replace")
    except OSError:
        return ""
