"""The parts of ``ecgnat bench`` in their order, each adding to the report."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from ecgnat_stream import __version__
from ecgnat_stream.bench.feeder import leads_of, patients
from ecgnat_stream.bench.live import LiveTask, trial
from ecgnat_stream.bench.report import BedLimit, Machine, Peaks, Report, Roof, StageCost, Stages, Trial
from ecgnat_stream.bench.search import Sample, admitted, first_guess, most_beds
from ecgnat_stream.config import MOST_BEDS
from ecgnat_stream.errors import EcgnatError

__all__ = ["PARTS", "BenchOptions", "bench"]

PARTS = ("beds", "stages", "start", "ratios", "speeds")
"""What can be asked for, in the order in which it is done."""

_FEW_BEDS, _MORE_BEDS = 16, 64
_STAGE_BEDS = 256
_FRAMES_PER_S = 5


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure.

    Parameters
    ----------
    parts
        Any of :data:`PARTS`.
    seconds
        Of every trial in real time, and a tenth of it for every ratio.
    quick
        Two beds, one short trial, no search: whether it works, not how fast it is.
    beds
        Numbers of beds to try instead of a search.
    leads
        Of the beds, one search each.
    model
        Table ``[model]`` of the configuration: name, device, mode and so on.
    sinks
        See :data:`~ecgnat_stream.bench.live.SINKS`.
    command
        As it was typed.
    """

    parts: tuple[str, ...] = PARTS
    seconds: float = 20.0
    quick: bool = False
    beds: tuple[int, ...] = ()
    leads: tuple[int, ...] = (2, 12)
    fs: float = 250.0
    model: dict[str, Any] = {}
    sinks: tuple[str, ...] = ()
    command: str = ""

    @property
    def model_name(self) -> str:
        """Name of the network."""
        from ecgnat_stream.model import ModelConfig

        return str(self.model.get("name", ModelConfig().name))


def bench(options: BenchOptions, said: Callable[[str], object] = lambda text: None) -> Report:
    """Measure, and return what was found; ``said`` is told what is being done.

    A part that fails is told among what is missing, and the others go on.

    Raises
    ------
    ConfigError, CheckpointError
        For a network or a device that does not exist.
    """
    from ecgnat_stream.model import ModelConfig, check_model

    check_model(msgspec.convert(options.model, ModelConfig))
    machine, peaks = _machine(options), _peaks(options)
    report = Report(
        version=__version__,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        machine=machine,
        peaks=peaks,
    )
    for part in PARTS:
        if part not in options.parts:
            continue
        began = time.monotonic()
        said(f"{part} ...")
        missing: list[str] = []
        try:
            report = _MEASURES[part](options, report, missing, said)
        except EcgnatError as error:
            missing.append(f"{part}: {error}")
        report = replace(report, missing=(*report.missing, *dict.fromkeys(missing)))
        said(f"{part}: {time.monotonic() - began:.0f} s")
    return report


def _beds(options: BenchOptions, report: Report, missing: list[str], said: Callable[[str], object]) -> Report:
    return replace(report, beds=tuple(_limit(options, leads, report, said) for leads in options.leads))


def _limit(options: BenchOptions, leads: int, report: Report, said: Callable[[str], object]) -> BedLimit:
    trials: list[Trial] = []

    def run(beds: int, labels: float | None = None) -> Trial:
        task = LiveTask(
            beds=beds, leads=leads, fs=options.fs, seconds=options.seconds, model=options.model, sinks=options.sinks,
            settle_s=1.0 if options.quick else 3.0, labels_per_bed_s=labels,
        )  # fmt: skip
        found = trial(task)
        trials.append(found)
        p99 = "no label" if found.p99_ms is None else f"p99 {found.p99_ms:.0f} ms"
        said(f"{beds} beds, {leads} leads: {p99}, {found.cores_used:.2f} cores{'' if found.sustained else f'; {found.why}'}")
        return found

    if options.quick or options.beds:
        guess = 0
        for beds in options.beds or (2,):
            run(beds)
        carried = max((each.beds for each in trials if each.sustained), default=0)
        failed = min((each.beds for each in trials if not each.sustained and each.beds > carried), default=None)
    else:
        few, more = run(_FEW_BEDS), run(_MORE_BEDS)
        guess = first_guess(_sample(few), _sample(more), os.cpu_count() or 1) if more.sustained else _FEW_BEDS

        def carries(beds: int) -> bool:
            try:
                return run(beds, few.labels_per_bed_s).sustained
            except EcgnatError as error:
                said(f"{beds} beds, {leads} leads: {error}")
                return False

        limit = most_beds(carries, guess, most=MOST_BEDS)
        carried, failed = limit.carried, limit.failed
        carried = max(carried, *(each.beds for each in (few, more) if each.sustained), 0)
    return BedLimit(
        leads=leads,
        first_guess=guess,
        sustained=carried,
        failed_at=failed,
        admission=admitted(carried) if guess else None,
        mb_per_bed=_mb_per_bed(trials),
        trials=tuple(trials),
        roof=_ward_roof(options, carried, report.peaks),
    )


def _sample(found: Trial) -> Sample:
    return Sample(found.beds, found.loop_ms * found.beds / 1e3, found.cpu_ms * found.beds / 1e3)


def _mb_per_bed(trials: list[Trial]) -> float | None:
    few, many = min(trials, key=lambda each: each.beds), max(trials, key=lambda each: each.beds)
    return round((many.rss_mb - few.rss_mb) / (many.beds - few.beds), 3) if many.beds > few.beds else None


def _ward_roof(options: BenchOptions, beds: int, peaks: tuple[Peaks, ...]) -> Roof | None:
    """Hold the beds carried against those that the network's arithmetic alone would leave room for on all cores."""
    from ecgnat_stream.bench.networks import second_of_ecg
    from ecgnat_stream.bench.roofline import roof

    work = second_of_ecg(options.model_name, _mode(options))
    return None if work is None or not beds else roof(work * beds, peaks[-1], 1.0)


def _mode(options: BenchOptions) -> str:
    """Return how the network reads: whole windows, or token by token."""
    from ecgnat_stream.model import ModelConfig, reading_mode

    return reading_mode(msgspec.convert(options.model, ModelConfig))


def _stages(options: BenchOptions, report: Report, missing: list[str], said: Callable[[str], object]) -> Report:
    found = []
    for leads in options.leads:
        beds = 2 if options.quick else _STAGE_BEDS
        sinks = options.sinks or ("jsonl", "zmq")
        task = LiveTask(
            beds=beds, leads=leads, fs=options.fs, seconds=options.seconds, model=options.model, sinks=sinks, stages=True,
            settle_s=1.0 if options.quick else 3.0,
        )  # fmt: skip
        ran = trial(task)
        costs = tuple(_with_roof(cost, report.peaks[0]) for cost in ran.stages)
        network = next(cost.ms_per_bed_s for cost in costs if cost.stage == "network")
        found.append(
            Stages(
                beds=beds,
                leads=leads,
                sinks=sinks,
                cpu_ms_per_bed_s=ran.cpu_ms,
                other_than_network_ms_per_bed_s=round(sum(cost.ms_per_bed_s for cost in costs) - network, 4),
                costs=costs,
            )
        )
    return replace(report, stages=tuple(found))


def _with_roof(cost: StageCost, peaks: Peaks) -> StageCost:
    """A stage of numpy has its bytes counted alone: what is given to it and what it returns."""
    from ecgnat_stream.bench.roofline import Work, roof

    if not cost.bytes_per_bed_s or not cost.ms_per_bed_s or cost.stage == "network":
        return cost
    return replace(cost, roof=roof(Work(None, cost.bytes_per_bed_s), peaks, cost.ms_per_bed_s / 1e3))


def _start(options: BenchOptions, report: Report, missing: list[str], said: Callable[[str], object]) -> Report:
    from ecgnat_stream.bench.commands import start_up

    return replace(report, start=start_up(1 if options.quick else 3, options.model_name))


def _ratios(options: BenchOptions, report: Report, missing: list[str], said: Callable[[str], object]) -> Report:
    from ecgnat_stream.bench.detectors import detector_ratios
    from ecgnat_stream.bench.networks import NetworkBench, network_ratios

    each_s = 0.2 if options.quick else max(1.0, options.seconds / 10)
    settings = NetworkBench(
        seconds=each_s, device=report.machine.device.split(":")[0], peaks=report.peaks[0], model=options.model_name,
        windows=4 if options.quick else 32, beds=4 if options.quick else 256, compile=not options.quick,
    )  # fmt: skip
    found = []
    for ratio in network_ratios(settings, missing):
        found.append(ratio)
        said(f"{ratio.what}: {ratio.times:.2f} x {ratio.against}")
    signal = asyncio.run(patients(leads_of(1), options.fs, 1))[0]
    for ratio in detector_ratios(signal, options.fs, each_s, missing):
        found.append(ratio)
        said(f"{ratio.what}: {ratio.times:.2f} x {ratio.against}")
    return replace(report, ratios=tuple(found))


def _speeds(options: BenchOptions, report: Report, missing: list[str], said: Callable[[str], object]) -> Report:
    from ecgnat_stream.bench.commands import recording_speeds

    found = []
    length_s = 140.0 if options.quick else max(140.0, 15 * options.seconds)
    for speed in recording_speeds(length_s, options.model_name, (2,) if options.quick else (1, 8)):
        found.append(speed)
        times = "lost in the noise" if speed.times_real_time is None else f"{speed.times_real_time:.0f} x real time"
        said(f"{speed.command}, {speed.records} at once: {times}")
    return replace(report, speeds=tuple(found))


_MEASURES = {"beds": _beds, "stages": _stages, "start": _start, "ratios": _ratios, "speeds": _speeds}


def _machine(options: BenchOptions) -> Machine:
    from ecgnat_stream.bench.roofline import device_of, torch_version

    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gb=round(_memory_bytes() / 1e9, 1),
        python=platform.python_version(),
        torch=torch_version(),
        device=device_of(str(options.model.get("device", "auto"))),
        kernels=_kernels(),
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), platform.processor())
    except OSError:
        return platform.processor()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _kernels() -> str:
    """Say whether the signal stages run compiled."""
    from ecgnat_stream.compiled import describe

    return describe()


def _peaks(options: BenchOptions) -> tuple[Peaks, ...]:
    from ecgnat_stream.bench.roofline import device_of, measured_peaks

    device = device_of(str(options.model.get("device", "auto"))).split(":")[0]
    if device != "cpu":
        return (measured_peaks(1, device),)
    cores = os.cpu_count() or 1
    return (measured_peaks(1), *((measured_peaks(cores),) if cores > 1 else ()))
