"""A teacher's answers: what they are, what they cost a student that differs, and that a run learns them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from torch.nn import functional as F

from ecgnat_stream.errors import CheckpointError
from ecgnat_stream.model import EcgNat, ModelCard, NetworkOutput, build, configured, save_checkpoint, size
from train import finetune
from train.data.labels import UNSTATED
from train.data.sample import BEAT_HIDDEN
from train.fit import loop
from train.fit.finetuning import Finetuning
from train.fit.teacher import Teacher, distillation_losses

ALONE = loop.World(torch.device("cpu"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = EcgNat(size("nano"))
    return save_checkpoint(tmp_path / "teacher", network, ModelCard(model=network.config))


def test_a_teacher_says_what_its_network_says_and_reads_long_windows_in_parts(checkpoint: Path) -> None:
    teacher, windows = Teacher(checkpoint), torch.randn(3, 12, 4000)
    rest = F.pad(windows[..., 2016:], (0, 32), value=torch.nan)
    parts = [teacher.answer(windows[..., :2016]), teacher.answer(rest)]
    said = teacher.network(teacher.network.prepare(windows[..., :1000]))
    assert all(torch.allclose(one, other) for one, other in zip(teacher.answer(windows[..., :1000]), said, strict=True))
    whole = teacher.answer(windows)
    assert whole.rhythm.shape[1] == 125, "as many tokens as a student says who reads them in one"
    assert whole.beat.shape[1] == 500
    torch.testing.assert_close(whole.rhythm[:, :63], parts[0].rhythm)
    torch.testing.assert_close(whole.beat[:, 252:], parts[1].beat[:, :248])


def test_a_teacher_of_heartbeats_is_refused(tmp_path: Path) -> None:
    network = build(configured("beatnet", "nano"))
    folder = save_checkpoint(tmp_path / "beats", network, ModelCard(model=network.config))
    with pytest.raises(CheckpointError, match="other tokens"):
        Teacher(folder)


def said(seed: int, rows: int = 4, tokens: int = 10) -> NetworkOutput:
    torch.manual_seed(seed)
    return NetworkOutput(
        torch.randn(rows, tokens, 8), torch.randn(rows, 4 * tokens, 7), torch.randn(rows, 5), torch.randn(rows, 4)
    )


def test_who_says_the_same_pays_nothing_and_who_differs_pays_at_every_head() -> None:
    windows = torch.zeros(4, 12, 320)
    same = distillation_losses(said(0), said(0), windows)
    assert all(float(loss) == pytest.approx(0, abs=1e-6) for loss in same.values())
    other = distillation_losses(said(1), said(0), windows)
    assert all(float(loss) > 0.1 for loss in other.values())


def test_what_is_missing_teaches_nothing() -> None:
    windows = torch.zeros(4, 12, 320)
    windows[0, :, 64:] = float("nan")
    windows[1, 1:, :] = float("nan")  # one lead is enough
    teacher, student = said(0), said(1)
    before = distillation_losses(student, teacher, windows)
    changed = teacher._replace(rhythm=teacher.rhythm.clone(), beat=teacher.beat.clone(), screen=teacher.screen.clone())
    changed.rhythm[0, 2:] += torch.randn(8, 8)
    changed.beat[0, 8:] += torch.randn(32, 7)
    changed.screen[0] += torch.randn(4)
    after = distillation_losses(student, changed, windows)
    assert all(float(before[name]) == pytest.approx(float(after[name]), rel=1e-5) for name in before)
    changed.rhythm[1] += torch.randn(10, 8)
    assert float(distillation_losses(student, changed, windows)["rhythm"]) != pytest.approx(float(before["rhythm"]), rel=1e-3)


def test_a_causal_student_learns_from_its_teacher_where_nothing_is_stated(checkpoint: Path) -> None:
    torch.manual_seed(1)
    module = Finetuning(EcgNat(size("nano", is_causal=True)), contrast=0, teacher=Teacher(checkpoint))
    batch = {
        "windows": torch.randn(4, 12, 640),
        "sets": torch.full((4, 20), UNSTATED, dtype=torch.uint8),
        "bag": torch.full((4,), -1),
        "window": torch.full((4, 5), float("nan")),
        "screen": torch.full((4,), -1),
        "beat": torch.full((4, 80), BEAT_HIDDEN),
        "place": torch.zeros(4, 80),
    }
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    lost = []
    for _ in range(12):
        losses = module(batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        lost.append({name: loss.item() for name, loss in losses.items()})
    assert all(lost[0][name] == 0 for name in ("rhythm", "bag", "window", "screen", "beat"))
    for name in ("rhythm", "window", "screen"):
        assert lost[-1][f"teacher_{name}"] < 0.7 * lost[0][f"teacher_{name}"], name


def test_a_run_keeps_nothing_of_its_teacher(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    short = ["--batch", "4", "--steps", "1", "--epoch-steps", "1", "--lengths", "3000", "--causal", "--contrast", "0"]
    kept, rows = [], []
    for name, more in (("taught", ["--teacher", str(checkpoint)]), ("alone", [])):
        finetune.finetune(
            finetune.options().parse_args(["--cache", str(cache), "--out", str(tmp_path / name), *short, *more]), ALONE
        )
        kept.append(torch.load(tmp_path / name / "last.pt", weights_only=True)["module"].keys())
        rows.append(msgspec.json.decode((tmp_path / name / "log.jsonl").read_bytes().splitlines()[-1]))
    assert kept[0] == kept[1]
    assert rows[0].keys() - rows[1].keys() == {f"train_teacher_{name}" for name in ("rhythm", "beat", "window", "screen")}


@pytest.mark.parametrize("more", [["--arch", "beatnet"], ["--mix", "screen"]])
def test_a_teacher_teaches_networks_with_its_tokens_and_heads(
    more: list[str], cache: Path, checkpoint: Path, tmp_path: Path
) -> None:
    options = ["--cache", str(cache), "--out", str(tmp_path / "run"), "--teacher", str(checkpoint), *more]
    with pytest.raises(ValueError, match="--teacher"):
        finetune.finetune(finetune.options().parse_args(options), ALONE)
