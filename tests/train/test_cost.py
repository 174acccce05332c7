"""What a network costs is counted by what it computes."""

from __future__ import annotations

import pytest

from ecgnat_stream.model import ARCHITECTURES
from train.cost import compare
from train.fit.baselines import build
from train.judge.cost import count_macs


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "xresnet1d101"])
def test_a_window_twice_as_long_costs_twice_as_much(arch: str) -> None:
    network = build(arch).eval()
    short, long = count_macs(network, 10), count_macs(network, 20)
    assert short > 1e6
    assert 1.8 < long / short < 2.6, "attention over all tokens grows faster, everything else in proportion"


def test_larger_sizes_cost_more() -> None:
    networks = compare([("beatnet", "nano"), ("beatnet", "paper")])["networks"]
    nano, paper = networks["beatnet nano"], networks["beatnet paper"]
    assert nano["parameters"] < paper["parameters"]
    assert nano["gmac_per_10_s"] < paper["gmac_per_10_s"]
    assert 0 < nano["window_ms_p50"] <= nano["window_ms_p99"]
