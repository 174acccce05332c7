"""Which files are recordings: by their names, and by a look into those that could be something else. No sample is read here."""

from __future__ import annotations

import codecs
import errno
import gzip
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable
from os.path import isfile  # false too for a name that is too long, for which a Path raises
from pathlib import Path
from typing import Literal, NamedTuple

from ecgnat_stream.errors import DeviceError
from ecgnat_stream.places import kind_of
from ecgnat_stream.tables import BEGINNING, NoTableError, layout
from ecgnat_stream.wfdb_header import NO_FILE, Header, read_header
from ecgnat_stream.words import counted

__all__ = [
    "SINGLE_FILES",
    "WFDB_SUFFIXES",
    "Format",
    "Found",
    "files_of",
    "find_recordings",
    "format_of",
    "header_of",
    "is_recording",
    "no_file",
    "not_read",
    "suffix_of",
]

Format = Literal["auto", "wfdb", "edf", "csv", "npy", "mat", "dicom", "aecg", "scp", "ishne", "philips", "muse"]

SINGLE_FILES: dict[str, Format] = {
    **dict.fromkeys((".edf", ".bdf", ".rec"), "edf"),
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".npy", ".npz"), "npy"),
    **{".mat": "mat", ".dcm": "dicom", ".scp": "scp", ".ecg": "ishne", ".xml": "aecg"},
}
"""Suffixes of files that are a recording by themselves, also when gzip has packed them (``.csv.gz``), and what they are if their
content does not say."""

_NO_TEXT = (*(".xlsx", ".xls", ".xlsm", ".ods", ".json", ".jsonl", ".parquet", ".feather", ".h5", ".hdf5", ".pkl", ".pickle"),)
"""Suffixes of files in which people keep tables and arrays, and which are not read: said of each kind that a folder holds."""

_REFUSED = (*_NO_TEXT, ".html", ".htm", ".pdf")
"""Suffixes of what the reader of tables refuses: it says what they are, and what to do."""

WFDB_SUFFIXES = (".hea", ".dat", ".mat", ".flac")
"""Suffixes of the files of a WFDB record; the name without them is the record's."""

_LOOKED_INTO = (".csv", ".tsv", ".txt", ".mat", ".ecg", ".xml", ".rec")
"""Suffixes that other files have too: found in a folder, such a file counts only if its content is that of a recording."""

_MAGIC: tuple[tuple[int, bytes, Format], ...] = (
    (0, b"0       ", "edf"),
    (0, b"\xffBIOSEMI", "edf"),
    (0, b"GDF ", "edf"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"MATLAB 5.0", "mat"),
    (0, b"ISHNE1.0", "ishne"),
    (128, b"DICM", "dicom"),
    (16, b"SCPECG", "scp"),
)
"""Where in a file of a format which bytes stand. SCP-ECG: the name of the standard in the header of section 0 (EN 1064, 5.3)."""

_ROOTS: dict[str, Format] = {"annotatedecg": "aecg", "restingecgdata": "philips", "restingecg": "muse", "cardiologyxml": "muse"}
"""Root elements of XML, small letters, without the namespace."""

_ROOT = re.compile(r"<\s*(?:[\w.-]+:)?([A-Za-z_][\w.-]*)")

_LOOK_BYTES = 65_536


class Found(NamedTuple):
    """What a folder holds: recordings, a WFDB record by its header; and what was passed over, with the reason."""

    recordings: list[Path]
    passed: dict[Path, str]


def find_recordings(folder: Path, looked: Callable[[], None] | None = None) -> Found:
    """Return the recordings in a folder and below it, in the order of their names.

    WFDB records are found by their headers, without the segments of records that have several. A CSV or text file counts if it
    is a table of numbers. Kinds of files that :func:`not_read` knows are passed over, with a reason. Hidden files are left out.
    ``looked`` is called for every file that was looked at.
    """
    found = Found([], {})
    segments: set[Path] = set()
    others: list[Path] = []

    def refused(error: OSError) -> None:
        found.passed[Path(error.filename or folder)] = f"cannot be read ({error.strerror})"

    for place, folders, files in os.walk(folder, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if looked is not None:
                looked()
            path, suffix = Path(place, name), suffix_of(Path(name))
            if not name.startswith(".") and not is_recording(path):
                others.append(path)
            if name.startswith(".") or not is_recording(path) or (suffix in WFDB_SUFFIXES[1:] and header_of(path)):
                continue
            why = _look_at_header(path, segments) if suffix == ".hea" else _look_into(path, suffix)
            if why is None:
                found.recordings.append(path)
            else:
                found.passed[path] = why
    return Found([path for path in found.recordings if path not in segments], not_read(others) | found.passed)


def not_read(paths: Iterable[Path]) -> dict[Path, str]:
    """Return why spreadsheets, JSON, HDF5 and the like are passed over: the first file of each kind, with what to do and a count.

    Other files, pictures or programs, are none of these.
    """
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        if suffix_of(path) in _NO_TEXT:
            kinds.setdefault(suffix_of(path), []).append(path)
    said = {}
    for suffix, (first, *rest) in kinds.items():
        more = f" (and {counted(len(rest), f'more {suffix} file')})" if rest else ""
        said[first] = f"{_no_table(first) or 'holds no recording'}{more}"
    return said


def suffix_of(path: Path) -> str:
    """Return the suffix of a name in small letters, that of what is packed for ``.gz``."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def is_recording(path: Path) -> bool:
    """Return whether a file is called as a recording is, a WFDB record as its header."""
    return path.suffix.lower() == ".hea" or suffix_of(path) in SINGLE_FILES


def format_of(path: Path) -> Format:
    """Return the format of a recording: a WFDB record if there is a header, else what its content says, else its suffix."""
    if (path.suffix.lower() not in SINGLE_FILES or path.suffix.lower() in WFDB_SUFFIXES) and header_of(path) is not None:
        return "wfdb"
    return _by_content(path) or SINGLE_FILES.get(suffix_of(path), "csv" if suffix_of(path) in _REFUSED else "wfdb")


def _by_content(path: Path) -> Format | None:
    """Return the format that the beginning of a file tells; None if it does not."""
    begins = _bytes(path, _LOOK_BYTES)
    for at, magic, fmt in _MAGIC:
        if begins[at : at + len(magic)] == magic:
            return fmt
    text = _text(begins)
    root = _ROOT.search(text) if text.lstrip()[:1] == "<" else None
    return None if root is None else _ROOTS.get(root[1].lower())


def _look_into(path: Path, suffix: str) -> str | None:
    """Say why a file that is called as a recording is none, or return None."""
    if suffix not in _LOOKED_INTO or _by_content(path) is not None:
        return None
    if SINGLE_FILES[suffix] != "csv":
        return "holds no recording"
    return _no_table(path)


def header_of(path: Path) -> Path | None:
    """Return the header of the WFDB record that a name stands for, or that a file of it belongs to; None if there is none."""
    return next((header for header in _headers(path) if isfile(header)), None)


def _headers(path: Path) -> list[Path]:
    """Return where the header of a WFDB record may be that a name stands for, or that a file of it belongs to."""
    if not path.name:
        return []  # "." and "/"
    if path.suffix.lower() == ".hea":
        stems = [path.with_suffix("")]
    elif path.suffix and (path.suffix.lower() not in SINGLE_FILES or path.suffix.lower() in WFDB_SUFFIXES):
        stems = [path, path.with_suffix("")]
    else:
        stems = [path]
    return [stem.with_name(stem.name + suffix) for stem in stems for suffix in (".hea", ".HEA", ".Hea")]


def no_file(path: Path) -> str | None:
    """Say what there is in place of a recording or of its header that is no file, and what to do; None if there is nothing."""
    for place in (path, *_headers(path)):
        kind = _other_kind(place)
        if kind is not None and place != path:
            return f"is no recording: its header {place.name} is no file but {kind}"
        if kind in ("a folder", "a link to what is not there", "a loop of links"):
            return f"is no file but {kind}: name a recording"
        if kind is not None:
            return f"is no file but {kind}, which cannot be read from any place: copy what it gives into a file"
    return None


def _other_kind(place: Path) -> str | None:
    """Return what is at a place, unless that is a file or nothing."""
    try:
        mode = os.stat(place).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            return "a loop of links"
        return "a link to what is not there" if os.path.islink(place) else None
    return None if stat.S_ISREG(mode) else kind_of(mode)


def files_of(recording: Path) -> set[Path]:
    """Return the files that a recording is read from; of a WFDB record its header and what that names, with all segments."""
    if recording.suffix.lower() != ".hea":
        return {recording}
    files, segments = _named_by(recording)
    return files.union(*(_named_by(segment)[0] for segment in segments - files))


def _named_by(header: Path) -> tuple[set[Path], set[Path]]:
    """Return the files of a header, wherever they may lie, and the headers of its segments."""
    files = {header, *(header.with_suffix(suffix) for suffix in WFDB_SUFFIXES[1:])}
    try:
        said = read_header(header)
    except DeviceError:
        return files, set()  # its reader says what is wrong with it
    names = {signal.file for signal in said.signals if _is_name(signal.file)}
    files |= {header.parent / place for name in names for place in (name, re.split(r"[/\\]", name)[-1])}
    return files, _segments(said)


def _segments(header: Header) -> set[Path]:
    return {header.path.parent / f"{name}.hea" for name, _ in header.segments if _is_name(name)}


def _is_name(word: str) -> bool:
    """Return whether a word of a header can be the name of a file; "~" and "-" are none in header(5)."""
    return word not in (NO_FILE, "-") and "\0" not in word


def _look_at_header(path: Path, segments: set[Path]) -> str | None:
    """Add the segments that a header names; say why it describes no recording, or return None."""
    try:
        header = read_header(path)
    except DeviceError:
        return None  # its reader says what is wrong with it
    segments |= _segments(header)
    return None if header.signals or header.segments else "describes no signals"


def _no_table(path: Path) -> str | None:
    """Say why a file is no table of samples, or return None."""
    try:
        layout(_bytes(path, BEGINNING))
    except NoTableError as error:
        return str(error)
    return None


def _bytes(path: Path, most: int) -> bytes:
    """Return what a file begins with, unpacked; nothing if it cannot be read, or is a pipe, for which one would wait."""
    if not isfile(path):
        return b""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return file.read(most)
    except (OSError, EOFError, zlib.error):
        return b""


def _text(begins: bytes) -> str:
    is_utf16 = begins[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return begins.decode("utf-16" if is_utf16 else "utf-8-sig", "replace")
