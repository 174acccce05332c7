"""Both stages and the study in miniature: they learn, stop, resume, and repeat themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from ecgnat_stream.errors import CheckpointError
from ecgnat_stream.model import EcgNat, load_checkpoint, monitoring, size
from ecgnat_stream.model.preprocess import prepare
from train import finetune, pretrain
from train.data.sample import BEAT_HIDDEN, MIXES, Cache, Sampler
from train.fit import loop, mae
from train.fit.finetuning import Finetuning, load_encoder, parameter_groups

ALONE = loop.World(torch.device("cpu"))


def pretrain_options(cache: Path, out: Path, *more: str) -> Any:
    short = ["--batch", "4", "--epoch-steps", "2", "--validation", "1", "--ema", "0.5"]
    return pretrain.options().parse_args(["--cache", str(cache), "--out", str(out), *short, *more])


def finetune_options(cache: Path, out: Path, *more: str) -> Any:
    short = ["--batch", "8", "--epoch-steps", "3", "--ema", "0.5", "--lengths", "1000"]
    return finetune.options().parse_args(["--cache", str(cache), "--out", str(out), *short, *more])


def log(out: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in (out / "log.jsonl").read_bytes().splitlines()]


def losses(out: Path) -> list[float]:
    return [row["train_loss"] for row in log(out)]


def test_one_cycle_rises_and_falls() -> None:
    rates = [loop.learning_rate(step / 100, 1.0) for step in range(101)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates.index(max(rates)) == 10
    assert rates[-1] == pytest.approx(0.01)


def test_a_budget_is_minutes_or_steps() -> None:
    with pytest.raises(ValueError, match="minutes or steps"):
        loop.Budget(minutes=1, steps=1)
    assert loop.Budget(steps=10).progress(1e9, 5) == 0.5
    assert loop.Budget(minutes=2).progress(30, 999) == 0.25


def test_limb_leads_are_masked_together_and_the_ratio_holds() -> None:
    mask = mae.draw_mask(5, 32, 0.75)
    assert mask.shape == (5, 12, 32)
    assert (mask.sum(dim=2) == 24).all()
    assert (mask[:, :6] == mask[:, :1]).all()
    assert not torch.equal(mask[:, 6], mask[:, 7])


def test_whole_beats_are_masked_and_the_ratio_holds() -> None:
    beats = torch.tensor([[48.0, 144, 240, 336, 432, 528], [80, 240, torch.nan, torch.nan, torch.nan, torch.nan]])
    masks = torch.cat([mae.draw_mask(2, 18, 0.5, beats=beats) for _ in range(50)])
    assert (masks.sum(dim=2) == 9).all()
    assert (masks[:, :6] == masks[:, :1]).all()
    of_beats = masks[::2].view(50, 12, 6, 3).sum(dim=3)
    assert (of_beats % 3 == 0).all(), "nine blocks are three beats of three blocks"
    assert of_beats[:, 6:].std(dim=1).max() > 0, "chest leads draw for themselves"
    assert of_beats.mean(dim=(0, 1)) == pytest.approx([1.5] * 6, abs=0.3), "every beat is masked as often"
    alone = masks[1::2, :, 11:]
    assert (alone[..., :-1] != alone[..., 1:]).float().mean() > 0.3, "what is of no beat is masked block by block"
    none = mae.draw_mask(2, 18, 0.5, beats=torch.zeros(2, 0))
    assert (none.sum(dim=2) == 9).all(), "no beats in any window"


def test_pretraining_on_whole_beats_gives_an_encoder(cache: Path, tmp_path: Path) -> None:
    pretrain.pretrain(pretrain_options(cache, tmp_path / "beats", "--steps", "2", "--masking", "beats"), ALONE)
    assert losses(tmp_path / "beats") != []
    assert (tmp_path / "beats" / "reconstruction.png").stat().st_size > 1000
    load_encoder(EcgNat(size("nano")), tmp_path / "beats" / "checkpoint")
    with pytest.raises(ValueError, match="CLEAR masks beats"):
        pretrain.autoencoder(pretrain_options(cache, tmp_path, "--arch", "clear", "--masking", "blocks"))


def test_a_masked_sample_cannot_be_seen() -> None:
    torch.manual_seed(0)
    module = mae.MaskedAutoencoder(EcgNat(size("nano"))).eval()
    x = prepare(torch.randn(2, 12, 640))
    mask = mae.draw_mask(2, 20, 0.75)
    hidden = mask.repeat_interleave(32, dim=2).bool()
    changed = x.clone()
    changed[:, :12][hidden] += 5.0
    with torch.no_grad():
        before, after = module.reconstruct(x, mask), module.reconstruct(changed, mask)
        torch.testing.assert_close(before, after)
        changed[:, :12][~hidden] += 1.0
        assert not torch.allclose(module.reconstruct(changed, mask)[0], before[0], atol=1e-3)


def test_the_reconstruction_loss_counts_masked_samples_that_exist() -> None:
    leads, there = torch.randn(1, 12, 64), torch.ones(1, 12, 64, dtype=torch.bool)
    there[:, 1:] = False
    mask = torch.zeros(1, 12, 2)
    mask[:, :, 1] = 1
    block = leads[0, 0, 32:]
    target = (block - block.mean()) / (block.var(unbiased=False) + 0.01).sqrt()
    shape, raw = torch.full((1, 12, 64), 99.0), torch.full((1, 12, 64), 99.0)
    shape[0, 0, 32:], raw[0, 0, 32:] = target, block + 2
    result = mae.masked_loss(leads, there, mask, shape, raw)
    assert float(result["shape"]) == pytest.approx(0, abs=1e-6)
    assert float(result["loss"]) == pytest.approx(0.4, rel=1e-5)


def test_pretraining_repeats_itself_resumes_and_feeds_finetuning(cache: Path, tmp_path: Path) -> None:
    pretrain.pretrain(pretrain_options(cache, tmp_path / "a", "--steps", "6"), ALONE)
    pretrain.pretrain(pretrain_options(cache, tmp_path / "b", "--steps", "6"), ALONE)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert len(losses(tmp_path / "a")) == 3
    assert (tmp_path / "a" / "reconstruction.png").stat().st_size > 1000
    assert list((tmp_path / "a" / "tensorboard").iterdir())
    network = EcgNat(size("nano"))
    before = network.stages[0][0].qkv.weight.clone()
    load_encoder(network, tmp_path / "a" / "checkpoint")
    assert not torch.equal(network.stages[0][0].qkv.weight, before)
    with pytest.raises(ValueError, match="do not fit"):
        load_encoder(EcgNat(size("tiny")), tmp_path / "a" / "checkpoint")


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finetune_options(cache, tmp_path / "whole", "--steps", "9")
    finetune.finetune(whole, ALONE)
    original = loop._write

    def stop_after_the_second(path: Path, row: dict[str, Any], writer: Any) -> None:
        original(path, row, writer)
        if row["epoch"] == 2:
            stop_after_the_second.armed = True  # type: ignore[attr-defined]

    stop_after_the_second.armed = False  # type: ignore[attr-defined]
    saved = loop._save

    def save_then_stop(path: Path, content: dict[str, Any]) -> None:
        saved(path, content)
        if stop_after_the_second.armed and path.name == "last.pt":  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_write", stop_after_the_second)
    monkeypatch.setattr(loop, "_save", save_then_stop)
    parts = finetune_options(cache, tmp_path / "parts", "--steps", "9")
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(parts, ALONE)
    monkeypatch.undo()
    finetune.finetune(parts, ALONE)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 3
    one, two = (load_checkpoint(tmp_path / name / "checkpoint")[0].state_dict() for name in ("parts", "whole"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_finetuning_learns_every_head_and_says_what_it_was_trained_on(cache: Path, tmp_path: Path) -> None:
    finetune.finetune(finetune_options(cache, tmp_path / "run", "--steps", "15", "--lr", "3e-3"), ALONE)
    rows = log(tmp_path / "run")
    for name in ("train_rhythm", "train_beat", "train_contrast"):
        assert rows[-1][name] < rows[0][name], name
    assert {"screen", "window", "rhythm", "beat", "val"} <= rows[-1].keys()
    _, card = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert card.trained_on == {"mitdb": 8}
    assert monitoring(str(tmp_path / "run" / "checkpoint")), "all heads were taught"


@pytest.mark.parametrize(("mix", "head"), [("screen", "screen"), ("diagnosis", "window")])
def test_a_network_that_was_taught_one_thing_says_so_and_cannot_monitor(mix: str, head: str, cache: Path, tmp_path: Path) -> None:
    finetune.finetune(finetune_options(cache, tmp_path / "run", "--steps", "2", "--mix", mix), ALONE)
    assert load_checkpoint(tmp_path / "run" / "checkpoint")[1].heads == (head,)
    with pytest.raises(CheckpointError, match=f"only {head} was trained"):
        monitoring(str(tmp_path / "run" / "checkpoint"))


def test_a_detectors_errors_are_for_networks_of_heartbeats(cache: Path, tmp_path: Path) -> None:
    drawn = []
    for name, share in (("a", "0"), ("b", "0.9")):
        options = finetune_options(
            cache, tmp_path / name, "--arch", "beatnet", "--contrast", "0", "--steps", "3", "--beat-errors", share
        )
        finetune.finetune(options, ALONE)
        drawn.append(losses(tmp_path / name))
    assert np.isfinite(drawn).all()
    assert drawn[0] != drawn[1]
    for options in (["--beat-errors", "0.5"], ["--arch", "beatnet", "--beat-errors", "1.5"]):
        with pytest.raises(ValueError, match="part of the windows"):
            finetune.finetune(finetune_options(cache, tmp_path / "c", "--steps", "3", *options), ALONE)


def test_early_stopping_keeps_the_best_epoch(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.9, 0.1, 0.1, 0.1, 0.1])
    monkeypatch.setattr(finetune, "validate", lambda *_: {"score": next(scores)})
    finetune.finetune(finetune_options(cache, tmp_path / "run", "--steps", "18", "--patience", "2"), ALONE)
    assert len(log(tmp_path / "run")) == 4
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    kept = load_checkpoint(tmp_path / "run" / "checkpoint")[0].state_dict()
    assert all(torch.equal(best[f"network.{name}"], kept[name]) for name in kept)


def test_a_probe_leaves_the_encoder_alone(cache: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Finetuning(EcgNat(size("nano")), contrast=0, probe=True)
    before = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
    data = Cache(cache)
    source = Sampler(data, data.records, MIXES["monitor"], (1000,), 8)
    budget = loop.Budget(steps=2, epoch_steps=2, ema=0.0)
    trained = loop.run(module, parameter_groups(module, 1.0), source, budget, tmp_path, lambda *_: {}, ALONE)
    after = trained.network.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"rhythm_head", "beat_head", "window_head", "screen_head"}


def test_rates_fall_from_the_heads_to_the_stem() -> None:
    module = Finetuning(EcgNat(size("nano")))
    scales = {}
    for group in parameter_groups(module, 0.5):
        for parameter in group["params"]:
            scales[id(parameter)] = group["scale"]
    assert len(scales) == len(list(module.parameters()))
    network = module.network
    assert scales[id(network.rhythm_head.linear.weight)] == 1
    assert scales[id(network.stages[3][0].qkv.weight)] == 0.5
    assert scales[id(network.downsamplers[2].conv.weight)] == 0.5
    assert scales[id(network.stages[0][0].qkv.weight)] == 0.5**4
    assert scales[id(network.stem[0].weight)] == 0.5**5


def test_a_loss_that_is_no_number_ends_the_run(cache: Path, tmp_path: Path) -> None:
    class Broken(torch.nn.Linear):
        def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"loss": self.weight.sum() * float("nan")}

    class Nothing:
        def reseed(self, *seed: int) -> None: ...

        def draw(self) -> dict[str, torch.Tensor]:
            return {"x": torch.zeros(1)}

    module = Broken(1, 1)
    groups = [{"params": list(module.parameters())}]
    with pytest.raises(FloatingPointError, match="lower --lr"):
        loop.run(module, groups, Nothing(), loop.Budget(steps=1), tmp_path, lambda *_: {}, ALONE)


def test_several_processes_need_a_budget_in_steps(tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1)
    world = loop.World(torch.device("cpu"), 0, 2)
    with pytest.raises(ValueError, match="2 processes need a budget in steps"):
        loop.run(module, [], None, loop.Budget(minutes=1), tmp_path, lambda *_: {}, world)  # type: ignore[arg-type]


def test_two_processes_train_one_network(cache: Path, tmp_path: Path, free_port: int) -> None:
    out = tmp_path / "run"
    options = [
        "--cache",
        str(cache),
        "--out",
        str(out),
        "--batch",
        "2",
        "--steps",
        "4",
        "--epoch-steps",
        "2",
        "--validation",
        "1",
    ]
    command = [sys.executable, "-m", "train.pretrain", *options]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}  # as torchrun sets them
    started = [
        subprocess.Popen(
            command,
            env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors[-2000:]
    finally:
        for process in started:
            process.kill()
    assert [row["step"] for row in log(out)] == [2, 4]


def test_windows_of_validation_are_the_same_at_every_call(cache: Path) -> None:
    data = Cache(cache)
    one, two = (finetune.validation_batches(data, "monitor", ("val",)) for _ in range(2))
    assert len(one) == len(two) > 2
    assert all(np.array_equal(a["windows"], b["windows"], equal_nan=True) for a, b in zip(one, two, strict=True))
    assert (one[0]["beat"] == BEAT_HIDDEN).all()
