"""What a column of times, or of a counter, says of the rows of a table: their rate, and where rows are missing.

Times are taken as they are found: with jitter, coarse ("0.003", "0.006"), many rows to a stamp, with empty cells, as a counter
that wraps. A hole is a jump that stays: a stamp that is late, and those after it are not, is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["TextTimes", "Timeline", "TimelineError", "insert_holes", "is_index", "is_time", "timeline", "unit_s"]

Values = NDArray[np.float64]
Read = Callable[[int, int], Values]

_UNITS_S = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "sek", "sekunden", "secondes", "segundos"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds", "millis", "millisekunden"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "usec", "microsecond", "microseconds", "micros"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds", "nanos"), 1e-9),
    **dict.fromkeys(("min", "minute", "minutes", "minuten"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("day", "days"), 86_400.0),
}
_TIMES = frozenset(
    (
        "time",
        "times",
        "timestamp",
        "timestamps",
        "datetime",
        "elapsed",
        "zeit",
        "zeitstempel",
        "uhrzeit",
        "temps",
        "tiempo",
        "tempo",
    )
)
_COUNTS = frozenset(("sample", "samples", "index", "idx", "nseq", "seq", "counter", "unnamed", "row", "frame", "abtastwert"))

_RATES = (20.0, 20_000.0)
"""Rates in Hz that tell the unit of a time without one: they are a factor of 1000 apart, so that one of
s, ms, us, ns and days fits."""

_LOOKS, _LOOK = 64, 4096
"""Places, and rows at each, that tell how the times step."""

_STANDS = 0.1
"""Most rows with the count of the row before, as a part: beyond, packets are counted, or time stands in coarse steps."""

_CHUNK = 2**19
_TURNS = 4
_MOST_HOLES = 200_000
_MOST_HOLE_S = 14 * 86_400.0
"""Longest hole in s: two weeks, the longest of common Holter recordings. Beyond, a clock was set."""

_VAGUE = 0.05
"""How little, as a part, stamps may say of the rate and still say it."""

_AROUND = 8
"""Changes of the time before and after a jump that tell how coarse the stamps are there, and where the rows are."""

_SAME = 1e-3
"""How far apart, as a part, two statements of one rate may be: clocks of cheap devices, and rates named in round numbers."""


class TimelineError(ValueError):
    """A time that is not usable, with its row, counted from 0, and what to do."""

    def __init__(self, row: int, what: str, cure: str = "cut the table there, or leave these times out") -> None:
        super().__init__(what)
        self.row, self.cure = row, cure


@dataclass(frozen=True, slots=True)
class Timeline:
    """Where the rows of a table are in time.

    Parameters
    ----------
    fs
        Rate in Hz; None if only a counter is there, or the stamps are too coarse to say it.
    within
        How far the rate may be from it, as a part.
    holes
        ``(row, missing)``: before which row how many are missing.
    doubles
        Rows with the time of the row before, where rows have times of their own.
    """

    fs: float | None
    within: float
    holes: tuple[tuple[int, int], ...]
    doubles: tuple[int, ...] = ()

    @property
    def vague(self) -> bool:
        """Whether there are times, but too coarse to say the rate."""
        return self.fs is None and self.within > 0

    def agrees(self, fs: float) -> bool:
        """Return whether a rate is the one of these times, as far as they can say."""
        return self.fs is None or abs(fs - self.fs) <= self.within * self.fs


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-zµμ])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^0-9a-zµμäöüéèê]+", spaced.lower()) if word]


def is_index(name: str) -> bool:
    """Return whether a column is called as one that counts or times its rows: time, timestamp, elapsed, sample, index, t."""
    words = _words(name)
    whole, first = name.strip().lower(), (words or [""])[0]
    return whole == "#" or whole in _COUNTS or first in _COUNTS or first == "t" or is_time(name)


def is_time(name: str) -> bool:
    """Return whether a column is called as one of times is."""
    return not _TIMES.isdisjoint(_words(name))


def unit_s(name: str) -> float | None:
    """Return the unit in s that a name says ("time_ms", "Elapsed time (s)", "ms"); None if none."""
    return next((_UNITS_S[word] for word in reversed(_words(name)) if word in _UNITS_S), None)


def timeline(
    read: Read, total: int, unit: float | None = None, *, fs: float | None = None, times: bool = False
) -> Timeline | None:
    """Read a column of times or of a counter; None if it says nothing, as one that stands still.

    Parameters
    ----------
    read
        ``read(start, stop)`` gives a part of the column.
    total
        Its length.
    unit
        Unit in s; without, s, ms, us, ns or days, by what rate comes out of it, and steps of 1 are a counter's.
    fs
        Rate in Hz that is given. Where the times agree with it, it sizes their holes.
    times
        Whether it is called as one of times is: then many rows to a stamp are no packets that are counted.

    Raises
    ------
    TimelineError
        If the times run backwards or leap.
    """
    steps = np.concatenate([_steps(*_finite(read, start, stop))[0] for start, stop in _looks(total)] or [np.zeros(0)])
    moving, times = steps[steps > 0], times or unit is not None
    if np.sum(steps < 0) > len(moving):
        row = next(int(rows[np.argmax(steps < 0)]) for steps, _, rows in _chunks(read, total) if np.any(steps < 0))
        raise TimelineError(row, "the times run backwards from there on", "sort the table by time")
    if len(moving) < max(1, len(steps) // 500):
        moving = np.concatenate([np.zeros(0), *(steps[steps > 0] for steps, _, _ in _chunks(read, total))])
        if not times or len(moving) < 2:
            return None
    if unit is None and _is_counter(steps, moving) and not (times and np.mean(steps == 0) > _STANDS):
        return _of_counter(read, total, float(np.median(moving)))
    mean = _mean_step(read, total)
    if unit is None:
        unit = next((one for one in (1.0, 1e-3, 1e-6, 1e-9, 86_400.0) if _RATES[0] <= 1 / (one * mean) < _RATES[1]), 1.0)
    return _of_times(read, total, unit, steps, mean, fs)


def insert_holes(values: NDArray[np.float64], line: Timeline) -> NDArray[np.float64]:
    """Return ``(L, T)`` with NaN where rows are missing."""
    rows = [row for row, _ in line.holes]
    return np.insert(values, np.repeat(rows, [missing for _, missing in line.holes]).astype(int), np.nan, axis=1)


def _looks(total: int) -> Iterator[tuple[int, int]]:
    last = max(0, total - _LOOK)
    for start in sorted({round(last * look / max(1, _LOOKS - 1)) for look in range(_LOOKS)}):
        yield start, min(total, start + _LOOK)


def _finite(read: Read, start: int, stop: int) -> tuple[Values, NDArray[np.int64]]:
    """Return the times that are there, and their rows."""
    times = read(start, stop)
    there = np.flatnonzero(np.isfinite(times))
    return times[there], there + start


def _steps(times: Values, rows: NDArray[np.int64]) -> tuple[Values, NDArray[np.int64]]:
    """Return the steps from one time to the next, and by how many rows each goes."""
    return np.diff(times), np.diff(rows)


def _is_counter(steps: Values, moving: Values) -> bool:
    """Return whether the rows are counted: by 1, apart from holes, copies and wraps."""
    return bool(np.mean(moving == 1.0) > 0.8) and bool(np.all(steps == np.rint(steps)))


def _mean_step(read: Read, total: int) -> float:
    """Return the mean step of a row: the median over short stretches from change to change, so that holes do not count."""
    slopes = []
    for start, stop in _looks(total):
        times, rows = _finite(read, start, stop)
        length = max(1, min(1000, (len(rows) - 1) // 4))
        changes = np.flatnonzero(np.diff(times) > 0) + 1
        ends = np.searchsorted(changes, np.arange(0, len(rows), length))
        ends = changes[np.unique(ends[ends < len(changes)])]
        slopes.append(np.diff(times[ends]) / np.diff(rows[ends]))
    found = np.concatenate(slopes)
    found = found[found > 0]
    if not len(found):  # no stretch holds two changes
        found = np.concatenate([change.steps / change.by for change in _changes(read, total)])
    return float(np.median(found)) if len(found) else 1.0


class _Changes(NamedTuple):
    """Where the time changes.

    ``steps`` by how much, ``by`` rows from one change to the next, ``over`` rows from one time that is there to the next,
    ``rows`` where, ``before`` and ``after``: the median step around.
    """

    steps: Values
    by: Values
    over: Values
    rows: NDArray[np.int64]
    before: Values
    after: Values


def _changes(read: Read, total: int) -> Iterator[_Changes]:
    """Yield where the time changes; the first change counts from the first row."""
    kept, done, last = np.zeros((3, 0)), 0, 0.0

    def part(stop: int) -> _Changes:
        steps, over, rows = kept
        at_end = steps[-_AROUND - 1 : -1]
        if steps[-1] < 10.5 * np.median(at_end if len(at_end) else steps):
            at_end = steps[-1:]  # here stamps may have become ten times coarser; a longer step is a hole
        padded = (np.pad(steps, (_AROUND, 0), mode="symmetric"), np.pad(at_end[::-1], (0, _AROUND), mode="symmetric")[:_AROUND])
        medians = np.median(sliding_window_view(np.concatenate(padded), _AROUND), axis=1)
        now = slice(done, stop)
        by = np.diff(rows, prepend=last)
        return _Changes(
            steps[now], by[now], over[now], rows[now].astype(np.int64), medians[now], medians[_AROUND + 1 :][now]
        )  # fmt: skip

    for steps, over, rows in _chunks(read, total):
        at = np.flatnonzero(steps > 0)
        kept = np.concatenate([kept, [steps[at], over[at], rows[at]]], axis=1)
        ready = kept.shape[1] - _AROUND
        if ready > done:
            yield part(ready)
            first = max(0, ready - _AROUND)
            last = float(kept[2, first - 1]) if first else last
            kept, done = kept[:, first:], ready - first
    if kept.shape[1] > done:
        yield part(kept.shape[1])


def _chunks(read: Read, total: int) -> Iterator[tuple[Values, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield steps, by how many rows each goes, and the row to which it goes."""
    before: tuple[Values, NDArray[np.int64]] = (np.zeros(0), np.zeros(0, np.int64))
    for start in range(0, total, _CHUNK):
        times, rows = _finite(read, start, min(total, start + _CHUNK))
        times, rows = np.concatenate([before[0], times]), np.concatenate([before[1], rows])
        if len(rows) > 1:
            yield (*_steps(times, rows), rows[1:])
        before = times[-1:], rows[-1:]


def _of_counter(read: Read, total: int, step: float) -> Timeline | None:
    low, high, falls, stands, count = math.inf, -math.inf, 0, 0, 0
    for start in range(0, total, _CHUNK):
        times, _ = _finite(read, start, min(total, start + _CHUNK))
        if len(times):
            low, high = min(low, float(times.min())), max(high, float(times.max()))
    for steps, _, _ in _chunks(read, total):
        falls, stands, count = falls + int(np.sum(steps < 0)), stands + int(np.sum(steps == 0)), count + len(steps)
    if stands > _STANDS * count:
        return None  # it counts packets, or the same twice
    wrap = high - low + step
    wraps = falls > 0 and low in (0.0, 1.0) and (falls > 1 or math.log2(wrap).is_integer() or math.log10(wrap).is_integer())
    holes: list[tuple[int, int]] = []
    doubles: list[int] = []
    for steps, by, rows in _chunks(read, total):
        if not wraps and np.any(steps < 0):
            at = int(np.argmax(steps < 0))
            raise TimelineError(int(rows[at]), f"the counter runs backwards, by {-steps[at]:g}")
        gone = np.mod(steps, wrap) if wraps else steps
        gone = _evened(np.rint(gone / step).astype(np.int64), by)
        doubles += rows[(gone == 0) & (by == 1)].tolist()
        missing = gone - by
        at_holes = np.flatnonzero(missing > 0)
        holes += zip(rows[at_holes].tolist(), missing[at_holes].tolist(), strict=True)
        _check_holes(holes)
    if any(lost > 1e9 for _, lost in holes):
        row, lost = max(holes, key=lambda hole: hole[1])
        raise TimelineError(row, f"the counter leaps by {lost}")
    return Timeline(None, 0.0, tuple(holes), tuple(doubles))


def _evened(gone: NDArray[np.int64], by: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return steps in rows, where one of none beside one of two is two of one: a time that was cut off, not rounded."""
    pairs = np.flatnonzero((by[:-1] == 1) & (by[1:] == 1) & (gone[:-1] + gone[1:] == 2) & (gone[:-1] != 1))
    gone = gone.copy()
    gone[pairs], gone[pairs + 1] = 1, 1
    return gone


def _check_holes(holes: Sequence[tuple[int, *tuple[float, ...]]]) -> None:
    if len(holes) > _MOST_HOLES:
        raise TimelineError(holes[-1][0], f"more than {_MOST_HOLES} holes in its time: it is not that of the rows")


def _of_times(read: Read, total: int, unit: float, steps: Values, mean: float, fs: float | None) -> Timeline:
    steps, mean = steps * unit, mean * unit

    def seconds(start: int, stop: int) -> Values:
        return read(start, stop) * unit

    _refuse_backwards(seconds, total)
    exact, one = _exact(steps) if np.any(steps > 0) else (False, mean)
    late = one
    if exact:
        one = _refined(seconds, total, one)
        holes, doubles = _exact_holes(seconds, total, one)
        exact = len(doubles) <= max(16, total // 1000)
    if not exact:
        late, doubles = float(np.quantile(steps, 0.99)), []
        one = mean
        for _ in range(_TURNS):  # the rate tells how long holes are, and they tell the rate
            holes = _coarse_holes(seconds, total, one, late)
            one = _mean_without(seconds, total, holes, one)
        late = max(late, *(float(np.max(np.maximum(change.before, change.after))) for change in _changes(seconds, total)))
    length = one * max(1, total - 1)
    precision = 2 * (_grain(steps, one) if exact else late) / length
    line = Timeline(_named(1 / one, max(1e-4, precision)), max(_SAME, precision), tuple(holes), tuple(doubles))
    if not exact and fs is not None and line.agrees(fs):
        one, line = 1 / fs, replace(line, holes=tuple(_coarse_holes(seconds, total, 1 / fs, float(np.quantile(steps, 0.99)))))
    for row, lost in line.holes:
        if lost * one > _MOST_HOLE_S:
            raise TimelineError(row, f"the time leaps by {lost * one / 86_400:.3g} days")
    return replace(line, fs=None) if fs is None and precision > _VAGUE else line


def _exact(steps: Values) -> tuple[bool, float]:
    """Return whether each row has a time of its own, to less than half a step, and the step."""
    one = float(np.median(steps[steps > 0]))
    for _ in range(3):
        single = steps[np.rint(steps / one) == 1]
        one = float(np.mean(single)) if len(single) else one
    times = np.rint(steps / one)
    off = float(np.quantile(np.abs(steps / one - times), 0.99))
    lossy = np.mean(times > 1) < 0.05 or (off < 0.1 and not _even(times))
    return bool(np.mean(times == 0) < 0.02 and off < 0.4 and lossy), one


def _even(times: Values) -> bool:
    """Return whether steps of one and of two times take turns so evenly that the stamps are coarse, and no rows missing."""
    stretches = times[: len(times) // 32 * 32].reshape(-1, 32).sum(axis=1)
    return not len(stretches) or bool(np.mean(np.abs(stretches - np.median(stretches)) <= 1) > 0.9)


def _grain(steps: Values, one: float) -> float:
    """Return how coarse times are, in s: how much their steps differ."""
    single = steps[np.rint(steps / one) == 1]
    return float(np.max(single) - np.min(single)) if len(single) else 0.0


def _refuse_backwards(read: Read, total: int) -> None:
    for steps, _, rows in _chunks(read, total):
        if np.any(steps < 0):
            at = int(np.argmax(steps < 0))
            raise TimelineError(int(rows[at]), f"the time runs backwards, by {-steps[at]:g} s")


def _refined(read: Read, total: int, one: float) -> float:
    """Return the mean of the steps that are one row long, over all of them."""
    length, count = 0.0, 0
    for steps, by, _ in _chunks(read, total):
        regular = np.rint(steps / one) == by
        length, count = length + float(steps[regular].sum()), count + int(by[regular].sum())
    return length / count if count and length > 0 else one


def _exact_holes(read: Read, total: int, one: float) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the holes, and the rows with the time of the row before, if each row has a time of its own."""
    holes: list[tuple[int, int]] = []
    doubles: list[int] = []
    for steps, by, rows in _chunks(read, total):
        gone = _evened(np.rint(steps / one).astype(np.int64), by)
        at = np.flatnonzero(gone > by)
        holes += zip(rows[at].tolist(), (gone - by)[at].tolist(), strict=True)
        doubles += rows[(gone == 0) & (by == 1)].tolist()
        _check_holes(holes)
    return holes, doubles


def _coarse_holes(read: Read, total: int, one: float, late: float) -> list[tuple[int, int]]:
    """Return the holes if stamps are coarse or come late: where rows are ahead of their count, and stay so."""
    found: list[tuple[int, int, float]] = []
    for change in _changes(read, total):
        coarse = np.maximum(late, np.maximum(change.before, change.after))
        at = np.flatnonzero((change.steps > 1.3 * coarse) & (change.steps > 1.5 * one * change.over))
        lost = np.rint(change.steps[at] / one).astype(np.int64)
        found += zip(change.rows[at].tolist(), lost.tolist(), coarse[at].tolist(), strict=True)
        _check_holes(found)
    rows_at = [0, *(row for row, _, _ in found), total]
    holes = []
    for before, (row, missing, coarse_s), after in zip(rows_at, found, rows_at[2:], strict=False):
        stamp = max(1, round(coarse_s / one))
        width = stamp * max(4, math.ceil(32 / stamp))
        start, stop = max(before, row - width), min(after, row + width + 2 * min(missing, max(_LOOK, 4 * stamp)))
        times, rows = _finite(read, start, stop)
        changed = np.concatenate([[before == 0], np.diff(times) > 0]) & (rows != row)  # the first rows of their stamps
        ahead = times / one - rows
        earlier, later = (_rather(ahead[part], changed[part]) for part in (rows < row, rows >= row))
        if len(earlier) and len(later):
            stays = int(np.rint(np.median(later) - np.median(earlier)))
            if stays * one > 0.5 * coarse_s:
                holes.append((row, stays))
    return holes


def _rather(values: Values, some: NDArray[np.bool_]) -> Values:
    """Return some of the values, all if there are none of these."""
    return values[some] if some.any() else values


def _mean_without(read: Read, total: int, holes: Sequence[tuple[int, int]], one: float) -> float:
    """Return the mean step of a row from change to change, without those at holes, and where stamps become coarser."""
    length, count = 0.0, 0.0
    rows_of_holes = np.array([row for row, _ in holes], np.int64)
    whole = False  # whether the change before is one from whose row on the stamp is whole
    for change in _changes(read, total):
        hole = np.isin(change.rows, rows_of_holes)
        coarser = (change.after > 4 * change.before) & (change.by > 1)
        counts = ~hole & np.concatenate([[whole], ~hole[:-1]]) & ~coarser
        length, count = length + float(change.steps[counts].sum()), count + float(change.by[counts].sum())
        whole = not hole[-1]
    return length / count if count and length > 0 else one


def _named(fs: float, within: float) -> float:
    """Return a rate as people name it, as far as the times leave that open."""
    whole = round(fs)
    return float(whole) if whole and abs(fs - whole) <= within * fs else float(f"{fs:.6g}")


_DATE = (
    r"(?P<{0}y>\d{{4}})[-/.](?P<{0}m>\d{{1,2}})[-/.](?P<{0}d>\d{{1,2}})"
    r"|(?P<{0}a>\d{{1,2}})[-/.](?P<{0}b>\d{{1,2}})[-/.](?P<{0}c>\d{{4}})"
)
_TEXT = re.compile(
    rf"\[?\s*(?P<day>{_DATE.format('p')})?[T\s]*"
    r"(?P<clock>\d{1,4}:\d{1,2}(?::\d{1,2})?)(?P<part>[.,]\d+|:\d{3,6})?\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
    rf"\s*(?P<zone>Z|UTC|GMT|[+-]\d{{2}}:?\d{{2}})?(?:\s+(?P<after>{_DATE.format('q')}))?\s*\]?"
)


_SECONDS = re.compile(r"\d{1,2}[.,]\d+", re.ASCII)
_MINUTES = 100_000


class TextTimes:
    """Times as text: "2021-03-04 05:06:07.008", with T and zone, "05:06:07.008" or :008, "0:07.008", "[05:06:07.008 04/03/2021]".

    A time of day that begins again goes on with the next day. Of days such as 04/03/2021 the first number is the day, unless the
    times of the table say otherwise.

    Parameters
    ----------
    seen
        Some of the times, from the beginning and the end of the table.

    Attributes
    ----------
    day
        The last time of day, and how many days began before it; to be set back if times are read again.
    """

    def __init__(self, seen: Sequence[str] = ()) -> None:
        self._days: dict[str, int] = {}
        self._minutes: dict[str, tuple[int | None, float]] = {}
        self._month_first = False
        self._first: float | None = None
        self.day: tuple[float, int] = (-math.inf, 0)
        spans = {order: _span([_TEXT.fullmatch(text.strip()) for text in seen], order) for order in (False, True)}
        self._month_first = spans[True] < spans[False]

    @staticmethod
    def fits(text: str) -> bool:
        """Return whether a text is a time."""
        return _TEXT.fullmatch(text.strip()) is not None

    def __call__(self, text: str) -> float:
        """Return the time in s since the first.

        Raises
        ------
        ValueError
            If it is no time.
        """
        head, _, tail = text.rpartition(":")
        known = self._minutes.get(head)
        if known is not None and _SECONDS.fullmatch(tail):
            day, of_day = known[0], known[1] + float(tail.replace(",", "."))
        else:
            day, of_day = self._read(text, head)
        if day is None:
            last, turns = self.day
            day = turns + (of_day < last - 43_200)
            self.day = of_day, day
        if self._first is None:
            self._first = float(day)
        return (day - self._first) * 86_400.0 + of_day

    def _read(self, text: str, head: str) -> tuple[int | None, float]:
        """Return the day, if there is one, and the s of it; remember the minute for those that follow."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no time")
        of_day, dated = _of_day(match), match["day"] or match["after"]
        day = None
        if dated:
            day = self._days.get(dated)
            if day is None:
                day = self._days[dated] = _day(match, self._month_first)
        tail = text[len(head) + 1 :]
        if _SECONDS.fullmatch(tail) and len(self._minutes) < _MINUTES:
            self._minutes[head] = day, of_day - float(tail.replace(",", "."))
        return day, of_day


def _of_day(match: re.Match[str]) -> float:
    parts = [int(part) for part in match["clock"].split(":")]
    if len(parts) == 2:  # "m:ss.mmm", or "hh:mm" without parts of a second
        parts = [0, *parts] if match["part"] else [*parts, 0]
    hours, minutes, seconds = parts
    if match["half"]:
        hours = hours % 12 + (12 if match["half"][0] in "Pp" else 0)
    zone, offset = match["zone"], 0
    if zone and zone[0] in "+-":
        offset = (-1 if zone[0] == "-" else 1) * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    part = float("0." + match["part"][1:]) if match["part"] else 0.0
    return hours * 3600 + minutes * 60 + seconds - offset + part


def _day(match: re.Match[str], month_first: bool) -> int:
    mark = "p" if match["day"] else "q"
    if match[f"{mark}y"]:
        year, month, day = match[f"{mark}y"], match[f"{mark}m"], match[f"{mark}d"]
    else:
        year, first, second = match[f"{mark}c"], match[f"{mark}a"], match[f"{mark}b"]
        month, day = (first, second) if month_first else (second, first)
    return date(int(year), int(month), int(day)).toordinal()


def _span(matches: Sequence[re.Match[str] | None], month_first: bool) -> float:
    """Return over how many days times go if their dates are read in one order; infinite if they cannot be."""
    try:
        days = [_day(match, month_first) for match in matches if match is not None and (match["day"] or match["after"])]
    except ValueError:
        return math.inf
    return max(days) - min(days) if days else 0.0
