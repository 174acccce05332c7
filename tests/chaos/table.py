"""The table: per kind of fault and in total, what was lost, late, doubled, unwatched; then the times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tests.chaos.check import Findings, Item, near
from tests.chaos.conduct import Log
from tests.chaos.plan import Fault

__all__ = ["COLUMNS", "summary", "table"]

COLUMNS = ("lost", "late", "doubled", "unwatched", "unsaid", "will", "stale", "control", "files", "ended", "held")


def _happened(log: Log) -> list[tuple[Fault, float, float]]:
    by_themselves = (*log.plan.beds, "stdout")
    beds = [(fault, fault.at_s, fault.stop_s) for fault in log.plan.faults if fault.target in by_themselves]
    return beds + log.done


def by_fault(log: Log, found: Findings) -> dict[str, list[Item]]:
    """Return what went wrong near each kind of fault; what was near several stands at each."""
    rows: dict[str, list[Item]] = defaultdict(list)
    happened = _happened(log)
    for fault, _, _ in happened:
        rows[fault.kind] = rows[fault.kind]
    for item in found.items:
        kinds = {fault.kind for fault, began, ended in happened if near(fault, began, ended, item)}
        for kind in kinds or {"(none near)"}:
            rows[kind].append(item)
    return dict(sorted(rows.items()))


def _quantile(values: Sequence[float], q: float) -> float | None:
    return round(float(np.quantile(values, q)), 3) if values else None


def summary(log: Log, found: Findings) -> dict[str, object]:
    """Return the figures, for JSON."""
    faults: dict[str, int] = defaultdict(int)
    for fault, _, _ in _happened(log):
        faults[fault.kind] += 1
    times = {
        "to_alarm_s": found.to_alarm_s,
        "broker_return_s": found.returned_s,
        "delivery_s": found.delivery_s,
        "exit_s": found.exit_s,
        "loop_late_s": found.loop_late_s,
        "loop_own_s": found.loop_own_s,
        "first_judged_s": found.first_judged_s,
    }
    return {
        "seed": log.plan.seed,
        "seconds": log.plan.seconds,
        "beds": len(log.plan.beds),
        "onsets": len(log.plan.onsets),
        "hearts_checked": found.hearts,
        "alarm_events": found.events,
        "bed_seconds": found.bed_seconds,
        "without_monitor_s": round(found.down_s, 1),
        "lives": len(log.lives),
        "cut_by_kill": found.cut,
        "refused_by_broker": found.refused,
        "doubled_on_the_wire": found.raw_doubled,
        "faults": dict(sorted(faults.items())),
        "total": {column: found.count(column) for column in COLUMNS},
        "by_fault": {
            kind: {column: count for column in COLUMNS if (count := sum(item.what == column for item in items))}
            for kind, items in by_fault(log, found).items()
        },
        "times": {
            name: {"n": len(values), "p50": _quantile(values, 0.5), "p99": _quantile(values, 0.99), "max": _quantile(values, 1.0)}
            for name, values in times.items()
        },
        "items": [f"{item.what} {item.t:.1f} {item.bed} {item.sink}: {item.text}" for item in found.items[:20_000]],
        "stands": found.stands[:100],
        "harness_errors": log.errors,
    }


def table(log: Log, found: Findings) -> str:
    """Return the table as text."""
    said = summary(log, found)
    faults = said["faults"]
    assert isinstance(faults, dict)
    head = f"{'fault':20}{'n':>5}" + "".join(f"{column:>11}" for column in COLUMNS)
    lines = [head, "-" * len(head)]
    for kind, items in by_fault(log, found).items():
        counts = "".join(f"{sum(item.what == column for item in items):>11}" for column in COLUMNS)
        lines.append(f"{kind:20}{faults.get(kind, 0):>5}{counts}")
    total = "".join(f"{found.count(column):>11}" for column in COLUMNS)
    lines += ["-" * len(head), f"{'total':20}{sum(faults.values()):>5}{total}", ""]
    lines.append(
        f"{said['onsets']} troubles of {said['beds']} hearts ({found.hearts} checks in sinks), {found.events} alarm events, "
        f"{found.bed_seconds} bed-seconds, {len(log.lives)} lives of the monitor, {found.down_s:.0f} s without one; "
        f"{found.cut} events cut off by kill -9, {found.refused} refused by the broker, {found.raw_doubled} twice on the wire"
    )
    times = said["times"]
    assert isinstance(times, dict)
    lines += [f"{name:18} n {t['n']:>6}   p50 {t['p50']}   p99 {t['p99']}   max {t['max']}" for name, t in times.items()]
    return "\n".join(lines)
