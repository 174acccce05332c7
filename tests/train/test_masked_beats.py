"""The masked-beat autoencoder: what a masked token is reconstructed from, and what it cannot have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from ecgnat_stream.model import load_checkpoint
from ecgnat_stream.model.clear import CLEAR_SIZES, Clear, Grid, listed
from ecgnat_stream.model.tokens import BeatTokens
from train import pretrain
from train.fit import loop
from train.fit.masked_beats import MaskedBeats, draw_beat_mask

ALONE = loop.World(torch.device("cpu"))


def autoencoder(**changes: Any) -> MaskedBeats:
    """Return an autoencoder in eval mode whose parameters are not at their trivial start."""
    torch.manual_seed(0)
    small = {"embed_dim": 24, "depth": 2, "num_heads": 4} | changes
    module = MaskedBeats(Clear(msgspec.structs.replace(CLEAR_SIZES["nano"], **small)))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def ecg(batch: int = 2, rr: int = 80) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    windows = 0.1 * torch.randn(batch, 12, 1000, generator=generator)
    beats = torch.arange(50, 980, rr).float()
    windows[:, :, beats.long()] += 0.5 + torch.rand(batch, 12, 1, generator=generator)
    return windows, beats.expand(batch, -1).clone()


def masked_tokens(module: MaskedBeats, batch: int = 2) -> tuple[BeatTokens, Tensor]:
    windows, beats = ecg(batch)
    windows[0, 8] = torch.nan
    x = module.encoder.prepare(windows, beats)
    torch.manual_seed(2)
    return x, draw_beat_mask(x, 0.8)


@pytest.mark.parametrize("ratio", [0.5, 0.8, 0.99, 1.0])
def test_the_share_of_the_tokens_that_are_there_is_masked(ratio: float) -> None:
    windows, beats = ecg(4)
    windows[1, 1:] = torch.nan
    windows[2] = torch.nan
    beats[3, 2:] = torch.nan
    x = autoencoder().encoder.prepare(windows, beats)
    there = x.lead & x.beat[..., None]
    mask = draw_beat_mask(x, ratio)
    assert not (mask & ~there).any()
    for row, count in enumerate(there.sum(dim=(1, 2)).tolist()):
        assert int(mask[row].sum()) == min(round(ratio * count), max(count - 1, 0))
    assert not torch.equal(draw_beat_mask(x, 0.5), draw_beat_mask(x, 0.5))


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_masked_content_never_leaks(attention: str) -> None:
    """Whatever the masked tokens hold, every prediction, of theirs and of others, stays as it was, to the last bit."""
    module = autoencoder(attention=attention)
    x, mask = masked_tokens(module)
    noise = torch.Generator().manual_seed(3)
    changed = x._replace(
        waves=torch.where(mask[..., None], 5 * torch.randn(x.waves.shape, generator=noise), x.waves),
        amplitude=torch.where(mask, torch.randn(mask.shape, generator=noise), x.amplitude),
        valid=x.valid ^ mask[..., None],
    )
    with torch.inference_mode():
        for before, after in zip(module.reconstruct(x, mask), module.reconstruct(changed, mask), strict=True):
            assert torch.equal(before, after)
        changed = x._replace(waves=torch.where(mask[..., None], x.waves, -x.waves))
        assert (module.reconstruct(changed, mask)[0] - module.reconstruct(x, mask)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_dropping_the_masked_tokens_is_not_seeing_them(attention: str) -> None:
    """The encoder's short list gives what the whole list gives under a mask that hides the others."""
    module = autoencoder(attention=attention)
    x, mask = masked_tokens(module)
    there = x.lead & x.beat[..., None]
    visible = there & ~mask
    beat, lead = torch.meshgrid(torch.arange(there.shape[1]), torch.arange(12), indexing="ij")
    flat = [index.flatten().expand(2, -1) for index in (beat, lead)]
    with torch.inference_mode():
        cls, tokens = module.encoder.see(x, visible)
        whole_cls, whole = module.encoder.mix(module.encoder.embed(x).flatten(1, 2), *flat, visible.flatten(1))
    torch.testing.assert_close(cls, whole_cls, rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens[visible], whole.view(tokens.shape)[visible], rtol=0, atol=1e-5)
    assert (tokens[~visible] == 0).all()


def decode(module: MaskedBeats, x: BeatTokens, mask: Tensor, cls: Tensor, tokens: Tensor) -> Tensor:
    return module._decode(x, mask, cls, tokens)[0]


def test_a_masked_token_is_made_of_its_heartbeat_and_the_cls() -> None:
    """f(B^j, c_i): through all decoder blocks no other heartbeat's token moves it; its own heartbeat's and its CLS do."""
    module = autoencoder()
    x, mask = masked_tokens(module)
    mask[1] = True
    mask[1, 3, :4] = mask[1, 5, 6] = False
    there = x.lead & x.beat[..., None]
    with torch.inference_mode():
        cls, tokens = module.encoder.see(x, there & ~mask)
        before = decode(module, x, mask, cls, tokens)[1]
        for beat in (3, 5):
            other = tokens.clone()
            other[1, beat] += torch.randn(tokens.shape[2:])
            moved = (decode(module, x, mask, cls, other)[1] - before).abs().amax(dim=-1)
            assert (moved[beat] > 1e-4).all()
            moved[beat] = 0
            assert (moved == 0).all()
        other = cls.clone()
        other[1, 9] += torch.randn(cls.shape[-1])
        moved = (decode(module, x, mask, other, tokens)[1] - before).abs().amax(dim=-1)
        assert (moved[:, 9] > 1e-4).all()


def test_in_one_decoder_block_a_token_sees_the_cls_of_its_own_lead() -> None:
    module = autoencoder()
    module.blocks = module.blocks[:1]
    x, mask = masked_tokens(module)
    with torch.inference_mode():
        cls, tokens = module.encoder.see(x, x.lead & ~mask)
        other = cls.clone()
        other[:, 9] += torch.randn(cls.shape[-1])
        moved = (decode(module, x, mask, other, tokens) - decode(module, x, mask, cls, tokens)).abs().amax(dim=(0, 1, 3))
    assert torch.nonzero(moved).flatten().tolist() == [9]


def test_the_decoders_fast_mask_is_the_definition() -> None:
    module = autoencoder()
    x, _ = masked_tokens(module)
    there = x.lead & x.beat[..., None]
    beat, lead = torch.meshgrid(torch.arange(there.shape[1]), torch.arange(12), indexing="ij")
    definition = listed(beat.flatten().expand(2, -1), lead.flatten().expand(2, -1), there.flatten(1), "sparse", cls_reads=False)
    tokens = torch.randn(2, 12 + there[0].numel(), module.embed.out_features)
    grid = Grid(there, cls_reads=False)
    with torch.inference_mode():
        fast = grid.spread(module._run(grid.pack(tokens), grid))
        slow = module._run(tokens, definition)
    seen = torch.nn.functional.pad(there.flatten(1), (12, 0), value=True)
    torch.testing.assert_close(fast[seen], slow[seen], rtol=0, atol=1e-5)
    assert (fast[~seen] == 0).all()


def test_padding_and_absent_leads_do_not_matter() -> None:
    module = autoencoder()
    windows, beats = ecg(1)
    windows[0, 8] = torch.nan
    x = module.encoder.prepare(windows, beats)
    mask = draw_beat_mask(x, 0.8)
    longer = torch.cat([torch.nn.functional.pad(beats, (0, 12), value=torch.nan), torch.arange(10, 490, 20.0)[None]])
    padded = module.encoder.prepare(torch.cat([windows, ecg(1)[0]]), longer)
    both = torch.zeros_like(padded.lead)
    both[0, : mask.shape[1]] = mask[0]
    with torch.inference_mode():
        alone = module.reconstruct(x, mask)[0][0]
        torch.testing.assert_close(module.reconstruct(padded, both)[0][0, : len(alone)], alone, rtol=0, atol=1e-5)
        changed = x._replace(waves=x.waves.clone())
        changed.waves[0, :, 8] = 3.0
        moved = (module.reconstruct(changed, mask)[0][0] - alone).abs().amax(dim=(0, 2))
    assert (moved[torch.arange(12) != 8] == 0).all()


def test_the_loss_is_that_of_masked_samples_that_exist() -> None:
    module = autoencoder()
    windows, beats = ecg()
    windows[0, 8] = torch.nan
    batch = {"windows": windows, "beats": beats}
    torch.manual_seed(4)
    x = module.encoder.prepare(windows, beats)
    mask = draw_beat_mask(x, 0.8)
    with torch.inference_mode():
        shape, raw = module.reconstruct(x, mask)
        torch.manual_seed(4)
        losses = {name: value.item() for name, value in module(batch).items()}
    errors, amplitude_errors = [], []
    for row, beat, lead in torch.nonzero(mask).tolist():
        exists = x.valid[row, beat, lead]
        signal = x.waves[row, beat, lead][exists]
        target = (signal - signal.mean()) / (signal.var(unbiased=False) + 0.01).sqrt()
        errors.append((shape[row, beat, lead][exists] - target).square())
        amplitude_errors.append((raw[row, beat, lead][exists] - signal).square())
    assert losses["shape"] == pytest.approx(torch.cat(errors).mean().item(), rel=1e-4)
    assert losses["raw"] == pytest.approx(torch.cat(amplitude_errors).mean().item(), rel=1e-4)
    assert losses["loss"] == pytest.approx(losses["shape"] + 0.1 * losses["raw"], rel=1e-5)


@pytest.mark.parametrize("attention", ["sparse", "dense"])
@pytest.mark.parametrize("what", ["nothing connected", "no beats", "one beat of one lead", "300 bpm"])
def test_bad_input_gives_a_finite_loss_and_gradients(what: str, attention: str) -> None:
    windows, beats = ecg(2, rr=20 if what == "300 bpm" else 80)
    if what == "nothing connected":
        windows[:] = torch.nan
    elif what == "no beats":
        beats[:] = torch.nan
    elif what == "one beat of one lead":
        windows[:, 1:], beats[:, 1:] = torch.nan, torch.nan
    module = autoencoder(attention=attention)
    loss = module({"windows": windows, "beats": beats})["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_the_papers_decoder_is_four_blocks_of_512() -> None:
    module = MaskedBeats(Clear(msgspec.structs.replace(CLEAR_SIZES["paper"], depth=1)))
    assert (len(module.blocks), module.embed.out_features, module.mask_ratio) == (4, 512, 0.8)


def test_it_learns_to_copy_a_heartbeat_from_the_other_leads() -> None:
    """Every lead has the heartbeat's shape: it is in the visible leads of the same beat and nowhere else."""
    torch.manual_seed(0)
    module = MaskedBeats(
        Clear(msgspec.structs.replace(CLEAR_SIZES["nano"], embed_dim=48, depth=2, drop_path=0.0)), mask_ratio=0.5
    )
    time = torch.arange(1000.0)
    generator = torch.Generator().manual_seed(5)

    def draw() -> dict[str, Tensor]:
        beats = torch.arange(50.0, 980, 100)
        sign = torch.randint(0, 2, (16, 10), generator=generator) * 2.0 - 1
        bumps = torch.exp(-(((time - beats[:, None] - 15) / 8) ** 2))
        return {"windows": (sign @ bumps)[:, None].expand(-1, 12, -1).clone(), "beats": beats.expand(16, -1)}

    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):
        loss = module(draw())["shape"]
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[0] > 0.9, "nothing is known before the first step"
    assert sum(losses[-5:]) / 5 < 0.15


def options(cache: Path, out: Path, *more: str) -> Any:
    short = ["--batch", "4", "--epoch-steps", "2", "--validation", "1", "--ema", "0.5", "--arch", "clear", "--steps", "4"]
    return pretrain.options().parse_args(["--cache", str(cache), "--out", str(out), *short, *more])


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_pretraining_writes_a_checkpoint_and_a_picture_and_repeats_itself(cache: Path, tmp_path: Path, attention: str) -> None:
    logs = []
    for name in "ab":
        pretrain.pretrain(options(cache, tmp_path / name, "--attention", attention), ALONE)
        rows = [msgspec.json.decode(line) for line in (tmp_path / name / "log.jsonl").read_bytes().splitlines()]
        logs.append([(row["train_loss"], row["val_loss"]) for row in rows])
    assert logs[0] == logs[1]
    assert len(logs[0]) == 2
    assert (tmp_path / "a" / "reconstruction.png").stat().st_size > 1000
    network, _ = load_checkpoint(tmp_path / "a" / "checkpoint")
    assert isinstance(network, Clear)
    assert network.config.attention == attention


def test_dense_attention_is_refused_where_there_is_none(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="CLEAR's"):
        pretrain.pretrain(options(cache, tmp_path, "--arch", "ecgnat", "--attention", "dense"), ALONE)
