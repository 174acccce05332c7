"""Draw what a network gets wrong, to look at: strips of 10 s with what is stated and what is said.

    python -m train.mistakes --cache runs/cache --model ecgnat-nano --about VF --out vf.png

``--about`` is a class of the rhythm head (half missed, half false, the longest stretches first), "screen" (the surest wrong
decisions) or "beat V", "beat S", ... (missed and false beats, spread over the records).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import numpy as np
from numpy.typing import NDArray

from ecgnat_stream.codes import BEATS, RHYTHMS, SCREENS
from ecgnat_stream.model import ModelConfig, Predictor
from ecgnat_stream.score.compare import MATCH_S, match_beats
from ecgnat_stream.signal import LEADS, MODEL_FS
from train.data.labels import BEAT_UNSTATED
from train.data.pack import Cached
from train.data.sample import Cache
from train.judge.reading import WINDOW, Reader
from train.judge.score import CELL, cell_sets, episodes

__all__ = ["Misread", "draw", "find_mistakes"]


@dataclass(frozen=True, slots=True)
class Misread:
    """A place in a record, what was wrong there, and how bad it was: the largest come first."""

    record: Cached
    at: int
    text: str
    weight: float
    missed: bool = True


def find_mistakes(reader: Reader, records: list[Cached], about: str, count: int = 20) -> list[Misread]:
    """Return up to ``count`` mistakes, missed and false ones in turn; ``about`` as in the module's text.

    Raises
    ------
    ValueError
        If ``about`` names no class.
    """
    if about == "screen":
        found = list(_screened(reader, [record for record in records if record.screen >= 0]))
    elif about in RHYTHMS:
        stated = [record for record in records if (reader.cache.rhythm(record) == 1 << RHYTHMS.index(about)).any()]
        databases = {record.database for record in stated} - {"cinc2017"}
        found = [m for record in records if record.database in databases for m in _rhythm(reader, record, about)]
    elif about.removeprefix("beat ") in BEATS:
        found = [m for record in records if record.beats > 0 for m in _beats(reader, record, about.removeprefix("beat "))]
    else:
        raise ValueError(f"want screen, {', '.join(RHYTHMS)} or 'beat' with one of {', '.join(BEATS)}, got {about!r}")
    found.sort(key=lambda mistake: -mistake.weight)
    missed, false = ([mistake for mistake in found if mistake.missed is side] for side in (True, False))
    half = max(count // 2, count - len(missed))
    return missed[: max(count - len(false), count // 2)] + false[:half]


def _screened(reader: Reader, records: list[Cached]) -> Iterator[Misread]:
    for record, said in zip(records, reader.screen(records), strict=True):
        guess = int(said.argmax())
        if guess != record.screen:
            text = f"{SCREENS[record.screen]}, said {SCREENS[guess]} {said[guess]:.2f}"
            yield Misread(record, max((record.length - WINDOW) // 2, 0), text, float(said[guess]))


def _rhythm(reader: Reader, record: Cached, about: str) -> Iterator[Misread]:
    said = reader.read(record).rhythm.argmax(axis=1)
    truth = cell_sets(reader.cache.rhythm(record))
    length = min(len(truth), len(said))
    truth, said = truth[:length], said[:length]
    bit, index = 1 << RHYTHMS.index(about), RHYTHMS.index(about)
    for start, stop in episodes((truth == bit) & (said != index)):
        other = RHYTHMS[int(np.bincount(said[start:stop]).argmax())]
        yield Misread(record, start * CELL, f"{about}, said {other} for {(stop - start) * CELL / MODEL_FS:.1f} s", stop - start)
    for start, stop in episodes(((truth & bit) == 0) & (said == index)):
        stated = "/".join(name for c, name in enumerate(RHYTHMS) if truth[start] >> c & 1)
        text = f"{stated}, said {about} for {(stop - start) * CELL / MODEL_FS:.1f} s"
        yield Misread(record, start * CELL, text, stop - start, missed=False)


def _beats(reader: Reader, record: Cached, about: str) -> Iterator[Misread]:
    reading, stated = reader.read(record, WINDOW // 2), reader.cache.beats(record)
    assert stated is not None, "only records with beats come here"
    first, second = match_beats(stated[:, 0], reading.positions, MATCH_S * MODEL_FS)
    index = BEATS.index(about)
    true, said = stated[first, 1].astype(int), reading.classes[second]
    order = np.random.default_rng(0).random(len(first))  # a fair choice among many: every record gives its first ones
    for missed, wrong in ((True, (true == index) & (said != index)), (False, (true != index) & (said == index))):
        for rank, which in enumerate(sorted(np.flatnonzero(wrong & (true != BEAT_UNSTATED)), key=lambda i: order[i])):
            at = int(stated[first[which], 0])
            text = f"{BEATS[true[which]]} said {BEATS[said[which]]} at {at / MODEL_FS:.1f} s"
            yield Misread(record, max(at - WINDOW // 2, 0), text, -rank, missed)


def draw(cache: Cache, mistakes: list[Misread], path: Path) -> None:
    """Draw one strip per mistake, two columns, the lead that is there first."""
    rows = -(-len(mistakes) // 2)
    figure = matplotlib.figure.Figure(figsize=(18, max(1.15 * rows, 2)), layout="constrained")
    for number, mistake in enumerate(mistakes):
        axes = figure.add_subplot(rows, 2, number + 1)
        leads: NDArray[np.float32] = cache.cut(mistake.record, mistake.at, WINDOW)[0]
        lead = int(np.isfinite(leads).any(axis=1).argmax())
        axes.plot((mistake.at + np.arange(WINDOW)) / MODEL_FS, leads[lead], color="0.1", linewidth=0.7)
        name = f"{mistake.record.database}/{mistake.record.name} {LEADS[lead]}"
        axes.set_title(f"{name}: {mistake.text}", fontsize=8, loc="left", pad=2)
        axes.tick_params(labelsize=6)
        axes.margins(x=0)
    figure.savefig(path, dpi=75)


def main() -> None:
    """Find and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--model", required=True, help="checkpoint: a folder or a shipped name")
    parser.add_argument("--split", default="test")
    parser.add_argument("--about", required=True, help="screen, a rhythm, or 'beat V'")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    arguments = parser.parse_args()
    cache = Cache(arguments.cache)
    with Predictor(ModelConfig(name=arguments.model, threads=1)) as predictor:
        records = [record for record in cache.records if record.split == arguments.split]
        found = find_mistakes(Reader(predictor, cache), records, arguments.about, arguments.count)
    for mistake in found:
        print(f"{mistake.record.database}/{mistake.record.name} at {mistake.at / MODEL_FS:.1f} s: {mistake.text}")
    draw(cache, found, arguments.out)


if __name__ == "__main__":
    main()
