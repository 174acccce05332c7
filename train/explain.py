"""Show what a network's decisions come from: the attention of BEAT-Net, the lead groups of HUG.

    python -m train.explain --cache runs/cache --model beatnet --split val --out runs/explain
    python -m train.explain --cache runs/cache --model clear-hug --split val --out runs/explain

Reads the middle 10 s of every record of the split that states a class of the checkpoint. For BEAT-Net it writes
``OUT/attention.json`` (per class the leads by falling attention, and beats by their timing, with 95 % intervals by resampling
records), ``OUT/leads.png`` (classes and leads) and one strip per record, for ``--records`` of them: of every class in turn those
that are said most surely. Leads are ranked on records that have all twelve. For networks with HUG it writes ``OUT/groups.json``,
the mean evidence of every lead group for every class over the records that state it and over the others, and
``OUT/groups-<head>.png``. Groups are ranked by the difference of the two: what a group adds to every record tells nothing.

Attention says where a network looks, not what it concludes: a lead with much of it may speak for a class or against it.

Shapes: B batch, N beat, L lead, T time, C class, X lead group.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.figure
import msgspec
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from numpy.typing import ArrayLike, NDArray

from ecgnat_stream.beats import find_beats
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.model import Network, find_checkpoint, load_checkpoint
from ecgnat_stream.model.beatnet import BeatNet
from ecgnat_stream.model.checkpoint import Calibration
from ecgnat_stream.model.clear import Clear
from ecgnat_stream.model.ecgnat_hug import EcgNatHug
from ecgnat_stream.model.hug import EXPERTS
from ecgnat_stream.model.tokens import R_AT, TOKEN_SAMPLES
from ecgnat_stream.score.figures import ratio
from ecgnat_stream.signal import LEADS, MODEL_FS
from train.data.pack import Cached
from train.data.sample import Cache
from train.data.tasks import TASKS, Task
from train.judge.metrics import interval
from train.judge.sections import check_classes

__all__ = ["Look", "draw_groups", "draw_leads", "draw_record", "groups", "look", "main", "summarise"]

Floats = NDArray[np.float64]

_WINDOW = 1000
_BATCH = 32
_FEWEST = 5
"""Records from which a class gets a row of the picture."""

_OFF = 0.15
"""A beat is early or late whose RR interval differs from the mean by more than this part of it."""

_HEADS = ("window", "screen")
_COLOURS = ListedColormap(colormaps["OrRd"](np.linspace(0, 0.8, 256)))  # without the darkest: the signal must stay legible


@dataclass(frozen=True, slots=True)
class Look:
    """What one head looked at in one window.

    Parameters
    ----------
    stated, said
        ``(C,)`` statements 0 or 1, and probabilities.
    share
        ``(C, N, L)`` attention of each class on each lead of each beat; 1 in sum, less what falls on beats without any lead.
    beats
        ``(C, N)``, 1 in sum.
    encoder
        ``(L,)`` attention of the lead encoder, which all classes share; mean over beats.
    read
        ``(N, 2)`` samples of the window that the token of a beat holds, ``[begin, end)``.
    timing
        ``(N,)`` RR interval before the beat as a part of the mean; NaN if unknown.
    """

    record: Cached
    start: int
    stated: Floats
    said: Floats
    share: Floats
    beats: Floats
    encoder: Floats
    read: NDArray[np.int64]
    timing: Floats

    @property
    def whole(self) -> bool:
        """Whether all twelve leads are there."""
        return len(self.record.slots) == len(LEADS)


def _statements(network: Network, head: str, task: Task | None = None) -> Callable[[Cached], Floats | None]:
    """Return what tells the statements of a record about the classes of a head, or None; a task's where one is given."""
    if task is not None:
        return lambda record: None if (target := task.target(record)) is None else target.astype(float)
    classes = network.config.screen_classes if head == "screen" else network.config.window_classes

    def bits(record: Cached) -> Floats | None:
        return None if record.window < 0 else np.array([record.window >> c & 1 for c in range(len(classes))], float)

    def one(record: Cached) -> Floats | None:
        return None if record.screen < 0 else np.eye(len(classes))[record.screen]

    return one if head == "screen" else bits


@torch.inference_mode()
def look(
    network: BeatNet, cache: Cache, records: Sequence[Cached], head: str, task: Task | None = None, temperature: float = 1.0
) -> Iterator[Look]:
    """Yield what a head, "window" or "screen", looked at in the middle of every record that states one of its classes.

    Parameters
    ----------
    temperature
        That of the checkpoint for this head: logits are divided by it.
    """
    states = _statements(network, head, task)
    stated = [(record, target) for record in records if (target := states(record)) is not None]
    exclusive = head == "screen" or (task is not None and task.kind == "exclusive")
    for at in range(0, len(stated), _BATCH):
        some = stated[at : at + _BATCH]
        starts = [max((record.length - _WINDOW) // 2, 0) for record, _ in some]
        cuts = [cache.cut(record, start, _WINDOW)[0] for (record, _), start in zip(some, starts, strict=True)]
        windows = np.stack(cuts)
        x = network.prepare(torch.from_numpy(windows), torch.from_numpy(find_beats(windows)))
        features = network.encode(x)
        logits = getattr(network.read(features), head).double() / temperature
        said = (logits.softmax(dim=1) if exclusive else logits.sigmoid()).numpy()
        evidence = network.explain(features)[head]
        share = (evidence.beats[..., None] * evidence.leads).double().numpy()
        first = (x.at * MODEL_FS).round().long()[..., None] - R_AT
        read = x.bounds.clamp(min=first, max=first + TOKEN_SAMPLES).numpy()
        known = torch.where(x.rr[..., 3] > 0, x.rr[..., 2], torch.nan).double().numpy()
        for row, (record, target) in enumerate(some):
            n = int(x.beat[row].sum())
            encoder = features.lead_weights[row, :n].double().mean(dim=0).numpy()
            yield Look(
                record=record,
                start=starts[row],
                stated=target,
                said=said[row],
                share=share[row, :, :n],
                beats=evidence.beats[row, :, :n].double().numpy(),
                encoder=encoder,
                read=read[row, :n],
                timing=known[row, :n],
            )


def summarise(looks: Sequence[Look], classes: Sequence[str]) -> dict[str, Any]:
    """Return per class, over the records that state it, the attention on leads and on beats.

    "leads" is the share of each lead in records with all twelve, largest first, null where there is none. "beats" is the mean
    attention on a beat as a multiple of an equal share, by its timing; "effective_part" is the part of the beats over which it is
    spread (exponential of the entropy, 1 = evenly).
    """
    result: dict[str, Any] = {}
    for c, name in enumerate(classes):
        own = [one for one in looks if one.stated[c] > 0]
        result[name] = {
            "records": len(own),
            "leads": _ranked([one.share[c].sum(axis=0) for one in own if one.whole]),
            "beats": _by_timing(own, c),
        }
    return result


def _ranked(rows: Sequence[Floats]) -> dict[str, list[float] | None] | None:
    if not rows:
        return None
    table, ones = np.stack(rows), np.ones(len(rows))
    order = np.argsort(-table.mean(axis=0), kind="stable")
    return {LEADS[lead]: interval(ratio(table[:, lead], ones), len(rows)) for lead in order}


def _by_timing(looks: Sequence[Look], c: int) -> dict[str, list[float] | None]:
    """Return attention by timing; a beat whose RR interval is not known is of none."""
    kinds: dict[str, Callable[[Floats], NDArray[np.bool_]]] = {
        "early": lambda timing: timing < 1 - _OFF,
        "in_time": lambda timing: np.abs(timing - 1) <= _OFF,
        "late": lambda timing: timing > 1 + _OFF,
    }
    result = {}
    for kind, chosen in kinds.items():
        sums = [one.beats[c][chosen(one.timing)].sum() * len(one.timing) for one in looks]
        result[kind] = interval(ratio(sums, [chosen(one.timing).sum() for one in looks]), len(looks))
    spread = [np.exp(-(one.beats[c] * np.log(one.beats[c].clip(1e-12))).sum()) / len(one.timing) for one in looks]
    return result | {"effective_part": interval(ratio(spread, np.ones(len(looks))), len(looks))}


def draw_leads(result: dict[str, Any], path: Path) -> None:
    """Draw the share of every lead as in ``attention.json``, one row per class that enough records state."""
    lines: list[tuple[str, dict[str, list[float]]]] = [("lead encoder", result["encoder"])] if result["encoder"] else []
    for head in _HEADS:
        for name, figures in result.get(head, {}).items():
            if figures["leads"] is not None and figures["records"] >= _FEWEST:
                lines.append((f"{name} ({figures['records']})", figures["leads"]))
    if not lines:
        return
    table = 100 * np.array([[leads[lead][0] for lead in LEADS] for _, leads in lines])
    figure = matplotlib.figure.Figure(figsize=(9.5, 1.6 + 0.42 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    most = max(float(table.max()), 100 / 6)
    axes.imshow(table, cmap=_COLOURS, vmin=0, vmax=most, aspect="auto")
    for row, column in np.ndindex(table.shape):
        first = table[row, column] == table[row].max()
        dark = table[row, column] > 0.8 * most
        text = f"{table[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", color="w" if dark else "k", weight="bold" if first else "normal")
    axes.set_xticks(range(len(LEADS)), LEADS)
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    axes.set_title("Attention per lead, % (an equal share is 8.3); mean over the records that state the class", fontsize=10)
    axes.set_frame_on(False)
    axes.tick_params(length=0)
    figure.savefig(path, dpi=90)


def draw_record(cache: Cache, one: Look, classes: Sequence[str], c: int, path: Path) -> None:
    """Draw the leads of a record, every beat of every lead coloured by the attention that class ``c`` pays to it."""
    signal = cache.cut(one.record, one.start, _WINDOW)[0].astype(float)
    there = sorted(one.record.slots)
    by_lead = one.share[c].sum(axis=0)
    first = sorted(there, key=lambda lead: -by_lead[lead])[: min(3, len(there))]
    times = one.share[c] * len(one.timing) * len(there)  # multiples of an equal share
    shades = ScalarMappable(Normalize(0, max(float(times.max()), 3.0)), _COLOURS)
    columns = 2 if len(there) > 6 else 1
    rows = -(-len(there) // columns)
    figure = matplotlib.figure.Figure(figsize=(15, 1.3 + 1.25 * rows), layout="constrained")
    low, high = np.nanpercentile(signal[there], [0.2, 99.8]) if np.isfinite(signal[there]).any() else (-1.0, 1.0)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).T.ravel()
    time = np.arange(_WINDOW) / MODEL_FS
    for axes, lead in zip(grid, there, strict=False):
        for (begin, end), value in zip(one.read, times[:, lead], strict=True):
            axes.axvspan(begin / MODEL_FS, end / MODEL_FS, color=shades.to_rgba(value), linewidth=0, zorder=0)
        axes.plot(time, signal[lead], color="0.05", linewidth=0.8)
        axes.set_ylabel(
            f"{LEADS[lead]}\n{100 * by_lead[lead]:.0f} %",
            rotation=0,
            ha="right",
            va="center",
            weight="bold" if lead in first else "normal",
        )
        axes.set_xlim(0, _WINDOW / MODEL_FS)
        axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        axes.tick_params(labelsize=7)
    for axes in grid[len(there) :]:
        axes.set_visible(False)
    grid[rows - 1].set_xlabel(f"s from {one.start / MODEL_FS:.1f} s of the record; mV")
    beat = int(one.beats[c].argmax())
    middle = one.read[beat].mean() / MODEL_FS
    names = ", ".join(name for name, value in zip(classes, one.stated, strict=True) if value > 0) or "none of the classes"
    figure.suptitle(
        f"{one.record.database}/{one.record.name}: stated {names}; {classes[c]} said with {one.said[c]:.2f}\n"
        f"{classes[c]} looks most at {', '.join(f'{LEADS[lead]} {100 * by_lead[lead]:.0f} %' for lead in first)}; "
        f"of {len(one.timing)} tokens most at that around {middle:.1f} s ({100 * one.beats[c][beat]:.0f} %)",
        fontsize=10,
    )
    bar = figure.colorbar(shades, ax=list(grid), fraction=0.012, pad=0.005)
    bar.set_label("times an equal share", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=80)


def draw_groups(evidence: ArrayLike, stated: ArrayLike, classes: Sequence[str], path: Path) -> None:
    """Draw what each lead group adds to the logit of each class, in records that state it and in the others.

    Parameters
    ----------
    evidence
        ``(B, X, C)`` of :class:`ecgnat_stream.model.hug.HugOutput`.
    stated
        ``(B, C)`` 0 or 1.
    classes
        Names of the C classes.

    Raises
    ------
    ValueError
        For another shape.
    """
    values = np.asarray(evidence, float)
    if values.ndim != 3 or len(values) == 0 or values.shape[1:] != (len(EXPERTS), len(classes)):
        raise ValueError(f"want evidence (B, {len(EXPERTS)}, {len(classes)}), got {values.shape}")
    own = np.asarray(stated, float) > 0
    columns = min(len(classes), 5)
    rows = -(-len(classes) // columns)
    figure = matplotlib.figure.Figure(figsize=(2.2 + 2.4 * columns, 0.6 + 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for c, (axes, name) in enumerate(zip(grid, classes, strict=False)):
        _bars(axes, values[own[:, c], :, c], values[~own[:, c], :, c], name)
    for axes in grid[len(classes) :]:
        axes.set_visible(False)
    grid[0].invert_yaxis()
    text = "evidence, part of the logit; filled: records that state the class, mean and middle half; outlined: the others, mean"
    figure.supxlabel(text, fontsize=9)
    figure.savefig(path, dpi=90)


def _bars(axes: Axes, own: Floats, others: Floats, name: str) -> None:
    places = np.arange(len(EXPERTS))
    if len(own):
        mean, (low, high) = own.mean(axis=0), np.quantile(own, [0.25, 0.75], axis=0)
        axes.barh(places, mean, color=["tab:red" if value > 0 else "tab:blue" for value in mean], alpha=0.75)
        axes.hlines(places, low, high, color="0.1", linewidth=1.2)
    if len(others):
        axes.barh(places, others.mean(axis=0), fill=False, edgecolor="0.45", linewidth=0.9)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(places, EXPERTS, fontsize=8)
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="x", labelsize=7, labelbottom=True)
    axes.set_title(f"{name} ({len(own)} of {len(own) + len(others)})", fontsize=10)


def _surest(looks: Sequence[Look], classes: int, count: int) -> list[tuple[Look, int]]:
    """Return windows to draw and the class to draw them for: of every class in turn those said most surely, each record once."""
    ranked = [sorted((one for one in looks if one.stated[c] > 0), key=lambda one, c=c: -one.said[c]) for c in range(classes)]  # type: ignore[misc]
    chosen: list[tuple[Look, int]] = []
    seen: set[tuple[str, str]] = set()
    for depth in range(max(map(len, ranked), default=0)):
        for c, own in enumerate(ranked):
            record = own[depth].record if depth < len(own) and len(chosen) < count else None
            if record is not None and (record.database, record.name) not in seen:
                seen.add((record.database, record.name))
                chosen.append((own[depth], c))
    return chosen


@torch.inference_mode()
def groups(
    network: Clear | EcgNatHug, cache: Cache, records: Sequence[Cached], head: str, task: Task | None = None
) -> tuple[Floats, Floats]:
    """Return the evidence of the lead groups ``(R, 7, C)`` for the records that state a class of a head, and what they state."""
    states = _statements(network, head, task)
    stated = [(record, target) for record in records if (target := states(record)) is not None]
    parts = []
    for at in range(0, len(stated), _BATCH):
        some = [record for record, _ in stated[at : at + _BATCH]]
        cuts = [cache.cut(record, max((record.length - _WINDOW) // 2, 0), _WINDOW)[0] for record in some]
        windows = np.stack(cuts)
        x: Any = network.prepare(torch.from_numpy(windows), torch.from_numpy(find_beats(windows)))
        features: Any = network.encode(x)
        parts.append(network.evidence(features)[head].double().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, len(EXPERTS), 1)), np.array([target for _, target in stated], float)


def _explain_groups(
    network: Clear | EcgNatHug, cache: Cache, records: Sequence[Cached], heads: Sequence[str], task: Task | None, out: Path
) -> None:
    """Write and draw the evidence of the lead groups; print the group by which a class's records rise most above the others."""
    names = {"window": network.config.window_classes, "screen": network.config.screen_classes}
    result: dict[str, Any] = {"groups": EXPERTS}
    for head in heads:
        evidence, stated = groups(network, cache, records, head, task)
        if len(evidence) == 0:
            continue
        draw_groups(evidence, stated, names[head], out / f"groups-{head}.png")
        result[head] = {}
        for c in np.flatnonzero(stated.any(axis=0)):
            name, own = names[head][c], stated[:, c] > 0
            means = [evidence[some, :, c].mean(axis=0) for some in (own, ~own) if some.any()]
            figures = {key: mean.round(3).tolist() for key, mean in zip(("evidence", "others"), means, strict=False)}
            result[head][name] = {"records": int(own.sum())} | figures
            rise = means[0] - means[-1]
            most = f"most from {EXPERTS[int(rise.argmax())]}, {rise.max():+.2f} against the others"
            print(f"{head} {name} ({own.sum()} of {len(own)} records): {most if len(means) > 1 else 'no others'}")
    (out / "groups.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def _load(name: str) -> tuple[BeatNet | Clear | EcgNatHug, Calibration]:
    network, card = load_checkpoint(find_checkpoint(name))
    if isinstance(network, BeatNet | EcgNatHug) or (isinstance(network, Clear) and network.config.head != "linear"):
        return network, card.calibration
    raise ValueError(
        f"{name} ({card.model.name}) explains nothing: give a checkpoint of BEAT-Net, or of a network with a HUG head"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--model", required=True, help="checkpoint of BEAT-Net or with HUG: a folder or a shipped name")
    parser.add_argument("--task", choices=sorted(TASKS), help="of a checkpoint of train.study: what it was trained for")
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--records", type=int, default=6, help="records to draw")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    given = parser.parse_args(arguments)
    task = TASKS[given.task] if given.task else None
    try:
        (network, calibration), cache = _load(given.model), Cache(given.cache)
        check_classes(network.config.window_classes, task)
        own = [record for record in cache.records if record.split == given.split]
        records = own if task is None else task.records(cache.records, given.split)
    except (ValueError, EcgnatError) as error:
        parser.exit(1, f"{error}\n")
    heads = _HEADS if task is None else _HEADS[:1]
    if not isinstance(network, BeatNet):
        given.out.mkdir(parents=True, exist_ok=True)
        _explain_groups(network, cache, records, heads, task, given.out)
        return
    names = {"window": network.config.window_classes, "screen": network.config.screen_classes}
    temperature = {"window": calibration.window_temperature, "screen": calibration.screen_temperature}
    seen = {h: looks for h in heads if (looks := list(look(network, cache, records, h, task, temperature[h])))}
    if not seen:
        parser.exit(1, f"no record of split {given.split} states a class of the checkpoint's\n")
    given.out.mkdir(parents=True, exist_ok=True)
    sections = {head: summarise(looks, names[head]) for head, looks in seen.items()}
    encoder = _ranked([one.encoder for looks in seen.values() for one in looks if one.whole])
    result = {"model": Path(given.model).name, "split": given.split, "encoder": encoder} | sections
    (given.out / "attention.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    draw_leads(result, given.out / "leads.png")
    share = -(-given.records // len(seen))
    drawn = [(head, *row) for head, looks in seen.items() for row in _surest(looks, len(names[head]), share)][: given.records]
    for head, one, c in drawn:
        draw_record(cache, one, names[head], c, given.out / f"{one.record.database}-{one.record.name}-{head}.png")
    for head, section in sections.items():
        for name in names[head]:
            leads = section[name]["leads"]
            text = ", ".join(f"{lead} {value[0]:.2f}" for lead, value in list(leads.items())[:3]) if leads else "one lead only"
            print(f"{head} {name} ({section[name]['records']} records): {text}")


if __name__ == "__main__":
    main()
