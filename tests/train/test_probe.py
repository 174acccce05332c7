"""Linear probes: fitted to their optimum, on features that stay as they are."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from ecgnat_stream.model import Network, build, configured
from train.compare.probe import fit_probe
from train.data.sample import Cache
from train.data.tasks import TASKS
from train.judge.by_task import quick_score, read

SCREEN = TASKS["cinc2017"]
CPU = torch.device("cpu")


def labelled(cache: Path) -> Cache:
    """Sinus-like records are stated class 0, the others class 2; a third of them are for validation."""
    records = msgspec.json.decode((cache / "records.json").read_bytes())
    for number, record in enumerate(records):
        record |= {"database": "cinc2017", "screen": 0 if number % 2 else 2, "split": "val" if number % 12 > 7 else "train"}
    (cache / "records.json").write_bytes(msgspec.json.encode(records))
    return Cache(cache)


def encoder(arch: str, **changes: str) -> Network:
    torch.manual_seed(0)
    return build(configured(arch, "nano", window_classes=SCREEN.classes, **changes))


@pytest.mark.parametrize(("arch", "head"), [("ecgnat", ""), ("beatnet", ""), ("clear", "linear"), ("clear", "hug")])
def test_what_is_plain_in_the_signal_is_read_off_a_random_encoder(cache: Path, arch: str, head: str) -> None:
    data = labelled(cache)
    network = encoder(arch, **({"head": head} if head else {}))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train, val = SCREEN.records(data.records, "train"), SCREEN.records(data.records, "val")
    probe, score = fit_probe(network, data, train, val, SCREEN, CPU)
    assert score == 1
    said = read(probe, data, val, SCREEN, CPU)
    assert quick_score(SCREEN.targets(val), said) == 1
    assert np.isfinite(said).all(), "also of classes that no record states"
    assert (np.exp(said[:, [1, 3]]) < 1e-3).all()
    assert probe.embedding_dim == probe.linear.in_features
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_without_validation_records_the_strongest_l2_is_taken(cache: Path) -> None:
    data = labelled(cache)
    train = SCREEN.records(data.records, "train")
    alone, score = fit_probe(encoder("ecgnat"), data, train, [], SCREEN, CPU)
    assert np.isnan(score)
    weak, _ = fit_probe(encoder("ecgnat"), data, train, SCREEN.records(data.records, "val"), SCREEN, CPU)
    assert alone.linear.weight.norm() <= weak.linear.weight.norm()


def test_the_probe_of_hug_reads_what_hug_reads(cache: Path) -> None:
    """HUG without a non-linearity is a linear map of the three group means, as long as every group is there."""
    network = encoder("clear", head="hug").eval()
    windows = torch.randn(6, 12, 1000, generator=torch.Generator().manual_seed(1))
    beats = torch.arange(40.0, 1000, 80).repeat(6, 1)
    with torch.no_grad():
        features = network.encode(network.prepare(windows, beats))
        summary, logits = network.summary(features).double(), network.read(features).window.double()
        assert summary.shape == (6, 3 * 96)
        known = torch.cat([summary, torch.ones(6, 1, dtype=torch.float64)], dim=1)
        assert torch.linalg.matrix_rank(known) == 6
        more = network.encode(network.prepare(0.7 * windows.flip(0), beats))
        solved = torch.linalg.lstsq(known, logits, driver="gelsd").solution
        assert (known @ solved - logits).abs().max() < 1e-6
        assert network.summary(more).isfinite().all()
