"""A heart in wrong units is named and raises no alarm of the heart; a heart that stands still is an asystole at any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgnat_stream.alarm.picture import PHYSIOLOGICAL
from ecgnat_stream.beats import BeatFrame
from ecgnat_stream.bus import Published
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.condition import Conditioner
from ecgnat_stream.config import parse_config
from ecgnat_stream.device import LinkState
from ecgnat_stream.events import Alarm, Quality, Vitals
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.ward import Ward
from ecgnat_stream.ward.scale import ScaleWatch
from ecgnat_stream.watchdog import explains

FS, LENGTH_S = 250, 16


def heart(seconds: float = LENGTH_S, noise_mv: float = 0.01) -> NDArray[np.float64]:
    """A heart of 75 bpm: QRS complexes of 1 mV, T waves, noise; mV."""
    t = np.arange(round(seconds * FS)) / FS
    wave = np.exp(-((((t % 0.8) - 0.4) / 0.02) ** 2)) + 0.2 * np.exp(-((((t % 0.8) - 0.65) / 0.05) ** 2))
    return wave + np.random.default_rng(0).normal(0, noise_mv, len(t))


def still(kind: str, seconds: float = LENGTH_S) -> NDArray[np.float64]:
    """What is left of a signal when the heart stands still, mV."""
    t, rng = np.arange(round(seconds * FS)) / FS, np.random.default_rng(1)
    return {
        "noise": rng.normal(0, 0.001, len(t)),
        "wander": 0.003 * np.sin(2 * np.pi * 0.3 * t) + rng.normal(0, 0.0004, len(t)),
        "hum": 0.002 * np.sin(2 * np.pi * 50 * t) + rng.normal(0, 0.0003, len(t)),
        "steps": 0.0025 * (rng.random(len(t)) < 0.1),
        "slow steps": 0.0025 * np.round(0.6 * np.sin(2 * np.pi * 0.2 * t) + rng.normal(0, 0.3, len(t))),
        "spread": np.cumsum(rng.normal(0, 0.0001, len(t))),
    }[kind]


class Bedside:
    """A ward of one bed whose device delivers arrays; no network answers."""

    def __init__(self) -> None:
        self.said: list[Published] = []
        self.ward = Ward(parse_config({"bed": [{"id": "a", "device": "simulate"}]}), ManualClock(), self.said.append)

    def _work(self) -> None:
        while self.ward.advance():
            pass
        while windows := self.ward.next_batch():
            self.ward.fail(windows, "no network here")

    def take(self, *items: StreamInfo | SampleBlock | LinkState) -> None:
        for item in items:
            for part in self.ward.parts(0, item):
                while not self.ward.make_way(0, part):
                    self._work()
                self.ward.accept(0, part)
            self._work()

    def monitor(self, samples: NDArray[np.float64]) -> None:
        info = StreamInfo(fs=FS, leads=("II",), device="test", live=False, total=len(samples))
        self.take(info, LinkState("online", session=1), SampleBlock(0, samples[None].astype(np.float32), 0))

    def begun(self) -> dict[str, Alarm]:
        alarms = [event for event in self.said if isinstance(event, Alarm) and event.bed and event.phase == "start"]
        return {alarm.condition: alarm for alarm in reversed(alarms)}

    def of(self, kind: type) -> Iterator[Published]:
        return (event for event in self.said if isinstance(event, kind))


@pytest.mark.parametrize(
    ("factor", "said"), [(1e-3, "0.001"), (1e3, "1000"), (1e-6, "1e-06"), (-1e-3, "0.001"), (5e-3, "0.005"), (2e2, "200")]
)
def test_a_heart_in_wrong_units_is_named_and_raises_no_alarm_of_the_heart(factor: float, said: str) -> None:
    bed = Bedside()
    bed.monitor(factor * heart())
    begun = bed.begun()
    assert begun["wrong-units"].text == f"amplitude of {said} mV: wrong units? The rhythm is not judged"
    assert (begun["wrong-units"].kind, begun["wrong-units"].priority) == ("technical", "high")
    assert begun["wrong-units"].at_s < 6.0  # type: ignore[operator]
    assert not begun.keys() & PHYSIOLOGICAL.keys()
    assert explains(begun["wrong-units"])
    vitals = [event for event in bed.of(Vitals) if isinstance(event, Vitals) and (event.at_s or 0) > 6]
    assert vitals and {event.heart_rate_bpm for event in vitals} == {None}
    assert {event.usable for event in bed.of(Quality) if isinstance(event, Quality) and (event.at_s or 0) > 6} == {False}


@pytest.mark.parametrize("kind", ["noise", "wander", "hum", "steps", "slow steps", "spread"])
@pytest.mark.parametrize("size", [1.0, 0.2])
def test_a_heart_that_stands_still_is_an_asystole_at_any_size(kind: str, size: float) -> None:
    bed = Bedside()
    bed.monitor(size * still(kind))
    assert "wrong-units" not in bed.begun()
    assert "asystole" in bed.begun()


def test_a_heart_that_stops_is_an_asystole_however_small_the_rest_is() -> None:
    bed = Bedside()
    bed.monitor(np.concatenate([heart(12), still("noise"), 1e-3 * heart(12)]))
    assert "wrong-units" not in bed.begun(), "the unit of this stream was proven by its beats"
    assert bed.begun()["asystole"].onset_s == pytest.approx(11.6, abs=0.01)


def test_a_heart_in_wrong_units_that_stops_is_an_alarm_of_the_heart() -> None:
    bed = Bedside()
    bed.monitor(np.concatenate([1e-3 * heart(12), still("noise", 40)]))
    begun = bed.begun()
    assert begun["wrong-units"].at_s < begun["asystole"].at_s < 12 + 25  # type: ignore[operator]


def test_the_next_stream_of_a_bed_is_asked_anew() -> None:
    bed = Bedside()
    bed.monitor(heart())
    assert not bed.begun()
    bed.take(StreamInfo(fs=FS, leads=("II",), device="test", live=False, total=LENGTH_S * FS))
    bed.take(SampleBlock(LENGTH_S * FS, (1e-3 * heart())[None].astype(np.float32), 0))
    assert set(bed.begun()) == {"wrong-units"}


def test_what_is_found_of_a_bed_hangs_on_that_bed_alone() -> None:
    sizes = (1.0, 1e-3, 1e-3, 2e2, 1.0, 1e-3)
    rng = np.random.default_rng(3)
    frames, length = 90, Conditioner(FS, 1).needed(np.array([0]))[1]
    x = np.full((len(sizes), 12, frames * 50 + length), np.nan, np.float32)
    for row, size in enumerate(sizes):
        x[row, 1 : 2 + row % 3] = size * heart(x.shape[2] / FS)[: x.shape[2]]
    config = parse_config({"bed": [{"id": "a", "device": "simulate"}]})
    none = BeatFrame(np.zeros(0, np.intp), np.zeros(0), np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0))

    def look(watch: ScaleWatch, rows: NDArray[np.intp], k: int) -> NDArray[np.float32]:
        """A gap lies in the third bed; the first one is found beating, and so is the last, which is too small to be believed."""
        found = rows[np.isin(rows, (0, 5)) & (k % 4 == 3)]
        number = np.where((rows == 2) & (k >= 40), k + 7, k)
        beats = replace(none, row=found) if len(found) else none
        raw = x[rows, :, 50 * k : 50 * k + length]
        return watch.process(rows, number, FS, raw, ~np.isnan(raw).all(axis=2), beats)

    together, alone = ScaleWatch(len(sizes), config), [ScaleWatch(len(sizes), config) for _ in sizes]
    said = np.full((frames, len(sizes)), np.nan, np.float32)
    for k in range(frames):
        rows = rng.permutation(len(sizes))
        said[k, rows] = look(together, rows, k)
        for row in range(len(sizes)):
            one = look(alone[row], np.array([row]), k)
            assert np.array_equal(one, said[k, [row]], equal_nan=True)
    wrong = ~np.isnan(said)
    assert not wrong[:, [0, 4]].any()
    assert wrong[-1, 1] and wrong[-1, 3] and wrong[39, 2]
    assert not wrong[40:54, 2].any() and wrong[54, 2], "after the gap the size is measured anew"
    assert not wrong[-1, 5], "three beats of a possible size prove the unit"
