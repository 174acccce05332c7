"""What is going to happen: rhythms of every heart, faults and when they come. From a seed; as JSON for all processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ecgnat_devices.simulator import Segment

__all__ = [
    "BED_FAULTS",
    "BROKER_FAULTS",
    "DETAILS",
    "FS",
    "LEADS",
    "PEER_FAULTS",
    "Fault",
    "Onset",
    "Plan",
    "bed_name",
    "make_plan",
    "read_plan",
]

FS = 250.0
LEADS = ("II", "V1")

CALM_FIRST_S = 25.0
"""Every heart begins quietly: the monitor starts meanwhile."""

CALM_LAST_S = 20.0
"""And ends so: what is still to be delivered has the time for it."""

RHYTHMS = ("vf", "asystole", "vt", "brady")

BED_FAULTS: dict[str, float] = {
    "raises": 6.0,
    "ends": 4.0,
    "counter": 12.0,
    "rate": 62.0,
    "huge": 8.0,
    "nan": 10.0,
    "gain": 10.0,
    "silent": 12.0,
    "hang-enter": 15.0,
    "hang-exit": 15.0,
    "garbage": 5.0,
}
"""Faults of one bed's device, and how long each lasts, s. A wrong rate is told 30 to 60 s after it began (docs/devices.md)."""

BROKER_FAULTS: dict[str, float] = {
    "freeze": 6.0,
    "cut": 0.0,
    "refuse": 3.0,
    "delay": 8.0,
    "blackhole": 6.0,
    "syn": 6.0,
    "quota": 4.0,
}
"""Faults on the way to the broker; killing it comes besides. ``quota`` answers every message with 0x97 and delivers none."""

PEER_FAULTS: dict[str, float] = {
    "zmq-subscriptions": 5.0,
    "zmq-big": 5.0,
    "commands-invented": 8.0,
    "commands-escape": 2.0,
    "commands-malformed": 2.0,
    "disk-full": 10.0,
    "clock-step": 12.0,
    "twin": 15.0,
}
"""Faults of everything else around the monitor; ``twin`` is a second one of the same name and beds, with a folder of its own."""

DETAILS: dict[str, tuple[str, ...]] = {
    "raises": (
        "ConnectionResetError", "CancelledError", "ValueError", "KeyError", "MemoryError", "AssertionError", "ExceptionGroup",
        "TimeoutError", "EOFError", "RecursionError", "UnicodeDecodeError", "StopIteration", "DeviceError",
    ),
    "huge": ("1e9", "1e30", "-1e9", "inf"),
    "gain": ("-200", "0", "1e50", "nan", "-1"),
    "rate": ("2", "0.5"),
    "clock-step": ("17280000", "-3600", "30", "-1.5"),
    "garbage": ("None", "text", "shape", "dtype", "empty"),
}  # fmt: skip
"""Kinds of one fault; they come in turn."""


class Onset(msgspec.Struct, frozen=True):
    """What happens to a heart: ``rhythm`` from ``at_s`` to ``stop_s``."""

    bed: str
    rhythm: str
    at_s: float
    stop_s: float


class Fault(msgspec.Struct, frozen=True):
    """Something goes wrong with ``target`` (a bed, or what the kind says) for ``seconds``."""

    kind: str
    at_s: float
    seconds: float
    target: str = ""
    detail: str = ""

    @property
    def stop_s(self) -> float:
        """When it is over."""
        return self.at_s + self.seconds


class Plan(msgspec.Struct, frozen=True):
    """All of it. ``t0_ns`` is the monotonic time of second 0, the same in every process of this machine."""

    seed: int
    seconds: float
    beds: tuple[str, ...]
    onsets: tuple[Onset, ...]
    faults: tuple[Fault, ...]
    t0_ns: int = 0

    def segments(self, bed: str) -> tuple[Segment, ...]:
        """Return the script of one bed's heart, without a gap from 0 to the end."""
        parts, at = [], 0.0
        for onset in self.onsets:
            if onset.bed == bed:
                parts += [Segment(rhythm="sinus", seconds=onset.at_s - at), _segment(onset)]
                at = onset.stop_s
        return (*parts, Segment(rhythm="sinus", seconds=self.seconds + 60 - at))

    def of(self, target: str) -> tuple[Fault, ...]:
        """Return the faults of one target, in order."""
        return tuple(fault for fault in self.faults if fault.target == target)


def bed_name(bed: str) -> str:
    """Return ``site/unit/bed`` as the harness's configuration has it."""
    return f"home/icu/{bed}"


def read_plan(path: Path) -> Plan:
    """Read what :func:`msgspec.json.encode` has written."""
    return msgspec.json.decode(path.read_bytes(), type=Plan)


def _segment(onset: Onset) -> Segment:
    seconds = onset.stop_s - onset.at_s
    match onset.rhythm:
        case "vf":
            return Segment(rhythm="vf", seconds=seconds)
        case "vt":
            return Segment(rhythm="vt", seconds=seconds, rate_bpm=180)
        case "asystole":
            return Segment(rhythm="asystole", seconds=seconds)
        case "brady":
            return Segment(rhythm="bradycardia", seconds=seconds, rate_bpm=30)
    raise ValueError(f"no rhythm {onset.rhythm!r}")


def make_plan(
    seed: int,
    seconds: float,
    *,
    beds: int = 8,
    broker_kills: int = 0,
    kills: int = 0,
    terms: int = 0,
    stands: int = 0,
    only: tuple[str, ...] = (),
) -> Plan:
    """Make a plan: hearts that fail again and again, and every kind of fault in turn at random times.

    Parameters
    ----------
    broker_kills, kills, terms
        How often the broker is killed, the monitor is killed (-9), and the monitor is told to end (SIGTERM) and started again.
    stands
        How often an adapter holds the event loop.
    only
        Kinds of fault to keep; all if empty.
    """
    rng = random.Random(seed)
    names = tuple(f"bed-{number + 1}" for number in range(beds))
    onsets = tuple(onset for bed in names for onset in _onsets(bed, seconds, rng))
    faults = [
        *_bed_faults(names, seconds, rng),
        *_path_faults(seconds, broker_kills, rng),
        *_ends(seconds, kills, terms, rng),
        *_peer_faults(seconds, rng),
        *_refusals(onsets, names[-1]),
        *_stands(onsets, names[-1], stands),
        Fault("unread", 0.0, seconds, "stdout"),
    ]
    kept = [fault for fault in faults if not only or fault.kind in only]
    return Plan(seed, seconds, names, onsets, tuple(sorted(kept, key=lambda fault: fault.at_s)))


def _onsets(bed: str, seconds: float, rng: random.Random) -> Iterator[Onset]:
    at = CALM_FIRST_S + rng.uniform(0, 25)
    rhythms = list(RHYTHMS)
    rng.shuffle(rhythms)
    while at + 40 < seconds - CALM_LAST_S:
        stop = at + rng.uniform(22, 28)
        rhythms.append(rhythms.pop(0))
        yield Onset(bed, rhythms[-1], round(at, 2), round(stop, 2))
        at = stop + rng.uniform(25, 45)


def _bed_faults(beds: tuple[str, ...], seconds: float, rng: random.Random) -> Iterator[Fault]:
    """Every bed but the first two, which show what the others' faults do to the healthy, has one fault after the other."""
    kinds = list(BED_FAULTS)
    rng.shuffle(kinds)
    turn = dict.fromkeys(BED_FAULTS, 0)
    number = 0
    at = dict.fromkeys(beds[2:], 0.0)
    for bed in at:
        at[bed] = CALM_FIRST_S + rng.uniform(0, 20)
    while at:
        bed = min(at, key=lambda name: at[name])
        kind = kinds[number % len(kinds)]
        length = BED_FAULTS[kind]
        if at[bed] + length + 25 > seconds - CALM_LAST_S:
            del at[bed]
            continue
        details = DETAILS.get(kind, ("",))
        yield Fault(kind, round(at[bed], 2), length, bed, details[turn[kind] % len(details)])
        turn[kind] += 1
        number += 1
        at[bed] += length + rng.uniform(30, 50)


def _stands(onsets: tuple[Onset, ...], bed: str, count: int) -> Iterator[Fault]:
    """An adapter holds the event loop for half a minute, some seconds after its heart was in trouble."""
    ended = [onset.stop_s for onset in onsets if onset.bed == bed][::2]
    for stop_s in ended[:count]:
        yield Fault("blocks", stop_s + 8, 30.0, bed)


def _path_faults(seconds: float, broker_kills: int, rng: random.Random) -> Iterator[Fault]:
    """On the way to the broker one thing goes wrong at a time."""
    span = seconds - CALM_FIRST_S - CALM_LAST_S
    others = max(len(BROKER_FAULTS), int(span / 90))
    kinds = ["kill-broker"] * broker_kills + [list(BROKER_FAULTS)[i % len(BROKER_FAULTS)] for i in range(others)]
    rng.shuffle(kinds)
    lengths = [rng.uniform(0.2, 3.0) if kind == "kill-broker" else BROKER_FAULTS[kind] for kind in kinds]
    rest = span - sum(lengths)
    if rest / len(kinds) < 4:
        raise ValueError(f"{broker_kills} kills of the broker do not fit into {seconds:g} s: more time is needed")
    at = CALM_FIRST_S
    for kind, length in zip(kinds, lengths, strict=True):
        pause = rest / len(kinds)
        yield Fault(kind, round(at + rng.uniform(0.3, 0.7) * pause, 2), round(length, 2), "broker")
        at += pause + length


def _ends(seconds: float, kills: int, terms: int, rng: random.Random) -> Iterator[Fault]:
    kinds = ["kill-monitor"] * kills + ["end-monitor"] * terms
    rng.shuffle(kinds)
    span = seconds - CALM_FIRST_S - CALM_LAST_S - 20
    for number, kind in enumerate(kinds):
        at = CALM_FIRST_S + 10 + span * (number + rng.uniform(0.3, 0.7)) / len(kinds)
        yield Fault(kind, round(at, 2), round(rng.uniform(0.1, 1.0), 2), "monitor")


def _refusals(onsets: tuple[Onset, ...], bed: str) -> Iterator[Fault]:
    """The broker refuses one bed's alarm events while its heart fails, every third time."""
    for onset in [onset for onset in onsets if onset.bed == bed][::3]:
        yield Fault("acl", onset.at_s - 1, 14.0, "broker-acl", bed)


def _peer_faults(seconds: float, rng: random.Random) -> Iterator[Fault]:
    kinds = list(PEER_FAULTS)
    rng.shuffle(kinds)
    at, number = CALM_FIRST_S + 5.0, 0
    while True:
        kind = kinds[number % len(kinds)]
        if at + PEER_FAULTS[kind] + 15 > seconds - CALM_LAST_S:
            return
        steps = DETAILS.get(kind, ("",))
        detail = steps[number // len(kinds) % len(steps)]
        yield Fault(kind, round(at, 2), PEER_FAULTS[kind], "disk" if kind == "disk-full" else "peers", detail)
        at += PEER_FAULTS[kind] + rng.uniform(2, 7)
        number += 1
