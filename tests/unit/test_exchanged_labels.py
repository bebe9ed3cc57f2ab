"""A member whose labels have each other's names is found; one that is merely weak is not."""

from __future__ import annotations

import numpy as np
import pytest

from cascadebert_build.errors import CheckFailed
from cascadebert_build.evaluation.costs import Cost
from cascadebert_build.evaluation.exchanged_labels import find_exchanged_labels
from cascadebert_build.evaluation.intervals import difference_interval
from cascadebert_build.evaluation.metrics import Interval
from cascadebert_build.evaluation.verdicts import (
    LABELS_EXCHANGED,
    LABELS_LOOK_EXCHANGED,
    TEMPERATURE_AT_LIMIT,
    MemberFacts,
    verdicts_of,
)
from cascadebert_build.pipeline.verdicts import refuse_exchanged_labels
from cascadebert_build.tuning.assessment import verdicts_of_one
from cascadebert_build.tuning.guarantee import Predictions
from tests.support.policies import make_policy

NAMES = "abcdefghijklmnopqrst"
TWO = ("negative", "positive")


def answers_of(truth: np.ndarray, right: float, n_labels: int, seed: int = 1) -> np.ndarray:
    """Answers of which about `right` are the truth, the others any other label."""
    rng = np.random.default_rng(seed)
    other = (truth + rng.integers(1, n_labels, len(truth))) % n_labels
    return np.where(rng.random(len(truth)) < right, truth, other)


def truth_of(n: int, n_labels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, n_labels, n)


@pytest.mark.parametrize("n", [60, 872])
def test_two_exchanged_names_are_found(n: int) -> None:
    truth = truth_of(n, 2)
    found = find_exchanged_labels(1 - answers_of(truth, 0.89, 2), truth, TWO)
    assert found is not None
    assert set(found.names) == set(TWO)
    assert found.renamed == pytest.approx(1 - found.right)
    assert found.right < 0.2
    assert found.worse_than_chance


def test_three_names_that_were_shifted_are_found_and_the_others_left_alone() -> None:
    truth = truth_of(1000, 5)
    answers = answers_of(truth, 0.9, 5)
    shifted = np.array([1, 2, 0, 3, 4])[answers]
    found = find_exchanged_labels(shifted, truth, "abcde")
    assert found is not None
    assert sorted(found.names) == ["a", "b", "c"]
    assert found.renamed == pytest.approx(float((answers == truth).mean()))
    # With two of twenty names exchanged the member is better than chance all the same.
    truth = truth_of(2000, 20)
    exchange = np.array([1, 0, *range(2, 20)])
    found = find_exchanged_labels(exchange[answers_of(truth, 0.9, 20)], truth, NAMES)
    assert found is not None
    assert not found.worse_than_chance


def test_a_weak_member_has_no_exchanged_names() -> None:
    for seed in range(20):
        for n_labels in (2, 3, 20):
            truth = truth_of(200, n_labels)
            guessed = answers_of(truth, 1 / n_labels, n_labels, seed)
            assert find_exchanged_labels(guessed, truth, [str(i) for i in range(n_labels)]) is None
    # It never says "negative", and most rows are.
    truth = (np.arange(500) % 10 < 3).astype(int)
    assert find_exchanged_labels(np.ones(500, int), truth, TWO) is None
    # Too few rows to tell, and no answers at all.
    assert find_exchanged_labels(np.array([1, 0, 1]), np.array([0, 1, 0]), TWO) is None
    assert find_exchanged_labels(np.full(50, -1), truth[:50], TWO) is None


def facts(name: str, accuracy: float, exchanged: object = None, limit: float | None = None):
    share = 0.3 if name == "small" else 1.0
    each = Interval(share, share, share)
    behind = difference_interval(0, 400, 500) if name == "small" else difference_interval(0, 0, 500)
    return MemberFacts(name, Cost(each, each, share), accuracy, behind, 500, exchanged, limit)  # type: ignore[arg-type]


def test_exchanged_names_are_said_and_not_that_the_small_member_is_as_accurate() -> None:
    truth = truth_of(500, 2)
    found = find_exchanged_labels(1 - answers_of(truth, 0.89, 2), truth, TWO)
    (verdict,) = verdicts_of([facts("small", 0.83), facts("large", 0.11, found, 20.0)], [])
    assert (verdict.kind, verdict.subject) == (LABELS_EXCHANGED, "large")
    assert "large is right on 1" in verdict.text
    assert "negative and positive exchanged" in verdict.text
    assert "id2label" in verdict.help
    with pytest.raises(CheckFailed, match="nothing is published: large is right on"):
        refuse_exchanged_labels({"verdicts": [verdict.to_json()]})
    # A cascade of one member is no exception.
    (alone,) = verdicts_of([facts("large", 0.11, found)], [])
    assert alone.kind == LABELS_EXCHANGED


def test_a_cascade_of_one_member_is_looked_at_too() -> None:
    truth = truth_of(500, 2)
    answers = 1 - answers_of(truth, 0.89, 2)
    of_one = make_policy().with_thresholds((), "default")
    found = Predictions(answers[:, None], np.zeros((500, 0), np.float32), truth)
    (verdict,) = verdicts_of_one("only", of_one, found)
    assert (verdict.kind, verdict.subject) == (LABELS_EXCHANGED, "only")
    assert verdicts_of_one("only", of_one, Predictions(found.labels, found.confidence)) == ()


def test_some_exchanged_names_and_a_temperature_at_its_limit_are_warnings() -> None:
    truth = truth_of(2000, 20)
    exchange = np.array([1, 0, *range(2, 20)])
    some = find_exchanged_labels(exchange[answers_of(truth, 0.9, 20)], truth, NAMES)
    kinds = {v.kind for v in verdicts_of([facts("large", 0.8, some)], [])}
    assert kinds == {LABELS_LOOK_EXCHANGED}
    (verdict,) = verdicts_of([facts("large", 0.5, None, 20.0)], [])
    assert verdict.kind == TEMPERATURE_AT_LIMIT
    assert "at its limit, 20" in verdict.text
    refuse_exchanged_labels({"verdicts": [verdict.to_json()]})
    refuse_exchanged_labels(None)
