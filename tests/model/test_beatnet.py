"""BEAT-Net: shapes, what must not change an output, what must, bad input, and that it learns."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ecgnat_stream.model.beatnet import BEATNET_SIZES, BeatNet, BeatNetConfig
from ecgnat_stream.model.network import NetworkOutput
from ecgnat_stream.model.tokens import BeatTokens

LEADS = 12


def network(seed: int = 0) -> BeatNet:
    """Return a nano network in eval mode whose BatchNorm and queries are not at their trivial start."""
    torch.manual_seed(seed)
    net = BeatNet(BEATNET_SIZES["nano"])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return net.eval()


def windows(*places: list[float], length: int = 1000, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return noise of 0.3 mV in twelve leads, one window per list of R peaks, and the peaks."""
    generator = torch.Generator().manual_seed(seed)
    beats = torch.full((len(places), max(len(row) for row in places) or 1), torch.nan)
    for row, at in enumerate(places):
        beats[row, : len(at)] = torch.tensor(at)
    return 0.3 * torch.randn(len(places), LEADS, length, generator=generator), beats


def close(one: NetworkOutput, other: NetworkOutput) -> None:
    for name, a, b in zip(NetworkOutput._fields, one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


REGULAR = [60.0 + 85 * beat for beat in range(11)]
SLOW = [90.0 + 180 * beat for beat in range(6)]
HASTY = [60.0, 110.0, 190.0, 240.0, 400.0, 450.0, 530.0, 700.0, 760.0, 850.0, 960.0]


@pytest.mark.parametrize(("name", "millions"), [("nano", 0.38), ("paper", 2.27)])
def test_sizes(name: str, millions: float) -> None:
    net = BeatNet(BEATNET_SIZES[name])
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_the_large_size_is_the_one_described() -> None:
    config = BEATNET_SIZES["paper"]
    assert (config.conv_dims, config.embed_dim, config.depth, config.num_heads) == ((32, 64, 128), 192, 4, 6)
    assert [layer.kernel_size for layer in BeatNet(config).morphology.layers[::3]] == [(7,), (5,), (3,)]


@pytest.mark.parametrize("length", [30, 100, 999, 1000, 2500])
def test_the_four_outputs_at_any_length(length: int) -> None:
    net = network()
    signal, beats = windows([12.0], [5.0, 20.0], length=length)
    with torch.inference_mode():
        out = net(net.prepare(signal, beats))
    assert out.rhythm.shape == (2, -(-length // 32), 8)
    assert out.beat.shape == (2, 4 * out.rhythm.shape[1], 7)
    assert out.window.shape == (2, 5)
    assert out.screen.shape == (2, 4)
    assert all(torch.isfinite(part).all() for part in out)


def test_other_classes_give_other_widths() -> None:
    config = msgspec.structs.replace(BEATNET_SIZES["nano"], window_classes=tuple("abcdefg"))
    net = BeatNet(config)
    assert net(net.prepare(*windows(REGULAR))).window.shape == (1, 7)
    assert net.pool(net.encode(net.prepare(*windows(REGULAR)))).shape == (1, net.embedding_dim)


def test_beats_must_be_given() -> None:
    with pytest.raises(ValueError, match="R peaks"):
        network().prepare(torch.zeros(1, 12, 1000))


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="embed_dim"):
        BeatNetConfig(embed_dim=100)


def test_a_window_reads_the_same_in_any_batch() -> None:
    net = network()
    signal, beats = windows(HASTY, REGULAR[:3], [])
    with torch.inference_mode():
        together = net(net.prepare(signal, beats))
        for row in range(3):
            alone = net(net.prepare(signal[row : row + 1], beats[row : row + 1]))
            close(alone, NetworkOutput(*(part[row : row + 1] for part in together)))


def test_what_stands_in_padding_changes_nothing() -> None:
    net = network()
    x = net.prepare(*windows(HASTY, SLOW))
    padding = ~x.beat
    assert padding[1].sum() == len(HASTY) - len(SLOW)

    def spoilt(value: Tensor) -> Tensor:
        mask = padding.view(*padding.shape, *[1] * (value.ndim - 2)).expand_as(value)
        return value | mask if value.dtype is torch.bool else torch.where(mask, 7.5, value)

    parts = {name: spoilt(getattr(x, name)) for name in ("waves", "valid", "lead", "amplitude", "at", "rr")}
    with torch.inference_mode():
        before, after = net.encode(x), net.encode(x._replace(**parts))
        close(net.read(before), net.read(after._replace(tokens=after.tokens._replace(at=x.at))))
        torch.testing.assert_close(net.pool(before), net.pool(after))


def test_absent_leads_change_nothing() -> None:
    net = network()
    signal, beats = windows(REGULAR)
    signal[:, 3] = torch.nan
    x = net.prepare(signal, beats)
    assert not x.lead[:, :, 3].any()
    waves, valid, amplitude = x.waves.clone(), x.valid.clone(), x.amplitude.clone()
    waves[:, :, 3], valid[:, :, 3], amplitude[:, :, 3] = 9.0, True, 3.0
    with torch.inference_mode():
        close(net(x), net(x._replace(waves=waves, valid=valid, amplitude=amplitude)))
        there = x.lead.clone()
        there[:, :, 3] = True
        other = net(x._replace(waves=waves, valid=valid, amplitude=amplitude, lead=there))
    assert (other.window - net(x).window).abs().max() > 1e-3


def test_samples_that_are_not_there_change_nothing() -> None:
    net = network()
    x = net.prepare(*windows(HASTY))
    assert (~x.valid[x.lead]).any()
    with torch.inference_mode():
        close(net(x), net(x._replace(waves=torch.where(x.valid, x.waves, -3.0))))


def test_where_the_window_begins_does_not_matter_to_the_rhythm_encoder() -> None:
    net = network()
    x = net.prepare(*windows(HASTY))
    with torch.inference_mode():
        later = net.encode(x._replace(at=x.at + 1.7)).beats
        torch.testing.assert_close(net.encode(x).beats, later, rtol=0, atol=1e-4)
        assert (net.encode(x._replace(at=1.3 * x.at)).beats - later).abs().max() > 1e-3


@pytest.mark.parametrize("field", range(4))
def test_every_interval_matters(field: int) -> None:
    net = network()
    x = net.prepare(*windows(HASTY))
    rr = x.rr.clone()
    rr[:, 5, field] = 0.3
    with torch.inference_mode():
        assert (net(x._replace(rr=rr)).window - net(x).window).abs().max() > 1e-5


def test_voltage_matters_though_waves_are_scaled() -> None:
    net = network()
    signal, beats = windows(REGULAR)
    one, other = net.prepare(signal, beats), net.prepare(3 * signal, beats)
    torch.testing.assert_close(one.waves, other.waves)
    with torch.inference_mode():
        assert (net(one).window - net(other).window).abs().max() > 1e-3


def test_what_follows_the_last_beat_is_read() -> None:
    net, (x, beats) = network(), windows(REGULAR[:3])
    before = net(net.prepare(x, beats)).rhythm[0]
    x[..., 600:] = x[..., 600:].flip(-1)
    after = net(net.prepare(x, beats)).rhythm[0]
    assert (before[20:] - after[20:]).abs().amax(dim=1).min() > 1e-4


def test_strides_that_do_not_divide_a_token_are_refused() -> None:
    with pytest.raises(ValueError, match="the strides must divide the 96 samples"):
        BeatNetConfig(conv_strides=(5, 1, 1))


def test_tiles_are_told_from_beats() -> None:
    net = network()
    x = net.prepare(*windows([]))
    assert x.fixed.all()
    with torch.inference_mode():
        assert (net(x).window - net(x._replace(fixed=~x.fixed)).window).abs().max() > 1e-3


BAD: dict[str, tuple[Tensor, Tensor]] = {
    "all missing": (torch.full((1, LEADS, 1000), torch.nan), torch.full((1, 3), torch.nan)),
    "all missing, with beats": (torch.full((1, LEADS, 1000), torch.nan), torch.tensor([[100.0, 200.0]])),
    "flat": (torch.zeros(1, LEADS, 1000), torch.full((1, 1), torch.nan)),
    "one beat": windows([500.0]),
    "300 bpm": windows([10.0 + 20 * beat for beat in range(49)]),
    "at the ends": windows([0.0, 999.0]),
    "infinite": (torch.full((1, LEADS, 1000), torch.inf), torch.tensor([[100.0, 200.0]])),
    "huge": (1e30 * torch.ones(1, LEADS, 1000), torch.tensor([[100.0, 200.0]])),
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_finite_outputs_and_gradients(name: str, train: bool) -> None:
    net = network().train(train)
    x = net.prepare(*BAD[name])
    features = net.encode(x)
    out = net.read(features)
    assert all(torch.isfinite(part).all() for part in (*out, features.beats, features.lead_weights, net.pool(features)))
    torch.stack([part.square().mean() for part in out]).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_what_has_no_lead_is_attended_to_by_none() -> None:
    net = network()
    signal, beats = windows(REGULAR)
    signal[:, :, 250:350] = torch.nan
    x = net.prepare(signal, beats)
    silent = x.beat & ~x.lead.any(dim=-1)
    assert silent.any()
    with torch.inference_mode():
        features = net.encode(x, weights=True)
        evidence = net.explain(features)
        assert (features.lead_weights[silent] == 0).all()
        assert features.rhythm_weights is not None
        assert (features.rhythm_weights.permute(1, 4, 0, 2, 3)[silent] == 0).all()
        for one in evidence.values():
            assert (one.beats.transpose(1, 2)[silent] == 0).all()
        assert all(torch.isfinite(part).all() for part in net.read(features))


def test_a_short_record_says_the_same_with_nothing_behind_it() -> None:
    net = network()
    signal, beats = windows(REGULAR[:7], length=600)
    padded = torch.nn.functional.pad(signal, (0, 700), value=torch.nan)
    alone, longer = net.prepare(signal, beats), net.prepare(padded, beats)
    assert longer.fixed.any()
    with torch.inference_mode():
        one, other = net(alone), net(longer)
        torch.testing.assert_close(net.pool(net.encode(alone)), net.pool(net.encode(longer)))
    close(one, NetworkOutput(other.rhythm[:, :19], other.beat[:, :76], other.window, other.screen))


def test_a_gap_of_the_configuration_is_read() -> None:
    signal, beats = windows(SLOW)
    for gap_s, tiles in ((0.96, 0), (0.32, 6)):
        x = BeatNet(msgspec.structs.replace(BEATNET_SIZES["nano"], gap_s=gap_s)).prepare(signal, beats)
        assert x.fixed.sum() == tiles


def test_weights_sum_to_one_over_what_is_there() -> None:
    net = network()
    signal, beats = windows(HASTY, REGULAR[:4], [])
    signal[0, 2:7] = torch.nan
    x = net.prepare(signal, beats)
    with torch.inference_mode():
        features = net.encode(x, weights=True)
        evidence = net.explain(features)
    assert features.rhythm_weights is not None
    there = x.lead & x.beat[..., None]
    some = there.any(dim=-1).float()
    torch.testing.assert_close(features.lead_weights.sum(dim=-1), some)
    assert (features.lead_weights[~there] == 0).all()
    for name, classes in (("window", 5), ("screen", 4)):
        beat_weights, lead_weights = evidence[name]
        assert beat_weights.shape == (3, classes, x.beat.shape[1])
        torch.testing.assert_close(beat_weights.sum(dim=-1), torch.ones(3, classes))
        torch.testing.assert_close(lead_weights.sum(dim=-1), some[:, None].expand(-1, classes, -1))
        assert (beat_weights.transpose(1, 2)[~x.beat] == 0).all()
        assert (lead_weights.transpose(1, 2)[~x.beat] == 0).all()
    assert features.rhythm_weights.shape == (3, 3, 4, *[x.beat.shape[1]] * 2)
    torch.testing.assert_close(features.rhythm_weights.sum(dim=-1), torch.ones(features.rhythm_weights.shape[:-1]))
    assert (features.rhythm_weights.permute(1, 4, 0, 2, 3)[~x.beat] == 0).all()


def test_classes_attend_differently() -> None:
    net = network()
    with torch.inference_mode():
        beats, leads = net.explain(net.encode(net.prepare(*windows(HASTY))))["window"]
    assert (leads[0, 0] - leads[0, 1]).abs().max() > 1e-3
    assert (beats[0, 0] - beats[0, 1]).abs().max() > 1e-4


def test_asking_for_weights_changes_no_feature() -> None:
    net = network()
    x = net.prepare(*windows(HASTY, REGULAR[:3]))
    with torch.inference_mode():
        torch.testing.assert_close(net.encode(x, weights=True).beats, net.encode(x).beats, rtol=0, atol=1e-5)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    net = BeatNet(msgspec.structs.replace(BEATNET_SIZES["nano"], drop_path=0.0)).train()
    features = net.encode(net.prepare(*windows(HASTY, REGULAR, [])))
    parts = (*net.read(features), net.pool(features))
    torch.stack([(part * torch.randn_like(part)).sum() for part in parts]).sum().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == []


def test_a_copy_by_its_weights_says_the_same() -> None:
    net = network()
    config = msgspec.json.decode(msgspec.json.encode(net.config), type=BeatNetConfig)
    assert b'"arch":"beatnet"' in msgspec.json.encode(net.config)
    copy = BeatNet(config).eval()
    copy.load_state_dict(net.state_dict())
    x = net.prepare(*windows(HASTY))
    with torch.inference_mode():
        close(net(x), copy(x))


def test_learning_rates_fall_from_the_heads_to_the_waves() -> None:
    net = network()
    levels = {name: net.level(name) for name, _ in net.named_parameters()}
    assert levels["window_head.weight"] == levels["rhythm_head.linear.weight"] == 0
    assert levels["rhythm_encoder.norm.weight"] == levels["rhythm_encoder.blocks.2.norm1.weight"] == 1
    assert levels["rhythm_encoder.blocks.0.norm1.weight"] == levels["rhythm_encoder.intervals.0.weight"] == 3
    assert levels["lead_encoder.score.weight"] == 4
    assert levels["morphology.layers.0.weight"] == 5


def simulated(seed: int, count: int = 16) -> tuple[BeatTokens, Tensor]:
    """Return tokens of windows whose T wave points up (class 0) or down (class 1), with the R peaks where they were put."""
    rng = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % 2
    signal = 0.05 * torch.randn(count, LEADS, 1000, generator=rng)
    beats = 60 + 90 * torch.arange(10) + torch.randint(0, 9, (count, 10), generator=rng)
    time = torch.arange(1000)
    for row in range(count):
        for at in beats[row]:
            signal[row] += torch.exp(-(((time - at) / 2.0) ** 2))
            signal[row] += 0.25 * (1 - 2 * int(classes[row])) * torch.exp(-(((time - at - 30) / 6.0) ** 2))
    return network().prepare(signal, beats.float()), classes


def test_forty_steps_halve_the_loss() -> None:
    torch.manual_seed(0)
    net = BeatNet(BEATNET_SIZES["nano"]).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    x, classes = simulated(0)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(net(x).screen, classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    other, truth = simulated(1)
    with torch.inference_mode():
        assert (net.eval()(other).screen.argmax(dim=1) == truth).float().mean() > 0.9
