"""Words for the signal: leads, streams, blocks, windows. numpy only, no I/O.

Arrays are lead-first ``(L, T)``, float32, in mV; NaN means "no sample here". ``start`` and ``stop`` are half-open
absolute sample indices, counted from the first sample of the stream; they are the truth about time.
"""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.suggest import close_to, unknown
from ecgnat_stream.words import NAME, cleaned, counted

__all__ = [
    "FRAME",
    "FRAME_S",
    "FS",
    "HEART_MV",
    "INPUT_MV",
    "LEADS",
    "MODEL_FS",
    "MONITORED_FIRST",
    "NOT_ECG",
    "TOKEN_S",
    "UNITS",
    "UV_RANGE",
    "Conditioned",
    "SampleBlock",
    "StreamInfo",
    "Window",
    "assign_leads",
    "check_lead_map",
    "ecg_signals",
    "is_ecg",
    "lead_notes",
    "lead_of",
    "mv_per",
    "plainly_within",
    "same_rate",
    "twice",
    "unit_named",
]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The twelve leads, in the order of every ``(12, T)`` array in this project."""

MONITORED_FIRST = ("II", "V1", "V5", "I", "III", "aVF", "aVL", "aVR", "V2", "V3", "V4", "V6")
"""The twelve leads, the usual monitoring leads first: what unnamed leads are taken for, and what is shown first."""

FS = 200
"""Rate of the conditioned signal in Hz: quality, QRS detection and the drawn trace."""

MODEL_FS = 100
"""Rate of the network's input in Hz: every second conditioned sample."""

TOKEN_S = 0.32
"""Step in s in which a network states the rhythm: 32 samples at :data:`MODEL_FS`, the stride of its last stage."""

FRAME = 40
"""Conditioned samples per frame: the fixed quantum of everything behind the ring, whatever the device's block size."""

FRAME_S = FRAME / FS
"""Length of a frame in s."""

INPUT_MV = 5000.0
"""Largest value of an input, in both directions. IEC 60601-2-27 asks for an offset of the electrodes of +-300 mV and speaks of
pacing spikes up to 700 mV; an amplifier gives no more than its supply of a few volts. Beyond, float32 would not hold an ECG
either: its step there is 0.5 uV."""

_PLAINLY = (0.9 * INPUT_MV) ** 2
"""No sample of a block whose sum of squares is below is beyond :data:`INPUT_MV`, whatever is rounded."""

UNITS: tuple[Literal["uV", "mV", "V"], ...] = ("uV", "mV", "V")
"""Units that a person can give."""

HEART_MV = (0.01, 50.0)
"""No heart moves all of its leads by less within a second, and none moves a lead by more (ten times the range of +-5 mV that IEC
60601-2-27 asks for). Given in a wrong unit, every heart does: a QRS complex of 1 mV is 1000 or 0.001."""

UV_RANGE = (1e-9, 1e4)
"""Microvolts per step that a source can have. One step of the largest is 10 mV, twice the range of +-5 mV that IEC 60601-2-27
asks for; the smallest is what software writes for a line that is nearly flat. What lies beyond is a damaged header."""

NOT_ECG = (
    *("ABP", "ART", "BP", "CVP", "PAP", "ICP", "PLETH", "PPG", "PULSE", "SPO2", "SAO2", "CO2", "RESP", "RES", "AIRFLOW", "FLOW"),
    *(
        "THORAX",
        "THORACIC",
        "THOR",
        "ABDOMEN",
        "ABDOMINAL",
        "ABDO",
        "ABD",
        "EFFORT",
        "NASAL",
        "CPAP",
        "PRESSURE",
        "SNORE",
        "SOUND",
    ),
    *("EEG", "EMG", "EOG", "LOC", "ROC", "CHIN", "LEG", "GSR", "EDA", "HR", "TEMP", "ACC", "GYRO", "POSITION", "POS", "LIGHT"),
    *(
        "COUNTER",
        "MARKER",
        "MARK",
        "STATUS",
        "EVENT",
        "EVENTS",
        "TRIGGER",
        "TRIG",
        "STIM",
        "BATTERY",
        "ANNOTATION",
        "ANNOTATIONS",
    ),
    *("ACCEL", "ACCELEROMETER", "MAG", "LABEL", "LABELS", "CLASS", "TARGET", "ANNOTATION", "RHYTHM", "PEAK", "PEAKS", "DIGITAL"),
    *("ANALOG", "FECG", "IECG"),
)
"""Words in the names of signals that are no ECG leads; they are left out, and the stream says so."""

_ALIASES = {lead.upper(): lead for lead in LEADS} | {
    "MLI": "I", "MLII": "II", "MLIII": "III", "MCL1": "V1", "MCL": "V1", "MCL6": "V6", "CM5": "V5", "CC5": "V5", "V": "V1",
    "LA-RA": "I", "LL-RA": "II", "LL-LA": "III",
}  # fmt: skip
_MV = {
    **dict.fromkeys(("n", "nano"), 1e-6), **dict.fromkeys(("u", "μ", "mu", "micro"), 1e-3),
    **dict.fromkeys(("ì", "æ"), 1e-3),  # the mu of ISO 8859-7 and of code page 437, read as Latin-1
    **dict.fromkeys(("m", "milli"), 1.0), "": 1e3,
}  # fmt: skip
"""What may stand before "V", "volt" or "volts", in small letters."""
_VOLTS = re.compile(r"([^\W\d_]*?)[ \t-]*v(?:olt)?s?")
_BRACKETS = re.compile(r"\[(.*)\]|\((.*)\)|\{(.*)\}", re.DOTALL)
_UNSPECIFIED = ("ECG", "EKG", "LEAD", "CH", "CHANNEL", "EXG CHANNEL", "ECG CHANNEL", "ECG LEAD")
_BEFORE = re.compile(r"(ECG|EKG|LEAD)[ _-]*(?=[A-Z])")
"""What many files write before the name of a lead: "ECG V1" (EDF+ 2003, 3.2), "Lead II"."""
_REFERENCES = ("REF", "AVG", "WCT")
"""What stands behind the name of a lead that is measured against it: "V1-Ref"."""
_SCALP = re.compile(r"(FP|AF|F|FC|FT|C|T|TP|CP|P|PO|O|A|M|E)(Z|\d{1,2})")
"""Electrodes of the head by the 10-20 system, without the word EEG in many recordings of sleep: "C3-A2"."""
_CHEST = ("C1", "C2", "C3", "C4", "C5", "C6")
"""Electrodes of the head, and by IEC 60601-2-25 of the chest too: alone, they tell neither."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a device says about its stream before the first block.

    Parameters
    ----------
    fs
        Sampling rate in Hz, 100 to 1000.
    leads
        One name per row of every block, as the device names them.
    device
        Name of the adapter and of what it reads, for people.
    uv_per_lsb
        Resolution of the source in microvolts per step; used when samples are packed as integers.
    live
        True if the source cannot wait (a patient); False for a recording, which then waits for a slow receiver.
    total
        Number of samples the source will deliver, if known.
    pace
        Multiple of real time at which it delivers: other than 1 only for a recording that is played slower or faster.
    recorded
        True for a recording, at whatever speed it is played: no patient waits, and a slow disk is no lost device.
    notes
        What a person should know of a recording: what its file does not say, and what is taken for it.
    left_out
        Names of signals that the source has and does not deliver.
    """

    fs: float
    leads: tuple[str, ...]
    device: str
    uv_per_lsb: float = 1.0
    live: bool = True
    total: int | None = None
    pace: float = 1.0
    recorded: bool = False
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def clock_s(self, stream_s: float) -> float:
        """Return how long a stretch of the stream takes by the host's clock, s: at 20 times real time a 20th of its length."""
        return stream_s / self.pace

    def clock_ns(self, samples: float) -> int:
        """Return how long so many samples take by the host's clock, ns."""
        return round(self.clock_s(samples / self.fs) * 1e9)

    @property
    def ends(self) -> bool:
        """Whether the stream has an end: a recording, also one that is played at the pace of a patient."""
        return not self.live or self.total is not None


@dataclass(frozen=True, slots=True)
class SampleBlock:
    """Consecutive samples as a device delivers them.

    Parameters
    ----------
    start
        Absolute index of the first sample, at the device's rate. A jump against the previous block's ``stop`` is a gap.
    samples
        ``(L, T)`` float32 in mV, rows as ``StreamInfo.leads``; NaN where the device has no value.
    t_ns
        Host monotonic time of the last sample, ns.
    lead_off
        Names of leads that the device itself reports as disconnected.
    """

    start: int
    samples: NDArray[np.float32]
    t_ns: int
    lead_off: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        """Clean the names, so that they are still those of the stream's leads."""
        if self.lead_off:
            object.__setattr__(self, "lead_off", frozenset(cleaned(lead, NAME) for lead in self.lead_off))

    @property
    def stop(self) -> int:
        """Index after the last sample."""
        return self.start + int(self.samples.shape[1])


def plainly_within(samples: NDArray[np.float32]) -> bool:
    """Return whether all samples are there and no larger than :data:`INPUT_MV`, as one cheap look tells of nearly every block."""
    return bool(np.vdot(samples, samples) < _PLAINLY)


@dataclass(frozen=True, slots=True)
class Window:
    """What the model sees of one bed: ``(12, T)`` at :data:`MODEL_FS`, mV, NaN for what is missing.

    ``start`` and ``stop`` count model-rate samples since the stream began. ``last_sample_ns`` and ``cut_ns`` are host monotonic
    times. ``beats`` are the bed's own R peaks that were known when the window was cut, in model-rate samples from its start,
    ascending: those of the last 0.2 to 0.4 s, and beats that search-back finds later, are not among them.

    For a network that goes token by token it is only what is new: whole tokens, which may end before ``stop``; ``beats`` are
    those that became known since the one before. ``fresh`` says that the bed's past is not that of these samples, and is to be
    forgotten first; ``decides`` whether a decision is due, or the network only listens as yet.
    """

    row: int
    start: int
    stop: int
    samples: NDArray[np.float32]
    last_sample_ns: int
    cut_ns: int
    beats: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    fresh: bool = False
    decides: bool = True

    @property
    def reach(self) -> int:
        """Up to where the samples reach, in model-rate samples since the stream began."""
        return self.start + int(self.samples.shape[1])


@dataclass(frozen=True, slots=True)
class Conditioned:
    """Conditioned ECG that carries its rate, so that nobody takes it for one of another rate.

    :func:`~ecgnat_stream.condition.condition_record` gives 200 Hz and the network reads 100 Hz: it takes this, and thins it out
    itself.

    Parameters
    ----------
    samples
        ``(12, T)`` or ``(B, 12, T)`` in mV, NaN for what is missing.
    fs
        Rate in Hz.
    """

    samples: NDArray[np.float32]
    fs: float

    @property
    def length_s(self) -> float:
        """Length in s."""
        return float(self.samples.shape[-1] / self.fs)

    def at(self, fs: float) -> Conditioned:
        """Return every n-th sample, so that the rate is ``fs``; the band of the conditioned signal ends below 50 Hz.

        Raises
        ------
        ValueError
            If that is not a whole part of this rate, or less than 100 Hz.
        """
        step = round(self.fs / fs)
        if fs < MODEL_FS or step < 1 or abs(step * fs - self.fs) > 1e-6:
            raise ValueError(f"{self.fs:g} Hz cannot be thinned out to {fs:g} Hz: condition the raw samples, which gives {FS} Hz")
        return self if step == 1 else Conditioned(self.samples[..., ::step], fs)

    def windows(self, length_s: float = 10.0, hop_s: float | None = None) -> Conditioned:
        """Cut ``(12, T)`` into windows ``(B, 12, T')``, end to end or every ``hop_s``; what the last one lacks is NaN."""
        length, hop = round(length_s * self.fs), round((hop_s or length_s) * self.fs)
        total = self.samples.shape[-1]
        starts = range(0, max(1, total - length + hop), hop)
        cut = np.full((len(starts), len(LEADS), length), np.nan, np.float32)
        for window, start in zip(cut, starts, strict=True):
            part = self.samples[:, start : start + length]
            window[:, : part.shape[1]] = part
        return Conditioned(cut, self.fs)


def assign_leads(
    names: Sequence[str], lead_map: Mapping[str, str] | None = None, *, recorded: bool = False
) -> tuple[int | None, ...]:
    """Say which of the twelve :data:`LEADS` each device lead is.

    Known names and aliases (MLII, MCL1, ...) go to their lead, the first of two equal ones wins. Unspecified names (ECG,
    ECG1, ...) take the free leads II, V1, V5, ... in turn. Names in :data:`NOT_ECG` and second copies give None: left out.

    Parameters
    ----------
    names
        Device lead names.
    lead_map
        Device name to one of :data:`LEADS`, or to "" to leave it out; overrides everything else.
    recorded
        Whether these are the signals of a file: what is called as nothing that is known is left out then, if another signal is
        called as a lead is.

    Raises
    ------
    ConfigError
        For a name that is none of these; the message lists the leads and says how to name it.
    """
    lead_map = {cleaned(name, NAME): lead for name, lead in (lead_map or {}).items()}
    names = [cleaned(name, NAME) for name in names]
    for name, lead in lead_map.items():
        if lead and lead not in LEADS:
            raise ConfigError(f"lead_map: {name!r} is mapped to an {unknown('lead', lead, LEADS)}")
    slots: list[int | None] = [None] * len(names)
    taken: set[str] = set()

    def assign(index: int, lead: str) -> None:
        if lead not in taken:
            taken.add(lead)
            slots[index] = LEADS.index(lead)

    unspecified: list[int] = []
    passes = recorded and any(lead_map.get(name) or (name not in lead_map and is_ecg(name)) for name in names)
    for index, name in enumerate(names):
        if lead_map.get(name):  # these go first: what a person says counts more than what a signal is called
            assign(index, lead_map[name])
    for index, name in enumerate(names):
        if name in lead_map:
            continue
        if (known := lead_of(name)) is not None:
            assign(index, known)
        elif _is_unspecified(name):
            unspecified.append(index)
        elif is_ecg(name) is None and not passes:
            like = next(iter(close_to(name, LEADS)), "II")
            raise ConfigError(
                f"{unknown('lead name', name, LEADS)}; say which lead it is, {_mapped(name, like)}; "
                "nothing behind the = leaves it out"
            )
    for index in unspecified:
        free = next((lead for lead in MONITORED_FIRST if lead not in taken), None)
        if free is not None:
            assign(index, free)
    if all(slot is None for slot in slots):
        what, example = ", ".join(names) or "no names at all", next(iter(names), "NAME")
        raise ConfigError(f"no ECG lead among {what}: say which one is, {_mapped(example, 'II')}")
    return tuple(slots)


def lead_notes(names: Sequence[str], lead_map: Mapping[str, str] | None = None) -> list[str]:
    """Return what a person should know of the names of a recording's signals: which say too little, and what is done with them.

    Nothing is said of one single signal, since every lead shows its rhythm, nor of those in ``lead_map``: a person named them.
    What is called as a lead that another signal is taken for is left out, and that is said.
    """
    given = {cleaned(name, NAME): lead for name, lead in (lead_map or {}).items()}
    names = [cleaned(name, NAME) for name in names]
    if not any(given.get(name) or (name not in given and is_ecg(name)) for name in names):
        return []  # refused, unless a person says which leads they are
    notes = [
        f"its signal {name} has a name that is no lead: it is left out, unless you say which lead it is, for example with --lead "
        f"{shlex.quote(f'{name}=II')}"
        for name in names
        if name not in given and is_ecg(name) is None
    ]
    slots = assign_leads(names, given, recorded=True)
    has = {LEADS[slot]: name for name, slot in zip(names, slots, strict=True) if slot is not None}
    notes += [
        f"its signal {name} is left out: lead {lead} is {has[lead]}"
        + (", as --lead or lead_map says" if has[lead] in given else "")
        for name, slot in zip(names, slots, strict=True)
        if slot is None and name not in given and (lead := lead_of(name)) in has
    ]
    guessed = [
        (name, slot)
        for name, slot in zip(names, slots, strict=True)
        if name not in given and lead_of(name) is None and _is_unspecified(name)
    ]
    taken = [(name, LEADS[slot]) for name, slot in guessed if slot is not None]
    if len(guessed) > 1 and taken:
        said, leads = ", ".join(name for name, _ in taken), ", ".join(lead for _, lead in taken)
        beyond = counted(len(guessed) - len(taken), "signal") + " more left out; " if len(guessed) > len(taken) else ""
        notes.append(
            f"its signals {said} do not say which leads they are: taken for {leads}; {beyond}say which they are with --lead "
            "NAME=LEAD, or read only some with --leads"
        )
    return notes


def _mapped(name: str, lead: str) -> str:
    """Return how a person says which lead a signal is, at the command line and in a configuration."""
    option = shlex.quote(f"{name}={lead}")
    return f'on the command line --lead {option}, in a configuration lead_map = {{ "{name}" = "{lead}" }}'


def check_lead_map(info: StreamInfo, lead_map: Mapping[str, str] | None) -> None:
    """Refuse what a map of leads says of signals that are not there, and what cannot be true of those that are.

    Parameters
    ----------
    info
        What the source delivers.
    lead_map
        As :func:`assign_leads` takes it.

    Raises
    ------
    ConfigError
        Naming the signals that there are.
    """
    given = {cleaned(name, NAME): lead for name, lead in (lead_map or {}).items()}
    there = [cleaned(name, NAME) for name in info.leads]
    rest = [cleaned(name, NAME) for name in info.left_out]
    for name, lead in given.items():
        if name in there or (name in rest and not lead):
            continue
        if name in rest:
            raise ConfigError(f"{name}={lead}: the signal {name} is left out; ask for it with leads (--leads {name})")
        raise ConfigError(f"{name}={lead}: {unknown('signal', name, (*there, *rest))} (--lead, lead_map)")
    for lead in twice(lead for lead in given.values() if lead):
        names = " and ".join(name for name in given if given[name] == lead)
        raise ConfigError(f"{names} are both said to be lead {lead}: name one of them (--lead, lead_map)")


def lead_of(name: str) -> str | None:
    """Return which of the twelve leads a name is, or None."""
    key = name.strip().upper()
    words = [word for word in _words(key) if word not in _REFERENCES and word.rstrip("0123456789") not in _UNSPECIFIED]
    return _ALIASES.get(key) or _ALIASES.get(_BEFORE.sub("", key, count=1)) or _ALIASES.get("-".join(words))


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^A-Z0-9]+", name.upper()) if word]


def _is_unspecified(name: str) -> bool:
    """Return whether a name says no more than that it is an ECG: "ECG", "ecg_1", "EcgWaveform", "EKG1-EKG2"."""
    bare = name.strip().upper().rstrip("0123456789 _-") in _UNSPECIFIED
    return not _is_other(name) and (
        bare or any(re.match("ECG|EKG", word) or word.endswith(("ECG", "EKG")) for word in _words(name))
    )


def _is_other(name: str) -> bool:
    return any(word in NOT_ECG or word.rstrip("0123456789") in NOT_ECG for word in _words(name)) or _is_eeg(name)


def _is_eeg(name: str) -> bool:
    electrodes = [word for word in _words(name) if word not in _REFERENCES]
    on_head = bool(electrodes) and all(_SCALP.fullmatch(word) for word in electrodes)
    return "EEG" in electrodes or (on_head and (len(electrodes) > 1 or electrodes[0] not in _CHEST))


def is_ecg(name: str) -> bool | None:
    """Return whether a signal is called as a lead is, or as a signal that is no ECG; None for all other names."""
    if lead_of(name) is not None or _is_unspecified(name):
        return True
    return False if _is_other(name) else None


def mv_per(unit: str) -> float | None:
    """Return how many mV one of a unit is (nV, uV, mV, V or in words, in any case, also in brackets); None for no voltage."""
    plain = unicodedata.normalize("NFKC", unit).strip().lower()  # the micro sign becomes the Greek letter
    volts = _VOLTS.fullmatch(_BRACKETS.sub(r"\1\2\3", plain).strip())
    return None if volts is None else _MV.get(volts[1])


def unit_named(text: str) -> Literal["uV", "mV", "V"] | None:
    """Return the unit that a person means, written in any case; None for what is none of :data:`UNITS`."""
    return next((unit for unit in UNITS if mv_per(unit) == mv_per(text)), None)


def same_rate(one: float, other: float) -> bool:
    """Return whether two rates in Hz are the same, one of them perhaps written with fewer digits."""
    return math.isclose(one, other, rel_tol=1e-4)


def twice(names: Iterable[str]) -> list[str]:
    """Return the names that are there more than once."""
    names = list(names)
    return sorted({name for name in names if names.count(name) > 1})


def ecg_signals(names: Sequence[str], units: Sequence[str], given: str | None = None) -> list[int]:
    """Return which signals of a file to read: no other biosignals, and what is a voltage or called as a lead is.

    ``given`` is the unit of those that state none.
    """
    beside_eeg = any(map(_is_eeg, names))  # C3 is then one of the head
    return [
        row
        for row, (name, unit) in enumerate(zip(names, units, strict=True))
        if (known := is_ecg(name)) is not False
        and not (beside_eeg and _words(name)[:1] and _words(name)[0] in _CHEST)
        and (known or mv_per(unit.strip() or given or "") is not None)
    ]
