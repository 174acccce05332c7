"""What a run of ``ecgnat bench`` has found; as JSON it keeps its form within one :data:`SCHEMA`."""

from __future__ import annotations

import msgspec

__all__ = ["SCHEMA", "BedLimit", "Machine", "Peaks", "Ratio", "Report", "Roof", "Speed", "StageCost", "Stages", "Start", "Trial"]

SCHEMA = 1
"""Raised when a field changes its meaning or goes; fields may be added."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured."""

    system: str
    processor: str
    cores: int
    memory_gb: float
    python: str
    torch: str
    device: str
    kernels: str


class Peaks(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine reaches in this run: float32 matrix product, and copying arrays larger than its caches."""

    threads: int
    gflop_per_s: float
    gb_per_s: float


class Roof(msgspec.Struct, frozen=True, kw_only=True):
    """The least that a piece of work takes on this machine, and how near it comes.

    Parameters
    ----------
    flop, bytes
        Counted: of matrix products, convolutions and attention; of weights, activations and state. None: not counted.
    fraction
        Least time over measured time, 0 to 1.
    bound
        What the least time is: of the arithmetic or of the memory.
    """

    flop: float | None
    bytes: float
    fraction: float
    bound: str


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One live run of a number of beds.

    Parameters
    ----------
    p50_ms, p99_ms, worst_ms
        From the last sample that a rhythm label speaks for to its event; None where there was none.
    labels_per_bed_s
        Rhythm labels per bed and second of signal.
    skipped, late
        Windows that were never predicted on, and technical conditions of a monitor that is too slow.
    silent
        Beds without a label.
    cpu_ms, loop_ms, network_ms, load_ms
        Processor time per bed and second of signal: of the whole process without the load, of the event loop's thread without the
        load, of the network's thread, and of the load itself, which is left out of the others.
    cores_used
        Without the load.
    sustained, why
        Whether it counts as carried, and what speaks against it.
    """

    beds: int
    leads: int
    fs: float
    seconds: float
    model: str
    mode: str
    labels: int
    labels_per_bed_s: float
    p50_ms: float | None
    p99_ms: float | None
    worst_ms: float | None
    skipped: int
    late: tuple[str, ...]
    silent: int
    cpu_ms: float
    loop_ms: float
    network_ms: float
    load_ms: float
    cores_used: float
    rss_mb: float
    sustained: bool
    why: str
    stages: tuple[StageCost, ...] = ()


class StageCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage takes, per bed: processor time per second of signal, memory, and bytes given and returned per second."""

    stage: str
    ms_per_bed_s: float
    kb_per_bed: float
    bytes_per_bed_s: float = 0.0
    roof: Roof | None = None


class Stages(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time and the memory of a live run go."""

    beds: int
    leads: int
    sinks: tuple[str, ...]
    cpu_ms_per_bed_s: float
    other_than_network_ms_per_bed_s: float
    costs: tuple[StageCost, ...]


class BedLimit(msgspec.Struct, frozen=True, kw_only=True):
    """The most beds that were carried in real time.

    Parameters
    ----------
    first_guess
        From the processor time per bed of two small trials.
    sustained
        Checked in real time; 0 if not even the smallest trial was.
    failed_at
        The least number that was not carried, None if none was tried.
    admission
        How many beds this machine should be given: :data:`~ecgnat_stream.bench.search.ADMITTED` of ``sustained``; None where
        the limit was not looked for.
    mb_per_bed
        From the memory of two trials, each in a fresh process.
    """

    leads: int
    first_guess: int
    sustained: int
    failed_at: int | None
    admission: int | None
    mb_per_bed: float | None
    trials: tuple[Trial, ...]
    roof: Roof | None = None


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """From the command to its first event, beat and label; ``own_s`` is without the signal that the first label needs."""

    first_event_s: float
    first_beat_s: float | None
    first_label_s: float
    signal_s: float
    own_s: float
    runs: int


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How often what is ours does its work while something else does its own once: measured in turn, in one process.

    Parameters
    ----------
    unit
        Of ``ours`` and ``other``, medians.
    times, p10, p90
        ``other / ours``: median of the pairs, and the spread of their middle eight tenths.
    wanted
        Least ``times`` that is aimed at, None for a comparison without an aim.
    """

    group: str
    what: str
    against: str
    unit: str
    ours: float
    other: float
    times: float
    p10: float
    p90: float
    pairs: int
    wanted: float | None = None
    roof: Roof | None = None
    other_roof: Roof | None = None
    note: str = ""


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How fast recordings are worked off.

    Parameters
    ----------
    wall_s, cpu_s
        Wall and processor time of ``signal_s``, all recordings together, without the start.
    start_s
        Wall time that the command takes before.
    times_real_time, per_cpu_s
        Signal per wall time and per processor time; None where the difference of a long and a short run is lost in the noise.
    """

    command: str
    records: int
    signal_s: float
    wall_s: float
    cpu_s: float
    start_s: float
    times_real_time: float | None
    per_cpu_s: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; a part that was not asked for is empty."""

    schema: int = SCHEMA
    version: str
    time: str
    command: str
    machine: Machine
    peaks: tuple[Peaks, ...] = ()
    beds: tuple[BedLimit, ...] = ()
    stages: tuple[Stages, ...] = ()
    start: Start | None = None
    ratios: tuple[Ratio, ...] = ()
    speeds: tuple[Speed, ...] = ()
    missing: tuple[str, ...] = ()
