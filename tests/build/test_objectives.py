"""The losses against their formulas, row by row, and the direction of their gradients."""

from __future__ import annotations

import math

import pytest
import torch

from cascadebert_build.training.objectives import (
    ObjectiveConfig,
    Targets,
    cross_entropy,
    difficulty_aware,
    distillation,
    gatekeeper,
    objective_from_name,
)

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.4, 0.0], [0.0, 3.0, 0.0], [1.0, 1.0, 1.5]])
LABELS = torch.tensor([0, 1, 1, 0])
HARD = torch.tensor([False, True, False, True])


def probabilities(row: torch.Tensor) -> list[float]:
    exponentials = [math.exp(value) for value in row.tolist()]
    return [value / sum(exponentials) for value in exponentials]


def test_dar_adds_the_mean_hinge_over_easy_rows() -> None:
    targets = Targets(LABELS, HARD)
    confidence = [max(probabilities(row)) for row in LOGITS]
    easy, hard = [confidence[0], confidence[2]], [confidence[1], confidence[3]]
    # The partner is random: the mean over many draws is that over all pairs.
    torch.manual_seed(0)
    losses = torch.stack([difficulty_aware(LOGITS, targets, 0.9, 2.0) for _ in range(4000)])
    hinges = [max(0.0, 0.9 - (e - h)) for e in easy for h in hard]
    expected = float(cross_entropy(LOGITS, targets)) + 2.0 * sum(hinges) / len(hinges)
    assert float(losses.mean()) == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("kind", [False, True])
def test_dar_is_cross_entropy_where_a_kind_is_missing(kind: bool) -> None:
    targets = Targets(LABELS, torch.full((4,), kind))
    assert torch.equal(difficulty_aware(LOGITS, targets, 0.5, 0.5), cross_entropy(LOGITS, targets))


def test_dar_makes_easy_rows_surer_than_hard_ones() -> None:
    torch.manual_seed(0)
    logits = torch.randn(32, 2, requires_grad=True)
    targets = Targets(torch.randint(2, (32,)), torch.arange(32) % 4 == 0)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        confidence = logits.softmax(-1).amax(-1)
        loss = difficulty_aware(logits, targets, 0.5, 1.0) - cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
    confidence = logits.softmax(-1).amax(-1)
    assert targets.hard is not None
    assert confidence[~targets.hard].mean() > confidence[targets.hard].mean() + 0.3


def test_gatekeeper_is_its_two_sums() -> None:
    expected = 0.0
    for row, label in zip(LOGITS, LABELS.tolist(), strict=True):
        p = probabilities(row)
        if max(range(3), key=p.__getitem__) == label:
            expected += 0.3 * -math.log(p[label])
        else:
            expected += 0.7 * sum(q * math.log(q * 3) for q in p)
    loss = gatekeeper(LOGITS, Targets(LABELS), alpha=0.3)
    assert float(loss) == pytest.approx(expected / 4, rel=1e-5)


def test_gatekeeper_pulls_wrong_rows_to_the_uniform_distribution() -> None:
    logits = torch.tensor([[3.0, 0.0]], requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        loss = gatekeeper(logits, Targets(torch.tensor([1])), alpha=0.0)
        loss.backward()
        optimizer.step()
    assert float(logits.softmax(-1).max().detach()) == pytest.approx(0.5, abs=1e-2)


def test_distillation_is_zero_at_the_teacher_and_scaled_by_the_square() -> None:
    targets = Targets(LABELS, teacher_logits=LOGITS + 1.0)  # the same distribution
    assert float(distillation(LOGITS, targets, 2.0)) == pytest.approx(0, abs=1e-6)
    teacher = LOGITS.flip(1)
    loss = distillation(LOGITS, Targets(LABELS, teacher_logits=teacher), 2.0)
    expected = 0.0
    for row, wanted in zip(LOGITS / 2, teacher / 2, strict=True):
        p, q = probabilities(wanted), probabilities(row)
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(loss) == pytest.approx(4 * expected / 4, rel=1e-5)


def test_objectives_by_name() -> None:
    targets = Targets(LABELS, HARD, LOGITS.flip(1))
    plain = objective_from_name("plain")(LOGITS, targets)
    assert torch.equal(plain, cross_entropy(LOGITS, targets))
    constants = ObjectiveConfig(distill_weight=0.25)
    joined = objective_from_name("plain", constants, distilled=True)(LOGITS, targets)
    expected = 0.75 * plain + 0.25 * distillation(LOGITS, targets, 2.0)
    assert float(joined) == pytest.approx(float(expected))
    with pytest.raises(ValueError, match="unknown objective 'sgd': give one of plain, dar"):
        objective_from_name("sgd")
    with pytest.raises(ValueError, match="run `cascadebert difficulty`"):
        objective_from_name("dar")(LOGITS, Targets(LABELS))
    with pytest.raises(ValueError, match="needs the logits of a teacher"):
        distillation(LOGITS, Targets(LABELS), 2.0)
