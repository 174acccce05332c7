"""Judge a network on a task of :mod:`train.tasks`: whole records in, figures with 95 % intervals out.

Every record is read in windows end to end, the last one up to its end, and their logits are averaged (logarithms of probabilities
where the classes exclude each other). Labels with fewer than ten positives among the records are left out and named. F1 is taken
at thresholds chosen on validation records.

Shapes: B batch, L lead, T time (100 Hz), N beat, R record, C class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ecgnat_stream.beats import find_beats
from ecgnat_stream.model import Network
from ecgnat_stream.score.figures import Statistic
from ecgnat_stream.signal import MODEL_FS
from train.data.pack import Cached
from train.data.sample import Cache
from train.data.tasks import FEWEST, Task
from train.judge.metrics import Interval, auroc, average_precision, best_thresholds, difference, f1, interval, macro
from train.judge.reading import Change, starts
from train.judge.robustness import BEAT_ERRORS, AddNoise, FindBeats, disturb_beats, keep

__all__ = ["CONDITIONS", "averaged", "judge", "judged", "lengths_of", "quick_score", "read", "robustness", "windows_of"]

_BATCH = 32
_ROBUST = 200
"""Most records that are read under every condition."""


def lengths_of(task: Task) -> tuple[int, ...]:
    """Return the window lengths to train with, the last to read with: records of the Challenge 2017 have 9 to 61 s."""
    return (10 * MODEL_FS, 20 * MODEL_FS) if "cinc2017" in task.databases else (10 * MODEL_FS,)


@torch.no_grad()
def read(
    network: Network,
    cache: Cache,
    records: Sequence[Cached],
    task: Task,
    device: torch.device,
    change: Change | None = None,
    beats: FindBeats = find_beats,
) -> NDArray[np.float64]:
    """Return ``(R, C)`` mean logits of the records."""
    network.eval()
    windows = windows_of(network, cache, records, task, device, change, beats)
    return averaged(task, ((rows, network(x).window) for rows, x in windows), len(records))


def averaged(task: Task, windows: Iterable[tuple[list[int], Tensor]], records: int) -> NDArray[np.float64]:
    """Return ``(R, C)`` means over windows, of which batches come with the records that they are of: ``(B,)`` and ``(B, C)``."""
    total, count = np.zeros((records, len(task.classes))), np.zeros((records, 1))
    for rows, batch in windows:
        logits = batch.double().cpu()
        np.add.at(total, rows, (logits.log_softmax(dim=1) if task.kind == "exclusive" else logits).numpy())
        np.add.at(count, rows, 1)
    mean: NDArray[np.float64] = total / count
    return mean


def windows_of(
    network: Network,
    cache: Cache,
    records: Sequence[Cached],
    task: Task,
    device: torch.device,
    change: Change | None = None,
    beats: FindBeats = find_beats,
) -> Iterator[tuple[list[int], Any]]:
    """Yield batches of windows as the network takes them, and which of the records each is of."""
    length = max(lengths_of(task))
    places = [(row, record, start) for row, record in enumerate(records) for start in starts(record.length, length, length)]
    for at in range(0, len(places), _BATCH):
        some = places[at : at + _BATCH]
        cuts = [(cache.cut(record, start, length)[0], record, start) for _, record, start in some]
        windows = np.stack([cut if change is None else change(cut, record, start) for cut, record, start in cuts])
        peaks = torch.from_numpy(beats(windows)).to(device) if network.needs_beats else None
        yield [row for row, _, _ in some], network.prepare(torch.from_numpy(windows).to(device), peaks)


def quick_score(stated: NDArray[np.floating], said: NDArray[np.floating]) -> float:
    """Return the macro-AUROC over all classes that are sometimes stated; for choosing an epoch. NaN where there is none."""
    some = [c for c in range(stated.shape[1]) if 0 < stated[:, c].sum() < len(stated)]
    return float(np.mean([roc_auc_score(stated[:, c], said[:, c]) for c in some])) if some else float("nan")


def judge(
    task: Task,
    stated: NDArray[np.floating],
    said: NDArray[np.floating],
    val_stated: NDArray[np.floating],
    val_said: NDArray[np.floating],
) -> dict[str, Any]:
    """Return "auroc", "auprc" and "f1", macro over the judged classes, each ``[value, low, high]``, and "left_out"."""
    used = judged(stated)
    left_out = [name for c, name in enumerate(task.classes) if c not in used]
    if not used:
        return {"auroc": None, "auprc": None, "f1": None, "left_out": left_out}
    thresholds: NDArray[np.float64] = np.array(best_thresholds(val_stated, _probability(task, val_said)), np.float64)
    decided = _probability(task, said) >= thresholds
    parts: dict[str, Any] = {
        "auroc": [auroc(stated[:, c], said[:, c]) for c in used],
        "auprc": [average_precision(stated[:, c], said[:, c]) for c in used],
        "f1": [f1(stated[:, c] * decided[:, c], decided[:, c], stated[:, c]) for c in used],
    }
    return {name: interval(macro(each), len(stated)) for name, each in parts.items()} | {"left_out": left_out}


def judged(stated: NDArray[Any]) -> list[int]:
    """Return the classes with ten positives and a negative among statements ``(R, C)``: only these are in a macro figure."""
    return [c for c in range(stated.shape[1]) if FEWEST <= stated[:, c].sum() <= len(stated) - 1]


def _probability(task: Task, said: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.exp(said) if task.kind == "exclusive" else np.asarray(0.5 * (1 + np.tanh(0.5 * said)))


CONDITIONS: dict[str, tuple[str, float]] = (
    {f"noise {snr} dB": ("snr_db", snr) for snr in (24, 18, 12, 6, 0)}
    | {f"{count} lead{'s' * (count > 1)}": ("leads", count) for count in (6, 3, 2, 1)}
    | {f"amplitude x {factor:g}": ("amplitude", factor) for factor in (0.5, 2)}
    | BEAT_ERRORS
)
"""What a reading may suffer: recorded electrode motion, fewer leads (II; I II; I II V2; the limb leads), another gain, and errors
of the R peaks, which networks without beat tokens do not notice."""

_LEADS = {1: ("II",), 2: ("I", "II"), 3: ("I", "II", "V2"), 6: ("I", "II", "III", "aVR", "aVL", "aVF")}
_ELECTRODE_MOTION = 1


def robustness(
    network: Network, cache: Cache, records: Sequence[Cached], task: Task, device: torch.device
) -> dict[str, Interval | None]:
    """Return what at most 200 records lose of the macro-AUROC under every condition, and that of "clean".

    Losses are of the same records drawn alike, so that their intervals do not hold the spread of the records. The classes are
    those that :func:`judge` takes for all records, as far as they are stated ten times among those read.
    """
    chosen = sorted(records, key=lambda record: (record.database, record.name))
    if len(chosen) > _ROBUST:
        picked = np.random.default_rng(0).choice(len(chosen), _ROBUST, replace=False)
        chosen = [chosen[i] for i in np.sort(picked)]
    stated = task.targets(chosen)
    used = [c for c in judged(task.targets(records)) if c in judged(stated)]
    twelve = any(len(record.slots) > 2 for record in chosen)
    losses: dict[str, Interval | None] = {}
    clean: Statistic | None = None
    for name, (kind, value) in {"clean": ("", 0.0), **CONDITIONS}.items():
        unnoticed = kind in ("jitter_ms", "missed", "false") and not network.needs_beats
        losses[name] = None
        if (kind == "leads" and not twelve) or (kind == "snr_db" and not cache.noise.size) or unnoticed or not used:
            continue
        change, beats = _under(cache, kind, value)
        said = read(network, cache, chosen, task, device, change, beats)
        here = macro([auroc(stated[:, c], said[:, c]) for c in used])
        losses[name] = interval(here if clean is None else difference(clean, here), len(chosen))
        clean = clean or here
    return losses


def _under(cache: Cache, kind: str, value: float) -> tuple[Change | None, FindBeats]:
    if kind == "snr_db":
        return AddNoise(cache, _ELECTRODE_MOTION, value, {}), find_beats
    if kind == "leads":
        return keep(_LEADS[int(value)]), find_beats
    if kind == "amplitude":
        return lambda window, _record, _start: window * np.float32(value), find_beats
    return None, disturb_beats(**{kind: value}) if kind else find_beats
