"""Headers of WFDB records, read from their bytes as header(5) of the WFDB Applications Guide says. No sample is read here.

What a line says counts, and nothing is dropped from it: a line that cannot be understood is refused with its number.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from datetime import date, time
from os.path import isfile  # false too for a name that is too long, for which a Path raises
from pathlib import Path

from ecgnat_stream.errors import DeviceError
from ecgnat_stream.signal import lead_of, mv_per
from ecgnat_stream.words import NAME, cleaned

__all__ = [
    "DEFAULT_GAIN",
    "DEFAULT_HZ",
    "NO_FILE",
    "Described",
    "Header",
    "file_of",
    "lines_of",
    "parse",
    "read_header",
    "text_of",
]

DEFAULT_HZ = 250.0
"""Frames per second of a header that gives no rate: header(5)."""

DEFAULT_GAIN = 200.0
"""Steps per unit of a signal whose gain is missing or 0: header(5)."""

NO_FILE = "~"
"""The name of no file, or of no segment: header(5)."""

MOST_BYTES = 2**20
"""Largest header: one of 256 signals has less than 50 KB, one of 10,000 segments less than 300 KB."""

MOST_SIGNALS, MOST_SEGMENTS, MOST_PER_FRAME = 256, 10_000, 1000

MOST_IN_LINE = 2000
"""Longest line that is not a comment, characters."""

MOST_SKEW_S = 10.0
"""Largest skew between signals: so much more of a signal is read, each time."""

_BLANK = re.compile(r"[ \t]+")
_BREAK = re.compile(r"\r\n|\r|\n")
_COUNT = re.compile(r"\d{1,18}")
_WHOLE = re.compile(r"[-+]?\d{1,18}")
_NUMBER = r"[-+]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:[eE][-+]?\d{1,4})?|[-+]?inf|nan"
_RECORD = re.compile(r"(?P<name>\S.*?)(?:/(?P<segments>\d+))?[ \t]+(?P<signals>\d+)(?:[ \t]+(?P<rest>[^ \t].*))?")
_RATE = re.compile(rf"(?P<fs>{_NUMBER})(?:/(?:{_NUMBER}))?(?:\((?:{_NUMBER})\))?")
_SIGNAL = re.compile(
    r"(?P<file>\S.*?)[ \t]+(?P<format>\d+)(?:x(?P<per_frame>\d+))?(?::(?P<skew>-?\d+))?(?:\+(?P<offset>-?\d+))?"
    r"(?:[ \t]+(?P<rest>[^ \t].*))?"
)
_GAIN = re.compile(rf"(?P<gain>{_NUMBER})(?:\((?P<baseline>{_NUMBER})\))?(?:/(?P<unit>[^ \t]+))?")
_SEGMENT = re.compile(r"(?P<name>\S.*?)[ \t]+(?P<length>\d{1,18})")
_TIME = re.compile(r"\[?(?:(?:(\d+):)?(\d+):)?(\d+)(?:\.\d*)?")
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})\]?")


@dataclass(frozen=True, slots=True)
class Described:
    """One signal, as its line describes it.

    Parameters
    ----------
    file
        Name of its file as it stands there, ``NO_FILE`` for none.
    format
        Number of the format of signal(5).
    per_frame
        Samples in a frame.
    skew
        Frames by which it comes late in its file.
    offset
        Where its samples begin in the file, bytes.
    gain, baseline
        Steps per unit, and the step that is 0.
    unit
        "mV" if the line gives none: header(5).
    initial
        The sample before the first, for differences.
    name
        "" if the line gives none.
    calibrated
        Whether the line gives a gain.
    """

    file: str
    format: int
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: float
    unit: str
    initial: int
    name: str
    calibrated: bool


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says.

    Parameters
    ----------
    fs
        Frames per second; None if it gives none.
    length
        In frames; None if it leaves it open.
    signals
        Empty for a record that has segments.
    segments
        Name and length in frames of each, ``NO_FILE`` for a gap.
    comments
        Lines behind "#", without it.
    notes
        What it says that is no time and no date.
    """

    path: Path
    fs: float | None
    length: int | None
    signals: tuple[Described, ...] = ()
    segments: tuple[tuple[str, int], ...] = ()
    comments: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_header(path: Path) -> Header:
    """Read the header at a path.

    Raises
    ------
    DeviceError
        If it is none, or says what no recording has.
    """
    if not isfile(path):
        raise _wrong(path, "is no file")  # and a pipe would be waited for
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read ({error.strerror})") from error
    if len(content) > MOST_BYTES:
        raise _wrong(path, f"has {path.stat().st_size} bytes: a WFDB header has at most {MOST_BYTES}")
    return parse(content, path)


def text_of(content: bytes) -> str:
    """Decode a header: UTF-8 or UTF-16 where it says so, else each line UTF-8 or, if it is not that, Latin-1."""
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return content.decode("utf-16", "replace")
    return "\n".join(_decoded(line) for line in re.split(rb"\r\n|\r|\n", content.removeprefix(codecs.BOM_UTF8)))


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def lines_of(text: str) -> list[tuple[int, str]]:
    """Return the lines that say something, with their numbers; no comments."""
    numbered = ((number, line.strip()) for number, line in enumerate(_BREAK.split(text), 1))
    return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def parse(content: bytes, path: Path) -> Header:
    """Return what the bytes of a header say; ``path`` is where it lies, for its name and for messages.

    Raises
    ------
    DeviceError
        As for :func:`read_header`.
    """
    text = text_of(content)
    lines = lines_of(text)
    if not lines:
        raise _wrong(path, "is no WFDB header: it is empty")
    if long := [number for number, line in lines if len(line) > MOST_IN_LINE]:
        raise _wrong(path, f"has a line (line {long[0]}) of more than {MOST_IN_LINE} characters, which no WFDB header has")
    record = _record_line(path, lines[0][1])
    several, count = record["segments"], record["signals"] or ""
    fs, length, notes = _rate_length_and_time(path, record["rest"] or "")
    comments = tuple(line.strip().lstrip("#").strip() for line in _BREAK.split(text) if line.strip().startswith("#"))
    others = lines[1:]
    if several is not None:
        if len(several) > 6 or not 1 <= int(several) <= MOST_SEGMENTS:
            raise _wrong(path, f"names {several[:20]} segments: 1 to {MOST_SEGMENTS} are read")
        if int(several) != len(others):
            raise _wrong(path, f"says that it has {several} segments, and lists {len(others)}: mend its first line")
        segments = tuple(_segment(path, number, line) for number, line in others)
        return Header(path, fs, length, segments=segments, comments=comments, notes=notes)
    if len(count) > 6 or int(count) > MOST_SIGNALS:
        raise _wrong(path, f"describes {count[:20]} signals: at most {MOST_SIGNALS} are read")
    if int(count) != len(others):
        raise _wrong(path, f"says that it has {count} signals, and describes {len(others)}: mend its first line")
    signals = tuple(_signal(path, number, line, row, fs) for row, (number, line) in enumerate(others))
    return Header(path, fs, length, signals, comments=comments, notes=notes)


def _wrong(path: Path, what: str) -> DeviceError:
    return DeviceError(f"{path}: {what}", permanent=True)


def _unclear(path: Path, number: int, line: str, what: str) -> DeviceError:
    return _wrong(path, f"line {number} ({cleaned(line, NAME)}) {what}")


def _record_line(path: Path, line: str) -> dict[str, str | None]:
    # The name may hold blanks and numbers. It is that of the file, unless the file was renamed.
    known = re.compile(rf"(?P<name>{re.escape(path.stem)})(?:/(?P<segments>\d+))?[ \t]+(?P<signals>\d+)(?:[ \t]+(?P<rest>.*))?")
    match = known.fullmatch(line) or _RECORD.fullmatch(line)
    if match is None:
        raise _wrong(path, f"is no WFDB header: it begins with {cleaned(line, NAME)!r}, not with a name and how many signals")
    return match.groupdict()


def _rate_length_and_time(path: Path, rest: str) -> tuple[float | None, int | None, tuple[str, ...]]:
    words = _BLANK.split(rest.strip()) if rest.strip() else []
    fs: float | None = None
    if words:
        match = _RATE.fullmatch(words[0])
        if match is None or not float(match["fs"]) >= 0:
            raise _wrong(path, f"gives the rate {cleaned(words[0], NAME)}, which is no number of Hz: mend its first line")
        fs = float(match["fs"])
    length: int | None = None
    if len(words) > 1:
        if not _COUNT.fullmatch(words[1]):
            raise _wrong(path, f"gives the length {cleaned(words[1], NAME)}, which is no number of samples: mend its first line")
        length = int(words[1]) or None
    return fs, length, _time_notes(words[2:])


def _time_notes(words: list[str]) -> tuple[str, ...]:
    """Say what of a time and a date is none; nothing is refused for it."""
    notes = []
    if words and not _is_time(words[0]):
        notes.append(f"its time {cleaned(words[0], NAME)} is no time of day: when it was recorded is unknown")
    if len(words) > 1 and not _is_date(words[1]):
        notes.append(f"its date {cleaned(words[1], NAME)} is no day (DD/MM/YYYY): when it was recorded is unknown")
    if len(words) > 2:
        notes.append(f"what stands behind its date is not read: {cleaned(' '.join(words[2:]), NAME)}")
    return tuple(notes)


def _is_time(word: str) -> bool:
    match = _TIME.fullmatch(word)
    if match is None:
        return False
    try:
        hour, minute, second = (int(part or 0) for part in match.groups())
        time(hour, minute, second)
    except (ValueError, OverflowError):
        return False
    return True


def _is_date(word: str) -> bool:
    match = _DATE.fullmatch(word)
    if match is None:
        return False
    day, month, year = map(int, match.groups())
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _segment(path: Path, number: int, line: str) -> tuple[str, int]:
    match = _SEGMENT.fullmatch(line)
    if match is None:
        raise _unclear(path, number, line, "is no segment: give its name and its length in samples")
    return match["name"], int(match["length"])


def _signal(path: Path, number: int, line: str, row: int, fs: float | None) -> Described:
    match = _SIGNAL.fullmatch(line)
    if match is None or len(match["format"]) > 6:
        raise _unclear(path, number, line, "describes no signal: give its file and its format")
    rest = match["rest"] or ""
    word, behind = _cut(rest)
    gain = _GAIN.fullmatch(word)
    if gain is None:
        if word[:1] in ("(", "/") or re.match(r"[-+]?\.?\d", word):
            raise _unclear(path, number, line, f"has the gain {cleaned(word, NAME)}: write it as gain(baseline)/unit, 200(0)/mV")
        behind = rest  # no gain, no more numbers: the rest is a name
    numbers: list[int] = []
    while gain is not None and len(numbers) < 5:
        word, others = _cut(behind)
        if not _WHOLE.fullmatch(word):
            break
        numbers.append(int(word))
        behind = others
    if len(numbers) < 5 and _hides_numbers(behind, is_behind_gain=gain is not None):
        raise _unclear(
            path,
            number,
            line,
            "cannot be understood: after the format it should go on like 200(0)/mV 16 0 0 0 0 II, without other blanks",
        )
    zero = numbers[1] if len(numbers) > 1 else 0
    steps = float(gain["gain"]) if gain else 0.0
    described = Described(
        file=match["file"],
        format=int(match["format"]),
        per_frame=max(1, _limited(match["per_frame"])),
        skew=_limited(match["skew"]),
        offset=_limited(match["offset"]),
        gain=steps or DEFAULT_GAIN,
        baseline=float(gain["baseline"]) if gain and gain["baseline"] else float(zero),
        unit=(gain["unit"] if gain else None) or "mV",
        initial=numbers[2] if len(numbers) > 2 else zero,
        name=behind,
        calibrated=bool(steps),
    )
    lead = described.name or f"CH{row + 1}"
    most_skew = MOST_SKEW_S * (fs or DEFAULT_HZ)
    if not 0 <= described.skew <= most_skew:
        raise _wrong(path, f"lead {lead} has a skew of {described.skew} samples: at most {MOST_SKEW_S:g} s are read")
    if described.per_frame > MOST_PER_FRAME:
        raise _wrong(path, f"lead {lead} has {described.per_frame} samples per frame: at most {MOST_PER_FRAME} are read")
    if described.offset < 0:
        raise _wrong(path, f"lead {lead} begins at byte {described.offset} of its file")
    return described


def _cut(text: str) -> tuple[str, str]:
    """Return the first word of a text and what stands behind it."""
    word, *behind = _BLANK.split(text, maxsplit=1)
    return word, behind[0] if behind else ""


def _limited(digits: str | None) -> int:
    return int((digits or "0")[:19])


def _hides_numbers(name: str, *, is_behind_gain: bool) -> bool:
    """Tell whether what should be a name holds what should stand before it: numbers, or a unit or another word before a lead."""
    words = _BLANK.split(name)
    numbers = [bool(re.fullmatch(_NUMBER, word)) for word in words]
    if is_behind_gain and words[0] != "V" and mv_per(words[0]) is not None:  # V is a lead too
        return True
    if is_behind_gain and len(words) > 1 and lead_of(name) is None and lead_of(" ".join(words[1:])) is not None:
        return True
    return words[0][:1] in ("(", "/") or (len(words) > 1 and numbers[0]) or sum(numbers) > 2


def file_of(header: Path, name: str) -> Path | None:
    """Return where the file lies that a header names, None if nowhere.

    It lies as the name says, from the folder of the header or absolute; or else beside the header, which a record that was moved
    keeps; or else there with other small and capital letters.
    """
    names = dict.fromkeys((name, name.replace("\\", "/"), re.split(r"[/\\]", name)[-1]))
    places = [folder / wanted for folder in dict.fromkeys((header.parent, header.resolve().parent)) for wanted in names if wanted]
    found = next((place for place in places if isfile(place)), None)
    return found or next((alike for place in places if (alike := _alike(place)) is not None), None)


def _alike(place: Path) -> Path | None:
    try:
        files = [file for file in place.parent.iterdir() if file.name.lower() == place.name.lower() and isfile(file)]
    except (OSError, ValueError):
        return None
    return files[0] if len(files) == 1 else None
