"""What is cut for a network of heartbeats goes in beat by beat, and what it says covers the last 10 s."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.model import ModelCard, ModelConfig, Predictor, build, configured, reading_mode, save_checkpoint
from ecgnat_stream.model.beat_streaming import StreamingBeats
from ecgnat_stream.signal import Window


@pytest.fixture(scope="module", params=["beatnet", "clear"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = build(configured(request.param, "nano"))
    return save_checkpoint(tmp_path_factory.mktemp(request.param), network, ModelCard(model=network.config))


@pytest.fixture
def predictor(checkpoint: Path) -> Iterator[Predictor]:
    with Predictor(ModelConfig(name=str(checkpoint), mode="stream", max_batch=2)) as predictor:
        yield predictor


def windows(row: int, seconds: int, seed: int) -> list[Window]:
    """What the scheduler cuts of a bed: 96 or 128 samples at a time, beats 0.3 s behind their place."""
    rng = np.random.default_rng(seed)
    x = (0.2 * rng.standard_normal((12, 100 * seconds))).astype(np.float32)
    peaks, cut, start, told = np.cumsum(rng.uniform(60, 110, 2 * seconds)), [], 0, 0.0
    while start + 128 <= x.shape[1]:
        stop = start + int(rng.choice([96, 128]))
        beats = (peaks[(peaks + 31 >= told) & (peaks + 31 < stop)] - start).astype(np.float32)
        cut.append(Window(row, start, stop, x[:, start:stop], 0, 0, beats, fresh=start == 0))
        start, told = stop, float(stop)
    return cut


def test_it_says_what_the_stream_says(predictor: Predictor) -> None:
    reader, beds = predictor.reader(3), [windows(row, 14, row) for row in range(3)]
    stream = StreamingBeats(predictor._by_beats, 1)  # type: ignore[arg-type]
    assert "beat by beat" in predictor.describe()
    for turn in zip(*beds, strict=False):
        said = reader.submit(turn).result()
        assert said.covers == 1000 and not said.once
        assert said.rhythm.shape == (3, 32, 8)
        own = turn[0]
        peaks = torch.from_numpy(own.beats)[None].double() + own.start
        logits = stream.step(torch.tensor([0]), torch.from_numpy(own.samples)[None], peaks)
        np.testing.assert_allclose(said.rhythm[0], logits.rhythm[0].softmax(-1), atol=1e-4)
        np.testing.assert_allclose(said.screen[0], logits.screen[0].softmax(-1), atol=1e-4)
    assert not said.without_beats.any()


def test_windows_of_one_bed_may_come_together_and_a_fresh_one_forgets(predictor: Predictor) -> None:
    one, other = predictor.reader(1), predictor.reader(1)
    cut = windows(0, 12, 5)
    together = one.submit(cut).result()
    apart = [other.submit([window]).result() for window in cut]
    np.testing.assert_allclose(together.rhythm, np.concatenate([said.rhythm for said in apart]), atol=1e-5)
    again = one.submit(cut).result()
    np.testing.assert_allclose(again.rhythm, together.rhythm, atol=1e-6)


def test_a_bed_is_handed_over(predictor: Predictor) -> None:
    cut, one, other = windows(0, 12, 6), predictor.reader(1), predictor.reader(4)
    one.submit(cut[:5]).result()
    other.restore(3, one.save(0))
    moved = [Window(3, w.start, w.stop, w.samples, 0, 0, w.beats) for w in cut[5:]]
    np.testing.assert_allclose(other.submit(moved).result().rhythm, one.submit(cut[5:]).result().rhythm, atol=1e-5)


def test_without_beats_it_says_so(predictor: Predictor) -> None:
    x = np.zeros((12, 128), np.float32)
    said = predictor.reader(1).submit([Window(0, 0, 128, x, 0, 0, fresh=True)]).result()
    assert said.without_beats.tolist() == [True]
    assert np.isfinite(said.rhythm).all()


def test_beat_by_beat_only_if_asked_for(checkpoint: Path) -> None:
    assert reading_mode(ModelConfig(name=str(checkpoint))) == "window"
    assert reading_mode(ModelConfig(name=str(checkpoint), mode="stream")) == "stream"
    with pytest.raises(ConfigError, match="beat by beat"):
        reading_mode(ModelConfig(name="ecgnat-nano", mode="stream"))
