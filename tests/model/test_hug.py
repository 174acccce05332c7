"""HUG: seven experts whose evidence adds up to the logits, and what a linear one amounts to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ecgnat_stream.model import build, configured
from ecgnat_stream.model.clear import Clear
from ecgnat_stream.model.ecgnat_hug import EcgNatHug
from ecgnat_stream.model.hug import EXPERTS, GROUPS, Hug


def head(gelu: bool = False, dim: int = 8, classes: int = 5) -> Hug:
    torch.manual_seed(0)
    hug = Hug(dim, classes, gelu).eval()
    with torch.no_grad():
        for parameter in hug.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return hug.double()


def features(batch: int = 6, dim: int = 8) -> Tensor:
    return torch.randn(batch, 12, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


EVERY = torch.ones(6, 12, dtype=torch.bool)


@pytest.mark.parametrize("gelu", [False, True])
def test_evidence_and_bias_are_the_logits_exactly(gelu: bool) -> None:
    hug = head(gelu)
    present = EVERY.clone()
    present[1, :3] = False
    present[2] = False
    out = hug(features(), present)
    assert out.evidence.shape == (6, len(EXPERTS), 5)
    torch.testing.assert_close(out.evidence.sum(dim=1) + hug.linear.bias, out.logits, rtol=0, atol=0)


@pytest.mark.parametrize("gelu", [False, True])
def test_features_are_concatenated_not_averaged(gelu: bool) -> None:
    """The released code averages its seven features; then no expert could be told from another by the classifier."""
    hug = head(gelu)
    x = features()
    first = [expert(x[:, list(members)]).mean(dim=1) for expert, members in zip(hug.groups, GROUPS, strict=True)]
    pairs = [expert((first[a] + first[b]) / 2) for expert, (a, b) in zip(hug.pairs, ((0, 1), (1, 2), (0, 2)), strict=True)]
    concatenated = torch.cat([*first, *pairs, hug.whole(sum(pairs) / 3)], dim=1)
    assert hug.linear.in_features == 7 * 8
    torch.testing.assert_close(hug(x, EVERY).logits, hug.linear(concatenated))
    swapped = hug.linear(torch.cat([concatenated[:, 8:16], concatenated[:, :8], concatenated[:, 16:]], dim=1))
    assert (swapped - hug(x, EVERY).logits).abs().max() > 0.1


def as_matrix(hug: Hug) -> tuple[Tensor, Tensor]:
    """Return matrix ``(C, 12 * E)`` and offset of the only affine map that agrees with the head on the unit vectors."""
    size = 12 * 8
    inputs = torch.cat([torch.zeros(1, size), torch.eye(size)]).double().view(-1, 12, 8)
    with torch.no_grad():
        outputs = hug(inputs, torch.ones(size + 1, 12, dtype=torch.bool)).logits
    return (outputs[1:] - outputs[0]).T, outputs[0]


def test_a_linear_hug_is_one_matrix_over_three_group_means() -> None:
    hug = head()
    matrix, offset = as_matrix(hug)
    torch.testing.assert_close(features().flatten(1) @ matrix.T + offset, hug(features(), EVERY).logits)
    per_lead = matrix.view(5, 12, 8)
    for members in GROUPS:
        torch.testing.assert_close(per_lead[:, list(members)], per_lead[:, [members[0]]].expand(-1, len(members), -1))


def test_a_hug_with_gelu_is_not_one_matrix() -> None:
    hug = head(gelu=True)
    matrix, offset = as_matrix(hug)
    assert (features().flatten(1) @ matrix.T + offset - hug(features(), EVERY).logits).abs().max() > 0.1


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("group", "experts"), [(0, {0, 3, 5, 6}), (1, {1, 3, 4, 6}), (2, {2, 4, 5, 6})])
def test_a_group_reaches_its_own_experts_alone(group: int, experts: set[int], gelu: bool) -> None:
    hug, x = head(gelu), features()
    changed = x.clone()
    changed[:, list(GROUPS[group])] += torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    moved = (hug(x, EVERY).evidence - hug(changed, EVERY).evidence).abs().amax(dim=(0, 2))
    assert {number for number, change in enumerate(moved.tolist()) if change > 1e-9} == experts


@pytest.mark.parametrize("gelu", [False, True])
def test_an_absent_lead_does_not_count_and_an_absent_group_is_learned(gelu: bool) -> None:
    hug, x = head(gelu), features()
    present = EVERY.clone()
    present[:, 1] = False
    changed = x.clone()
    changed[:, 1] = 99.0
    torch.testing.assert_close(hug(changed, present).logits, hug(x, present).logits, rtol=0, atol=0)
    same = x.clone()
    same[:, :3] = x[:, :1]
    torch.testing.assert_close(hug(same, present).logits, hug(same, EVERY).logits)
    present[:, :3] = False
    before = hug(x, present).logits
    with torch.no_grad():
        hug.absent[0] += 1.0
    assert (hug(x, present).logits - before).abs().max() > 1e-3
    torch.testing.assert_close(hug(x, EVERY).logits, head(gelu)(x, EVERY).logits)


def test_group_features_go_the_same_way_as_leads_that_agree() -> None:
    hug, groups = head(gelu=True), features()[:, :3]
    leads = groups[:, [0] * 3 + [1] * 3 + [2] * 6]
    present = torch.ones(6, 3, dtype=torch.bool)
    torch.testing.assert_close(hug.of_groups(groups, present), hug(leads, EVERY))
    present[:, 1] = False
    torch.testing.assert_close(hug.of_groups(groups, present), hug(leads, present[:, [0] * 3 + [1] * 3 + [2] * 6]))


def test_nothing_there_is_finite_and_trains() -> None:
    hug = head(gelu=True)
    x = features().requires_grad_()
    logits = hug(x, torch.zeros(6, 12, dtype=torch.bool)).logits
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))
    logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in hug.parameters() if p.grad is not None)
    assert hug.absent.grad is not None and hug.absent.grad.abs().sum() > 0


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("arch", ["clear", "ecgnat-hug"])
def test_every_expert_begins_with_a_say(arch: str, gelu: bool) -> None:
    torch.manual_seed(0)
    network = build(configured(arch, "nano", head="hug-gelu" if gelu else "hug")).eval()
    assert isinstance(network, Clear | EcgNatHug)
    windows = torch.randn(16, 12, 1000).cumsum(dim=2)
    beats = torch.arange(8)[None] * 110 + 50 + 40 * torch.rand(16, 1)
    with torch.no_grad():
        evidence = network.evidence(network.encode(network.prepare(windows, beats)))
    for of_head in evidence.values():
        spread = of_head.std(dim=0).mean(dim=1)
        assert spread.min() > 0.1 * spread.max(), "with weights of 0.02 throughout it is a seventieth"
