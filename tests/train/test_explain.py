"""What is said about attention, and that the pictures are drawn."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from ecgnat_stream.beats import find_beats
from ecgnat_stream.codes import SCREENS
from ecgnat_stream.model import EcgNat, ModelCard, build, configured, save_checkpoint, size
from ecgnat_stream.model.beatnet import BEATNET_SIZES, BeatNet
from ecgnat_stream.model.hug import EXPERTS
from ecgnat_stream.signal import LEADS
from train import explain
from train.data.pack import Cached
from train.data.records import SUPERCLASSES
from train.data.sample import Cache
from train.explain import Look, draw_groups, groups, look, main, summarise

LENGTH = 1000


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Write eight records of twelve leads with a superclass each, the last without a diagnosis, and two of one lead."""
    rng = np.random.default_rng(0)
    path = tmp_path / "pack"
    path.mkdir()
    rows, leads, at = [], [], 0
    time = np.arange(LENGTH)
    for number in range(10):
        slots = tuple(range(12)) if number < 8 else (1,)
        beats = np.arange(50, LENGTH, 70 + 3 * number)
        wave = np.exp(-(((time[:, None] - beats) / 2.5) ** 2)).sum(axis=1)
        for _ in slots:
            leads.append((wave + 0.02 * rng.standard_normal(LENGTH)).astype(np.float16))
        rows.append(
            Cached(
                database="ptbxl" if number < 8 else "cinc2017",
                name=str(number),
                split="val" if number != 6 else "train",
                slots=slots,
                length=LENGTH,
                at=at,
                rhythm_at=LENGTH * number,
                bag=-1,
                window=1 << number % 3 if number < 7 else -1,
                screen=number - 8 if number >= 8 else -1,
            )
        )
        at += LENGTH * len(slots)
    (path / "leads.f16").write_bytes(np.concatenate(leads).tobytes())
    (path / "rhythm.u8").write_bytes(np.full(10 * LENGTH, 255, np.uint8).tobytes())
    np.save(path / "beats.npy", np.zeros((0, 2), np.float32))
    np.save(path / "noise.npy", np.zeros((1, 5000), np.float16))
    (path / "records.json").write_bytes(msgspec.json.encode(rows))
    return path


@pytest.fixture
def network() -> BeatNet:
    torch.manual_seed(0)
    net = BeatNet(BEATNET_SIZES["nano"])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def test_a_look_is_what_the_network_weighs(pack: Path, network: BeatNet) -> None:
    cache = Cache(pack)
    records = [record for record in cache.records if record.split == "val"]
    looks = list(look(network, cache, records, "window"))
    assert [one.record.name for one in looks] == ["0", "1", "2", "3", "4", "5"]
    for number, one in enumerate(looks):
        assert one.stated.tolist() == [float(c == number % 3) for c in range(5)]
        assert one.beats.shape == (5, len(one.read))
        np.testing.assert_allclose(one.beats.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(one.share.sum(axis=(1, 2)), 1, atol=1e-6)
        np.testing.assert_allclose(one.encoder.sum(), 1, atol=1e-6)
        assert one.read.min() >= 0
        assert one.read.max() <= LENGTH
        assert (one.read[:, 1] - one.read[:, 0] > 0).all()
        assert (one.read[:, 1] - one.read[:, 0] <= 96).all()
        assert len(one.read) == pytest.approx(LENGTH / (70 + 3 * number), abs=2)
        np.testing.assert_allclose(one.timing[1:], 1, atol=0.1)
        assert np.isnan(one.timing[0])


def test_probabilities_are_those_of_the_checkpoint(pack: Path, network: BeatNet) -> None:
    cache = Cache(pack)
    records = [record for record in cache.records if record.split == "val"]
    plain, softer = (list(look(network, cache, records, "window", temperature=t)) for t in (1.0, 2.0))
    for one, other in zip(plain, softer, strict=True):
        np.testing.assert_allclose(np.log(other.said / (1 - other.said)), np.log(one.said / (1 - one.said)) / 2)


def test_a_class_that_reads_one_lead_is_said_to(pack: Path, network: BeatNet) -> None:
    with torch.no_grad():
        network.lead_encoder.embedding.zero_()
        network.lead_encoder.embedding[7, 0] = 20.0  # V2 alone stands out, in one feature
        network.window_head.lead_score.weight.zero_()
        network.window_head.lead_score.weight[1, 0] = 5.0
        network.window_head.lead_score.weight[2, 0] = -5.0
    cache = Cache(pack)
    looks = list(look(network, cache, [record for record in cache.records if record.split == "val"], "window"))
    leads = {name: figures["leads"] for name, figures in summarise(looks, SUPERCLASSES).items()}
    assert next(iter(leads["MI"])) == "V2"
    assert leads["MI"]["V2"][0] > 0.9
    assert list(leads["STTC"])[-1] == "V2"
    assert leads["NORM"]["V2"][0] == pytest.approx(1 / 12, abs=1e-3)


def made(record: Cached, stated: list[float], beats: list[float], timing: list[float], lead: int) -> Look:
    weights = np.tile(beats, (len(stated), 1))
    share = np.zeros((len(stated), len(beats), len(LEADS)))
    share[:, :, lead] = weights
    edges = np.linspace(0, LENGTH, len(beats) + 1).astype(int)
    bounds = np.stack([edges[:-1], edges[1:]], axis=1)
    encoder = np.full(len(LEADS), 1 / len(LEADS))
    return Look(record, 0, np.array(stated), np.array(stated), share, weights, encoder, bounds, np.array(timing))


def test_the_summary_is_over_the_records_that_state_a_class(pack: Path) -> None:
    records = Cache(pack).records
    looks = [
        made(records[0], [1, 0], [0.25, 0.25, 0.25, 0.25], [np.nan, 1.0, 1.05, 1.0], 3),
        made(records[1], [1, 1], [0.1, 0.1, 0.7, 0.1], [np.nan, 1.0, 0.6, 1.4], 3),
        made(records[8], [1, 0], [1.0], [np.nan], 1),
    ]
    summary = summarise(looks, ("a", "b"))
    assert [summary[name]["records"] for name in "ab"] == [3, 1]
    assert summary["a"]["leads"]["aVR"] == [1.0, 1.0, 1.0], "one-lead records do not rank leads"
    assert summary["b"]["beats"]["early"][0] == pytest.approx(2.8)
    assert summary["b"]["beats"]["late"][0] == pytest.approx(0.4)
    assert summary["a"]["beats"]["in_time"][0] == pytest.approx((3 + 0.4) / 4)
    spread = np.exp(-(3 * 0.1 * np.log(0.1) + 0.7 * np.log(0.7))) / 4
    assert summary["b"]["beats"]["effective_part"][0] == pytest.approx(spread, abs=1e-4)
    only = summarise(looks[2:], ("a", "b"))
    assert only["a"]["leads"] is None
    assert only["a"]["beats"]["early"] is None
    assert only["b"]["records"] == 0


def test_the_program_writes_figures_and_pictures(pack: Path, network: BeatNet, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    save_checkpoint(tmp_path / "model", network, ModelCard(model=network.config))
    out = tmp_path / "out"
    main(["--cache", str(pack), "--model", str(tmp_path / "model"), "--records", "3", "--out", str(out)])
    result = msgspec.json.decode((out / "attention.json").read_bytes())
    assert (result["model"], result["split"]) == ("model", "val")
    assert list(result["window"]) == list(SUPERCLASSES)
    assert list(result["screen"]) == list(SCREENS)
    for figures in result["window"].values():
        if figures["records"]:
            shares = [value[0] for value in figures["leads"].values()]
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) == pytest.approx(1, abs=1e-2)
            assert all(low <= value <= high for value, low, high in figures["leads"].values())
    assert set(result["encoder"]) == set(LEADS)
    assert result["screen"]["N"]["leads"] is None
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert len(pictures) == 4
    assert sum(name.startswith("ptbxl") for name in pictures) == 2
    assert all(imread(out / name)[..., :3].std() > 0.05 for name in pictures)
    assert "window NORM (2 records)" in capsys.readouterr().out


def test_networks_without_weights_are_refused(pack: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    save_checkpoint(tmp_path / "model", EcgNat(size("nano")), ModelCard(model=size("nano")))
    with pytest.raises(SystemExit) as refusal:
        main(["--cache", str(pack), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    assert refusal.value.code == 1
    assert "BEAT-Net" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_split_that_states_nothing_is_refused(pack: Path, network: BeatNet, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    save_checkpoint(tmp_path / "model", network, ModelCard(model=network.config))
    with pytest.raises(SystemExit) as refusal:
        main(["--cache", str(pack), "--model", str(tmp_path / "model"), "--split", "test", "--out", str(tmp_path / "out")])
    assert refusal.value.code == 1
    assert "split test" in capsys.readouterr().err


@pytest.mark.parametrize(("records", "classes"), [(1, 1), (20, 5), (3, 9)])
def test_evidence_of_lead_groups_is_drawn(records: int, classes: int, tmp_path: Path) -> None:
    evidence = np.random.default_rng(0).standard_normal((records, 7, classes))
    stated = np.arange(records)[:, None] % 2 == np.zeros(classes)
    draw_groups(evidence, stated, [f"class {c}" for c in range(classes)], tmp_path / "groups.png")
    picture = imread(tmp_path / "groups.png")
    red = (picture[..., 0] > 0.75) & (picture[..., 1] < 0.5)
    blue = (picture[..., 2] > 0.6) & (picture[..., 0] < 0.5)
    assert red.any()
    assert blue.any()


def test_evidence_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evidence"):
        draw_groups(np.zeros((2, 5, 3)), np.zeros((2, 3)), ("a", "b", "c"), tmp_path / "groups.png")


@pytest.mark.parametrize(("arch", "head"), [("clear", "hug"), ("clear", "hug-gelu"), ("ecgnat-hug", "hug-gelu")])
def test_lead_groups_of_a_checkpoint_add_up_to_its_logits(arch: str, head: str, pack: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build(configured(arch, "nano", head=head)).eval()
    save_checkpoint(tmp_path / "model", network, ModelCard(model=network.config))
    main(["--cache", str(pack), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    result = msgspec.json.decode((tmp_path / "out" / "groups.json").read_bytes())
    assert len(result["groups"]) == 7
    assert {name: row["records"] for name, row in result["window"].items()} == {"NORM": 2, "MI": 2, "STTC": 2}
    assert (tmp_path / "out" / "groups-window.png").exists()
    assert (tmp_path / "out" / "groups-screen.png").exists()
    cache = Cache(pack)
    records = [record for record in cache.records if record.split == "val"]
    evidence, stated = groups(network, cache, records, "window")
    assert evidence.shape == (6, 7, 5)
    windows = np.stack([cache.cut(record, 0, LENGTH)[0] for record in records if record.window >= 0])
    with torch.no_grad():
        logits = network(network.prepare(torch.from_numpy(windows), torch.from_numpy(find_beats(windows)))).window
    rest = logits.numpy() - evidence.sum(axis=1)
    np.testing.assert_allclose(rest, np.broadcast_to(rest[:1], rest.shape), atol=1e-4, err_msg="what is left is the bias")
    own = stated[:, 1] > 0
    np.testing.assert_allclose(result["window"]["MI"]["evidence"], evidence[own, :, 1].mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(result["window"]["MI"]["others"], evidence[~own, :, 1].mean(axis=0), atol=1e-3)


def test_what_a_group_adds_to_every_record_does_not_rank_it(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(configured("clear", "nano", head="hug"))
    save_checkpoint(tmp_path / "model", network, ModelCard(model=network.config))
    stated = np.zeros((6, 5))
    stated[:2, 0] = stated[:, 1] = 1
    evidence = np.zeros((6, 7, 5))
    evidence[:, EXPERTS.index("chest")] = 5.0
    evidence[:2, EXPERTS.index("augmented")] = 0.5
    empty = np.zeros((0, 7, 4)), np.zeros((0, 4))
    monkeypatch.setattr(explain, "groups", lambda *given: (evidence, stated) if given[3] == "window" else empty)
    main(["--cache", str(pack), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "window NORM (2 of 6 records): most from augmented, +0.50 against the others",
        "window MI (6 of 6 records): no others",
    ]
    result = msgspec.json.decode((tmp_path / "out" / "groups.json").read_bytes())["window"]
    assert result["NORM"]["evidence"] == [0, 0.5, 5, 0, 0, 0, 0]
    assert result["NORM"]["others"] == [0, 0, 5, 0, 0, 0, 0]
    assert "others" not in result["MI"]
    assert list(result) == ["NORM", "MI"]


def test_a_head_without_lead_groups_is_refused(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = build(configured("clear", "nano", head="linear"))
    save_checkpoint(tmp_path / "model", network, ModelCard(model=network.config))
    with pytest.raises(SystemExit):
        main(["--cache", str(pack), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    assert "HUG" in capsys.readouterr().err


def test_a_checkpoint_of_a_task_is_explained_by_its_classes(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = build(configured("beatnet", "nano", window_classes=SCREENS))
    save_checkpoint(tmp_path / "model", network, ModelCard(model=network.config))
    asked = ["--cache", str(pack), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--task"]
    main([*asked, "cinc2017"])
    result = msgspec.json.decode((tmp_path / "out" / "attention.json").read_bytes())
    assert "screen" not in result, "a task trains the window head alone"
    assert [result["window"][name]["records"] for name in SCREENS] == [1, 1, 0, 0]
    for other, said in ((asked[:-1], "not the superclasses"), ([*asked, "ptbxl-super"], "not the classes of ptbxl-super")):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(other)
        assert said in capsys.readouterr().err
