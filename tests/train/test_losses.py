"""Losses against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from ecgnat_stream.codes import RHYTHMS
from train.data.labels import UNSTATED, allow, forbid
from train.data.sample import BEAT_HIDDEN, BEAT_NONE, BEAT_OTHER
from train.fit.losses import bag_loss, beat_loss, contrastive_loss, labels_of, partial_label_loss, screen_loss, window_loss


def test_one_allowed_class_is_cross_entropy() -> None:
    logits = torch.randn(2, 3, 8)
    classes = torch.randint(8, (2, 3))
    sets = (1 << classes).to(torch.uint8)
    expected = F.cross_entropy(logits.flatten(0, 1), classes.flatten())
    torch.testing.assert_close(partial_label_loss(logits, sets), expected)


def test_several_allowed_classes_sum_their_probabilities() -> None:
    logits = torch.randn(1, 1, 8)
    sets = torch.tensor([[forbid("VF", "AF")]], dtype=torch.uint8)
    p = logits.softmax(-1)[0, 0]
    allowed = 1 - p[RHYTHMS.index("VF")] - p[RHYTHMS.index("AF")]
    torch.testing.assert_close(partial_label_loss(logits, sets), -allowed.log())


def test_unstated_tokens_have_no_gradient() -> None:
    logits = torch.randn(1, 2, 8, requires_grad=True)
    partial_label_loss(logits, torch.tensor([[UNSTATED, allow("VT")]], dtype=torch.uint8)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].eq(0).all()
    assert logits.grad[0, 1].abs().sum() > 0


def test_nothing_stated_at_all_is_zero() -> None:
    assert partial_label_loss(torch.randn(1, 2, 8), torch.full((1, 2), UNSTATED, dtype=torch.uint8)) == 0
    assert bag_loss(torch.randn(2, 9, 8), torch.tensor([-1, -1])) == 0
    assert window_loss(torch.randn(2, 5), torch.full((2, 5), torch.nan)) == 0
    assert screen_loss(torch.randn(2, 4), torch.tensor([-1, -1])) == 0
    assert beat_loss(torch.randn(2, 8, 7), torch.full((2, 8), BEAT_HIDDEN), torch.zeros(2, 8)) == 0


def test_a_bag_wants_its_class_somewhere() -> None:
    logits = torch.zeros(1, 32, 8)
    nowhere = bag_loss(logits, torch.tensor([3]))
    logits[0, 10:16, 3] = 9.0
    assert bag_loss(logits, torch.tensor([3])) < 0.01 < nowhere


def test_a_statement_about_half_of_the_rows_counts_half() -> None:
    logits = torch.randn(4, 4)
    whole = F.cross_entropy(logits[:2], torch.tensor([0, 3]))
    torch.testing.assert_close(screen_loss(logits, torch.tensor([0, 3, -1, -1])), whole / 2)


def test_beats_learn_presence_everywhere_class_only_where_it_is_stated() -> None:
    output = torch.zeros(1, 4, 7, requires_grad=True)
    beat = torch.tensor([[BEAT_HIDDEN, BEAT_NONE, BEAT_OTHER, 2]])
    beat_loss(output, beat, torch.full((1, 4), 0.9)).backward()
    assert output.grad is not None
    moves = output.grad[0].abs() > 0
    assert moves[:, 0].tolist() == [False, True, True, True]
    assert moves[:, 1].tolist() == [False, False, True, True]
    assert moves[:, 2:].any(dim=1).tolist() == [False, False, False, True]
    assert output.grad[0, 3, 4] < 0 < output.grad[0, 3, 2]


def test_contrast_equals_khosla_for_single_labels() -> None:
    torch.manual_seed(0)
    z = F.normalize(torch.randn(6, 5), dim=1)
    classes = torch.tensor([0, 0, 1, 1, 1, 2])
    total = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        positives = [j for j in others if classes[j] == classes[i]]
        if positives:
            denominator = sum(math.exp(float(z[i] @ z[a]) / 0.1) for a in others)
            total.append(-sum(math.log(math.exp(float(z[i] @ z[p]) / 0.1) / denominator) for p in positives) / len(positives))
    loss = contrastive_loss(z, F.one_hot(classes, 3), torch.zeros(6, dtype=torch.long))
    assert float(loss) == pytest.approx(sum(total) / len(total), rel=1e-4)


def test_contrast_weighs_positives_by_their_overlap_and_keeps_groups_apart() -> None:
    z = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]])
    group = torch.zeros(3, dtype=torch.long)
    logits = z @ z.T / 0.1
    log_p = [logits[i] - torch.logsumexp(logits[i][[j for j in range(3) if j != i]], dim=0) for i in range(3)]
    first = -(0.5 * log_p[0][1] + 1 / 3 * log_p[0][2]) / (0.5 + 1 / 3)
    expected = (first - log_p[1][0] - log_p[2][0]) / 3
    torch.testing.assert_close(contrastive_loss(z, labels, group), expected, rtol=1e-4, atol=1e-4)
    apart = contrastive_loss(z, labels, torch.tensor([0, 0, 1]))
    assert float(apart) == pytest.approx(0.0, abs=1e-5)  # each has one other row to compare with: it is the positive


def test_labels_are_of_one_kind_per_row() -> None:
    batch = {
        "screen": torch.tensor([2, -1, -1, -1]),
        "window": torch.tensor([[torch.nan] * 5, [0, 1, 1, 0, 0], [torch.nan] * 5, [torch.nan] * 5]),
        "sets": torch.tensor(
            [[allow("AF")] * 2, [allow("SINUS")] * 2, [allow("VT"), UNSTATED], [UNSTATED] * 2], dtype=torch.uint8
        ),
    }
    labels, group = labels_of(batch)
    assert group.tolist() == [0, 1, 2, -1]
    assert labels[0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert labels[1].tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    assert labels[2, RHYTHMS.index("VT")] == 1
    assert labels[2].sum() == 1
