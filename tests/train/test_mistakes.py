"""Mistakes are found where they are, and can be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgnat_stream.model import ModelConfig, Predictor
from train.data.sample import Cache
from train.judge.reading import Reader
from train.mistakes import draw, find_mistakes


def test_an_untrained_network_errs_and_the_strips_are_drawn(cache: Path, untrained: Path, tmp_path: Path) -> None:
    data = Cache(cache)
    with Predictor(ModelConfig(name=str(untrained), threads=1)) as predictor:
        reader = Reader(predictor, data)
        found = find_mistakes(reader, data.records, "VF", 6)
        screened = find_mistakes(reader, data.records, "screen", 6)
        assert found
        for mistake in found:
            stated = data.rhythm(mistake.record)[mistake.at]
            assert mistake.missed == (stated == 1 << 4)
            assert mistake.text.startswith("VF, said" if mistake.missed else "SINUS, said VF")
        assert all(f"{'NAO~'[mistake.record.screen]}, said" in mistake.text for mistake in screened)
        with pytest.raises(ValueError, match="got 'beat X'"):
            find_mistakes(reader, data.records, "beat X")
    draw(data, found, tmp_path / "strips.png")
    assert (tmp_path / "strips.png").stat().st_size > 5000
