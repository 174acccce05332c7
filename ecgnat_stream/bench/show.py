"""The report as tables for a terminal, with a bar beside each figure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ecgnat_stream.bench.report import BedLimit, Ratio, Report, Roof, Speed, Stages
from ecgnat_stream.bench.soak import SoakRow, Verdict

__all__ = ["bar", "drawn", "printed", "soak_drawn"]

_WIDTH = 20
_PIPE_WIDTH = 180
"""Columns where no terminal says how many there are."""

_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int = _WIDTH) -> str:
    """Return a bar of a share 0 to 1, in eighths of a character; more than all fills it."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def drawn(report: Report) -> RenderableType:
    """Return everything that was found, part by part."""
    machine = report.machine
    lines = [
        Text(f"ecgnat-stream {report.version}, {report.time}: {machine.system}, {machine.processor}, {machine.cores} cores, "
             f"{machine.memory_gb:g} GB, Python {machine.python}, torch {machine.torch}, {machine.device}"),
        Text(f"kernels: {machine.kernels}"),
        *(Text(f"peak of {peak.threads} thread{'s' if peak.threads > 1 else ''}: {peak.gflop_per_s:g} GFLOP/s (matrix product), "
               f"{peak.gb_per_s:g} GB/s (copy)") for peak in report.peaks),
    ]  # fmt: skip
    parts: list[RenderableType] = [*lines]
    if report.beds:
        parts += [_beds(report.beds), *(_admission(limit) for limit in report.beds)]
    parts += [_stages(stages) for stages in report.stages]
    if report.start is not None:
        start = report.start
        parts.append(
            Text(f"start-up (median of {start.runs}): first event {start.first_event_s:g} s, first label "
                 f"{start.first_label_s:g} s; {start.signal_s:g} s are the signal that it needs, {start.own_s:g} s its own")
        )  # fmt: skip
    if report.ratios:
        parts.append(_ratios(report.ratios))
    if report.speeds:
        parts.append(_speeds(report.speeds))
    parts += [Text(f"left out: {what}", "yellow") for what in report.missing]
    return Group(*parts)


def _table(title: str, *columns: str, left: int = 1) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left or not column else "right", no_wrap=number >= left)
    return table


def _beds(limits: Sequence[BedLimit]) -> Table:
    table = _table(
        "beds in real time: ms from the last sample to the label; ms of processor time per bed and second",
        "beds", "leads", "p50", "p99", "worst", "skip", "cores", "ms/bed", "loop", "net", "MB", "", "carried", left=0,
    )  # fmt: skip
    for limit in limits:
        most = max(trial.beds for trial in limit.trials)
        table.add_section()
        for trial in sorted(limit.trials, key=lambda each: each.beds):
            latency = ("-" if value is None else f"{value:.0f}" for value in (trial.p50_ms, trial.p99_ms, trial.worst_ms))
            table.add_row(
                str(trial.beds),
                str(trial.leads),
                *latency,
                str(trial.skipped),
                f"{trial.cores_used:.2f}",
                f"{trial.cpu_ms:.2f}",
                f"{trial.loop_ms:.2f}",
                f"{trial.network_ms:.2f}",
                f"{trial.rss_mb:.0f}",
                bar(trial.beds / most, _WIDTH // 2),
                Text("yes", "green") if trial.sustained else Text(f"no: {trial.why}", "red"),
            )
    table.columns[-1].no_wrap, table.columns[-1].justify = False, "left"
    return table


def _admission(limit: BedLimit) -> Text:
    memory = "" if limit.mb_per_bed is None else f", {limit.mb_per_bed:.2f} MB a bed"
    beyond = "" if limit.failed_at is None else f", not {limit.failed_at}"
    return Text.assemble(
        f"{limit.leads} leads: {'' if limit.admission is not None else 'at least '}{limit.sustained} beds carried{beyond}",
        f"{f' (first guess {limit.first_guess})' if limit.first_guess else ''}{memory}{_share(limit.roof)}. ",
        ("" if limit.admission is None else f"Give this machine at most {limit.admission} beds.", "bold"),
    )


def _stages(stages: Stages) -> Table:
    table = _table(
        f"processor time and memory per bed, {stages.beds} beds, {stages.leads} leads, "
        f"sinks {', '.join(stages.sinks) or 'none'}; measured with stopwatches: {stages.cpu_ms_per_bed_s:.2f} ms/bed/s, "
        f"{stages.other_than_network_ms_per_bed_s:.2f} without the network",
        "stage", "ms/bed/s", "", "kB/bed", "", "of roofline",
    )  # fmt: skip
    most_ms = max(cost.ms_per_bed_s for cost in stages.costs) or 1.0
    most_kb = max(cost.kb_per_bed for cost in stages.costs) or 1.0
    for cost in stages.costs:
        table.add_row(
            cost.stage, f"{cost.ms_per_bed_s:.3f}", bar(cost.ms_per_bed_s / most_ms), f"{cost.kb_per_bed:.0f}",
            bar(cost.kb_per_bed / most_kb, _WIDTH // 2), _percent(cost.roof),
        )  # fmt: skip
    total_kb = sum(cost.kb_per_bed for cost in stages.costs)
    table.add_row("all", f"{sum(cost.ms_per_bed_s for cost in stages.costs):.3f}", "", f"{total_kb:.0f}", "", "")
    return table


def _ratios(ratios: Sequence[Ratio]) -> Table:
    table = _table(
        "measured in turn: how many times faster ours is (median, p10 to p90 of the pairs)", "ours", "against", "ours", "other",
        "unit", "times", "p10-p90", "aim", "", "roofline: ours", "other", left=2,
    )  # fmt: skip
    most = max(ratio.times for ratio in ratios)
    group = ""
    for ratio in ratios:
        if ratio.group != group:
            table.add_section()
            group = ratio.group
        aim = "" if ratio.wanted is None else f"{ratio.wanted:g}"
        reached = "" if ratio.wanted is None else "green" if ratio.times >= ratio.wanted else "red"
        what = f"{ratio.what} ({ratio.note})" if ratio.note else ratio.what
        table.add_row(
            what, ratio.against, f"{ratio.ours:.3g}", f"{ratio.other:.3g}", ratio.unit, Text(f"{ratio.times:.2f}", reached),
            f"{ratio.p10:.2f}-{ratio.p90:.2f}", aim, bar(ratio.times / most, _WIDTH // 2), _percent(ratio.roof),
            _percent(ratio.other_roof),
        )  # fmt: skip
    return table


def _speeds(speeds: Sequence[Speed]) -> Table:
    table = _table(
        "recordings as fast as possible, in real time and per s of processor time", "command", "at once", "signal s",
        "wall s", "start s", "x real time", "per CPU s", "",
    )  # fmt: skip
    most = max((speed.times_real_time or 0.0 for speed in speeds), default=0.0) or 1.0
    for speed in speeds:
        times = ("-" if value is None else f"{value:.0f}" for value in (speed.times_real_time, speed.per_cpu_s))
        table.add_row(
            speed.command, str(speed.records), f"{speed.signal_s:.0f}", f"{speed.wall_s:.1f}", f"{speed.start_s:.1f}", *times,
            bar((speed.times_real_time or 0.0) / most),
        )  # fmt: skip
    return table


def _percent(roof: Roof | None) -> str:
    return "" if roof is None else f"{100 * roof.fraction:.1f} % ({roof.bound})"


def _share(roof: Roof | None) -> str:
    return "" if roof is None else f"; {_percent(roof)} of what the network alone could do here"


def soak_drawn(rows: Sequence[SoakRow], found: Sequence[Verdict]) -> RenderableType:
    """Return the verdicts of a soak."""
    table = _table(
        f"soak: {rows[-1].beds} beds, {rows[-1].leads} leads, {rows[-1].at_s:.0f} s of signal, {rows[-1].run} process"
        f"{'es' if rows[-1].run > 1 else ''}, {sum(row.skipped for row in rows)} windows skipped",
        "run", "what", "level", "per hour", "95 % interval", "", left=2,
    )  # fmt: skip
    for verdict in found:
        table.add_row(
            str(verdict.run), verdict.what, f"{verdict.level:g}", f"{verdict.per_hour:+.3g}",
            f"{verdict.low:+.3g} to {verdict.high:+.3g}",
            Text("flat", "green") if verdict.flat else Text("not flat", "red"),
        )  # fmt: skip
    return table if found else Group(table, Text("too few rows for a slope: more than a minute of signal is needed"))


def printed(found: RenderableType, console: Console | None = None) -> None:
    """Print to standard output."""
    console = console or Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(found)
