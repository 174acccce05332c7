"""Token by token, a ward says the same however a record is cut, and what befalls one bed changes nothing for the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ecgnat_stream.bus import Published
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.config import parse_config
from ecgnat_stream.device import LinkState
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.events import Alarm, Rhythm
from ecgnat_stream.model import (
    EcgNat,
    ModelCard,
    ModelConfig,
    Predictor,
    build,
    load_checkpoint,
    reading_mode,
    save_checkpoint,
    size,
)
from ecgnat_stream.model.prediction import Prediction
from ecgnat_stream.model.preprocess import TOKEN, prepare
from ecgnat_stream.rhythm import RhythmTimeline
from ecgnat_stream.schedule import BEHIND_S, ScheduleConfig, TokenScheduler
from ecgnat_stream.signal import FRAME, SampleBlock, StreamInfo, Window
from ecgnat_stream.ward import Ward

FS = 250
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small causal network that was not trained, and whose answers differ from token to token."""
    path = tmp_path_factory.mktemp("causal")
    torch.manual_seed(2)
    config = msgspec.structs.replace(size("nano", is_causal=True), embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))
    network = build(config)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.rhythm_head.linear.weight.data *= 6
    return save_checkpoint(path, network, ModelCard(model=config))


@pytest.fixture(scope="module")
def predictor(causal: Path) -> Iterator[Predictor]:
    with Predictor(ModelConfig(name=str(causal), threads=1, max_batch=8)) as loaded:
        yield loaded


def heart(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """A heart of 75 bpm on one lead, (1, T) mV."""
    t = np.arange(round(seconds * FS)) / FS
    wave = np.exp(-((((t % 0.8) - 0.4) / 0.02) ** 2)) + 0.2 * np.exp(-((((t % 0.8) - 0.65) / 0.05) ** 2))
    return (wave + np.random.default_rng(seed).normal(0, 0.02, len(t)))[None].astype(np.float32)


def feed(scheduler: TokenScheduler, frames: range, live: bool = False) -> list[bool]:
    """Give one bed frames whose value is the sample index at the model rate; return where a decision was due."""
    due: list[bool] = []
    for frame in frames:
        y = np.broadcast_to(np.arange(frame * FRAME, (frame + 1) * FRAME, dtype=np.float32) / 2, (1, 12, FRAME))
        at = np.array([frame]), y, np.array([frame * 200_000_000])
        beats = np.array([0]), np.array([frame * FRAME + 10.0])
        due += scheduler.add(np.array([0]), *at, np.array([live]), frame, beats).tolist()
    return due


def test_tokens_lie_end_to_end_and_decisions_fall_due_at_whole_hops() -> None:
    scheduler = TokenScheduler(1, ScheduleConfig(hop_s=0.6, first_s=2.0))
    due = feed(scheduler, range(60))
    assert np.flatnonzero(due).tolist() == [frame for frame in range(60) if (frame + 1) % 3 == 0 and frame >= 9]
    windows = scheduler.next_batch()
    assert [window.fresh for window in windows] == [True] + [False] * (len(windows) - 1)
    assert [window.stop for window in windows if window.decides] == [20 * (frame + 1) for frame, cut in enumerate(due) if cut]
    assert all(0 <= window.stop - window.reach < TOKEN for window in windows)
    assert all(before.reach == after.start for before, after in pairwise(windows))
    samples = np.concatenate([window.samples for window in windows], axis=1)
    np.testing.assert_array_equal(samples[3], np.arange(windows[-1].reach))
    beats = np.concatenate([window.beats + window.start for window in windows])
    np.testing.assert_array_equal(beats, np.arange(5, windows[-1].stop, 20))


def test_a_hop_without_a_whole_token_decides_nothing() -> None:
    scheduler = TokenScheduler(1, ScheduleConfig(hop_s=0.2, first_s=1.0))
    due = feed(scheduler, range(8))
    assert due == [False] * 4 + [True, False, True, True]  # whole tokens: 96 of 100 samples, 96 of 120, 128 of 140, 160 of 160


def test_what_waits_of_a_live_bed_is_joined_counted_and_at_last_left_out() -> None:
    scheduler = TokenScheduler(1, ScheduleConfig())
    feed(scheduler, range(40), live=True)
    (window,) = scheduler.next_batch()
    assert (window.start, window.stop, window.reach, window.fresh) == (0, 800, 800, True)
    np.testing.assert_array_equal(window.samples[0], np.arange(800))
    assert scheduler.skipped[0] == 3  # due at 5, 6 and 7 s, and joined by the next
    feed(scheduler, range(40, 100), live=True)
    (window,) = scheduler.next_batch()
    assert window.fresh
    assert window.reach - window.start <= 1000
    np.testing.assert_array_equal(window.samples[0], np.arange(window.start, window.reach))
    assert scheduler.cut[0] == 16
    assert scheduler.skipped[0] == 14


@pytest.mark.parametrize("hop_s", [0.2, 1.0, 3.0])
def test_the_shortest_history_holds_all_that_a_late_network_is_told_at_once(hop_s: float) -> None:
    def settings(history_s: float) -> dict[str, object]:
        schedule = {"window_s": 6.0, "hop_s": hop_s, "slowest_hop_s": 3.0}
        return {"bed": [{"id": "1", "device": "simulate"}], "schedule": schedule, "rhythm": {"history_s": history_s}}

    shortest_s = BEHIND_S + 2 * hop_s
    with pytest.raises(ConfigError, match="two hops longer"):
        parse_config(settings(shortest_s - 0.2))
    config, longest = parse_config(settings(shortest_s)), 0
    for first in range(3):
        for stop in range(30, 60):
            scheduler, timeline = TokenScheduler(1, config.schedule), RhythmTimeline(1, config.rhythm)
            feed(scheduler, range(first, stop), live=True)
            (window,) = scheduler.next_batch()
            longest = max(longest, window.reach - window.start)
            said = np.full((1, window.samples.shape[1] // TOKEN, len(RHYTHMS)), 1 / len(RHYTHMS), np.float32)
            timeline.add(np.array([0]), np.array([window.start]), np.array([window.reach]), said, edges=False)
            assert timeline.decide(np.array([0])).label.shape == (1,)
    assert longest > 8 * 100


def test_a_bed_begins_anew_after_a_reset_and_where_the_network_has_lost_it() -> None:
    scheduler = TokenScheduler(1, ScheduleConfig())
    feed(scheduler, range(8))
    scheduler.reset(0)
    assert scheduler.next_batch() == []
    feed(scheduler, range(33, 50))
    first, *others = scheduler.next_batch()
    assert (first.start, first.fresh) == (660, True)
    assert not any(window.fresh for window in others)
    feed(scheduler, range(50, 60))
    scheduler.restart(0)
    assert [window.fresh for window in scheduler.next_batch()] == [True, False]
    scheduler.restart(0)
    feed(scheduler, range(60, 65))
    assert [window.fresh for window in scheduler.next_batch()] == [True]


def test_a_bed_that_is_passed_over_begins_anew_when_its_turn_comes() -> None:
    scheduler = TokenScheduler(2, ScheduleConfig(first_s=1.0))
    rows, y = np.arange(2), np.zeros((2, 12, FRAME), np.float32)
    for frame in range(45):
        spared = np.array([False, 12 <= frame < 31])
        at = np.full(2, frame), y, np.full(2, frame)
        scheduler.add(rows, *at, np.ones(2, bool), frame, None, spared)
        if frame == 11:
            scheduler.next_batch()
    others, passed = scheduler.next_batch()
    assert (others.start, others.fresh) == (192, False)
    assert (passed.start, passed.fresh) == (31 * 20, True)


def cut(row: int, samples: NDArray[np.float32], *places: int) -> list[Window]:
    """Cut (12, T) at some tokens."""
    edges = sorted({0, *(TOKEN * place for place in places), samples.shape[1]})
    return [Window(row, a, b, samples[:, a:b], 0, 0, fresh=a == 0) for a, b in pairwise(edges)]


def whole(predictor: Predictor, causal: Path, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of rhythm of a whole record, by the plain network."""
    network, _ = load_checkpoint(causal)
    assert isinstance(network, EcgNat)
    with torch.inference_mode():
        said = network.eval()(prepare(torch.from_numpy(samples)[None], "fixed"))
        return predictor._tokens_said(said.rhythm, said.beat)[0][0]


def joined(windows: Sequence[Window], said: Prediction, row: int) -> NDArray[np.float32]:
    """Return what was said of the tokens of a bed, in order."""
    of = [i for i, window in enumerate(windows) if window.row == row]
    return np.concatenate([np.zeros((0, 8)), *(said.rhythm[i, : windows[i].samples.shape[1] // TOKEN] for i in of)])


def test_the_reader_says_of_each_bed_what_the_encoder_says_of_the_whole_record(predictor: Predictor, causal: Path) -> None:
    rng = np.random.default_rng(4)
    signals = [rng.normal(0, 0.3, (12, TOKEN * tokens)).astype(np.float32) for tokens in (50, 1, 37)]
    signals[0][2:] = np.nan
    signals[2][:, 300:600] = np.nan
    reader = predictor.reader(1)  # it grows
    windows = [*cut(0, signals[0], 3, 4, 20), *cut(11, signals[1]), *cut(5, signals[2], *range(37))]
    order = sorted(range(len(windows)), key=lambda i: (windows[i].start, i))
    windows = [windows[i] for i in order]
    said = [reader.submit(windows[at : at + 7]).result() for at in range(0, len(windows), 7)]
    assert all(part.once for part in said)
    for row, signal in zip((0, 11, 5), signals, strict=True):
        found = [joined(windows[7 * at : 7 * at + 7], part, row) for at, part in enumerate(said)]
        np.testing.assert_allclose(np.concatenate(found), whole(predictor, causal, signal), atol=TOLERANCE)


def test_a_fresh_window_forgets_also_within_a_batch(predictor: Predictor, causal: Path) -> None:
    signal = np.random.default_rng(5).normal(0, 0.3, (12, TOKEN * 9)).astype(np.float32)
    windows = [*cut(0, signal, 4), *cut(0, signal, 2)]
    said = predictor.reader(1).submit(windows).result()
    expected = whole(predictor, causal, signal)
    np.testing.assert_allclose(joined(windows[:2], said, 0), expected, atol=TOLERANCE)
    rest = np.concatenate([said.rhythm[2, :2], said.rhythm[3, :7]])
    np.testing.assert_allclose(rest, expected, atol=TOLERANCE)


def test_a_wild_bed_leaves_the_others_bit_for_bit(predictor: Predictor) -> None:
    signals = np.random.default_rng(6).normal(0, 0.3, (3, 12, TOKEN * 20)).astype(np.float32)
    wild = signals.copy()
    wild[1] = np.random.default_rng(7).choice(np.array([np.nan, np.inf, -np.inf, 1e30], np.float32), wild[1].shape)
    tame_reader, wild_reader = predictor.reader(3), predictor.reader(3)
    for at in range(0, 20, 4):
        parts = [[w for row in range(3) for w in cut(row, x[row])[:1]] for x in (signals, wild)]
        one, other = (
            [Window(w.row, w.start, w.stop, w.samples[:, TOKEN * at : TOKEN * (at + 4)], 0, 0, fresh=at == 0) for w in part]
            for part in parts
        )
        said, told = tame_reader.submit(one).result(), wild_reader.submit(other).result()
        np.testing.assert_array_equal(said.rhythm[[0, 2]], told.rhythm[[0, 2]])
        assert np.isfinite(told.rhythm).all()


def test_a_bed_goes_on_in_another_process(predictor: Predictor, causal: Path) -> None:
    signal = np.random.default_rng(8).normal(0, 0.3, (12, TOKEN * 30)).astype(np.float32)
    first, second = predictor.reader(2), predictor.reader(9)
    before, after = cut(1, signal, 13)
    first.submit([before]).result()
    second.restore(7, first.save(1))
    said = second.submit([replace(after, row=7)]).result()
    np.testing.assert_allclose(said.rhythm[0], whole(predictor, causal, signal)[13:], atol=TOLERANCE)


class Beds:
    """A ward of some recordings, with a network that goes token by token."""

    def __init__(self, predictor: Predictor, names: Sequence[str]) -> None:
        self.said: list[Published] = []
        config = parse_config({"bed": [{"id": name, "device": "simulate"} for name in names]})
        self.ward = Ward(config, ManualClock(), self.said.append, mode=predictor.mode, run="test")
        self.reader, self.names = predictor.reader(len(names)), names

    def work(self) -> None:
        while self.ward.advance():
            pass
        while windows := self.ward.next_batch():
            self.ward.apply(windows, self.reader.submit(windows).result(), "test")

    def take(self, row: int, *items: StreamInfo | SampleBlock | LinkState) -> None:
        for item in items:
            for part in self.ward.parts(row, item):
                while not self.ward.make_way(row, part):
                    self.work()
                self.ward.accept(row, part)
        self.work()

    def begin(self, row: int, leads: tuple[str, ...] = ("II",)) -> None:
        self.take(row, StreamInfo(fs=FS, leads=leads, device="test", live=False), LinkState("online", session=1))

    def play(self, row: int, samples: NDArray[np.float32], edges: Sequence[int]) -> None:
        for a, b in pairwise(edges):
            self.take(row, SampleBlock(a, samples[:, a:b], 0))

    def rhythms(self, row: int) -> list[tuple[float, str, str]]:
        return [
            (event.at_s, event.label, f"{event.start_s:.1f} {event.stop_s:.1f}")
            for event in self.said
            if isinstance(event, Rhythm) and event.bed.endswith(self.names[row])
        ]

    def probabilities(self, row: int) -> NDArray[np.float64]:
        events = [event for event in self.said if isinstance(event, Rhythm) and event.bed.endswith(self.names[row])]
        return np.array([list(event.probabilities.values()) for event in events if event.probabilities])

    def alarms(self, row: int) -> list[tuple[str, str]]:
        return [(e.condition, e.phase) for e in self.said if isinstance(e, Alarm) and e.bed.endswith(self.names[row])]


def test_any_cutting_gives_the_same_decisions(predictor: Predictor) -> None:
    samples = heart(40)
    samples[:, 12 * FS : 26 * FS] = np.sin(2 * np.pi * 5 * np.arange(14 * FS) / FS)
    said = []
    for seed, most in ((0, 10_000), (1, 60), (2, 700)):
        beds = Beds(predictor, ["a"])
        beds.begin(0)
        steps = np.cumsum(np.random.default_rng(seed).integers(1, most, 12_000))
        beds.play(0, samples, [0, *steps[steps < samples.shape[1]].tolist(), samples.shape[1]])
        beds.take(0, LinkState("ended", session=1))
        said.append((beds.rhythms(0), beds.alarms(0), beds.probabilities(0)))
    assert len(said[0][0]) > 30
    assert len({label for _, label, _ in said[0][0]}) > 1
    for rhythms, alarms, probabilities in said[1:]:
        assert (rhythms, alarms) == said[0][:2]
        np.testing.assert_allclose(probabilities, said[0][2], atol=2e-4)  # they are told in four digits


def test_what_befalls_one_bed_changes_nothing_for_the_others(predictor: Predictor) -> None:
    quiet, troubled = Beds(predictor, ["a", "b"]), Beds(predictor, ["a", "b"])
    calm, other = heart(40), heart(60, seed=1)
    for beds in (quiet, troubled):
        beds.begin(0)
        beds.begin(1)
        for second in range(40):
            edges = [FS * second, FS * (second + 1)]
            beds.play(0, calm, edges)
            if beds is quiet:
                beds.play(1, other, edges)
            elif second == 9:  # a long gap, as wild stamps make one
                beds.take(1, SampleBlock(FS * 1000, other[:, :FS], 0))
            elif second == 20:  # another lead set
                beds.begin(1, ("II", "V1"))
            elif second < 9:
                beds.play(1, np.full_like(other, np.nan) if second == 5 else 1e3 * other, edges)
    assert quiet.rhythms(0) == troubled.rhythms(0)
    assert quiet.alarms(0) == troubled.alarms(0)
    np.testing.assert_array_equal(quiet.probabilities(0), troubled.probabilities(0))


def test_the_first_token_after_a_long_gap_has_no_past(
    predictor: Predictor, causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beds = Beds(predictor, ["a"])
    seen: list[Window] = []
    submit = beds.reader.submit
    monkeypatch.setattr(beds.reader, "submit", lambda windows: (seen.extend(windows), submit(windows))[1])
    samples = heart(20)
    beds.begin(0)
    beds.play(0, samples, [0, 10 * FS])
    beds.take(0, SampleBlock(1010 * FS, samples[:, 10 * FS :], 0))
    fresh = [window.start for window in seen if window.fresh]
    assert fresh == [0, 101_000]
    assert beds.rhythms(0)[-1][0] == 1019.0


def test_a_network_that_failed_begins_anew(predictor: Predictor) -> None:
    beds = Beds(predictor, ["a"])
    beds.begin(0)
    beds.play(0, heart(20), [0, 5 * FS])
    while beds.ward.advance():
        pass
    beds.ward.accept(0, SampleBlock(5 * FS, heart(20)[:, 5 * FS : 8 * FS], 0))
    while beds.ward.advance():
        pass
    beds.ward.fail(beds.ward.next_batch(), "out of memory")
    beds.ward.accept(0, SampleBlock(8 * FS, heart(20)[:, 8 * FS : 12 * FS], 0))
    while beds.ward.advance():
        pass
    assert next(window.fresh for window in beds.ward.next_batch())


def test_every_token_is_counted_once_on_the_grid_of_frames() -> None:
    rng = np.random.default_rng(9)
    probs = rng.dirichlet(np.ones(8), 25).astype(np.float32)
    once, alone = RhythmTimeline(1), RhythmTimeline(1)
    row = np.array([0])
    for at, count in ((0, 3), (3, 3), (6, 4), (10, 15)):
        start, stop = np.array([TOKEN * at]), np.array([TOKEN * (at + count)])
        once.add(row, start, stop, probs[None, at : at + count], edges=False)
    alone.add(row, np.array([0]), np.array([TOKEN * 25]), probs[None], edges=False)
    for timeline in (once, alone):
        mean, known = timeline.recent(row, 8.0)
        assert known.all()
        # frame 8 lies from 1.6 to 1.8 s: in token 5 alone; frame 1 from 0.2 to 0.4 s: 0.12 s of token 0, 0.08 s of token 1
        np.testing.assert_allclose(mean[0, 8], probs[5], atol=1e-6)
        np.testing.assert_allclose(mean[0, 1], 0.6 * probs[0] + 0.4 * probs[1], atol=1e-6)


def test_the_mode_follows_the_network_unless_it_is_set(causal: Path, untrained: Path) -> None:
    assert reading_mode(ModelConfig(name=str(causal))) == "stream"
    assert reading_mode(ModelConfig(name=str(causal), mode="window")) == "window"
    assert reading_mode(ModelConfig(name=str(untrained))) == "window"
    with pytest.raises(ConfigError, match=r'model.mode is "stream", but the network .* looks ahead'):
        reading_mode(ModelConfig(name=str(untrained), mode="stream"))
    assert reading_mode(ModelConfig(name=str(causal), runtime="onnx")) == "stream"
    with pytest.raises(ConfigError, match="looks ahead"):
        Predictor(ModelConfig(name=str(untrained), mode="stream"))


@pytest.mark.parametrize("past", ["float32", "float16"])
def test_a_past_in_half_the_memory_says_nearly_the_same(causal: Path, past: Literal["float32", "float16"]) -> None:
    signal = np.random.default_rng(11).normal(0, 0.3, (12, TOKEN * 40)).astype(np.float32)
    with Predictor(ModelConfig(name=str(causal), threads=1, past=past)) as predictor:
        reader = predictor.reader(1)
        said = np.concatenate([reader.submit([window]).result().rhythm[0] for window in cut(0, signal, 13, 20)])
        kept = {str(tensor.dtype) for name, tensor in reader.save(0).items() if name != "taken"}
        assert kept == {f"torch.{past}"}
        np.testing.assert_allclose(said, whole(predictor, causal, signal), atol=TOLERANCE if past == "float32" else 0.01)


def test_padded_steps_say_the_same(causal: Path) -> None:
    signal = np.random.default_rng(10).normal(0, 0.3, (3, 12, TOKEN * 12)).astype(np.float32)
    windows = [window for row in range(3) for window in cut(row, signal[row])]
    with Predictor(ModelConfig(name=str(causal), threads=1, max_batch=8)) as predictor:
        plain, padded = predictor.reader(3), predictor.reader(3)
        padded._fixed, padded._longest = True, 1  # type: ignore[attr-defined]
        np.testing.assert_allclose(padded.submit(windows).result().rhythm, plain.submit(windows).result().rhythm, atol=TOLERANCE)
