"""The evaluation: figures with intervals, and rows without finite logits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cascadebert_build.commands.evaluate import predictions_as_jsonl
from cascadebert_build.config.rows import Rows
from cascadebert_build.evaluation.evaluate import evaluate
from cascadebert_build.evaluation.label_scores import label_scores
from cascadebert_core.task import label_sets, sigmoid
from tests.support.policies import make_multi_label_policy, make_policy


def rows_of(labels: np.ndarray) -> Rows:
    return Rows(tuple(f"row {i}" for i in range(len(labels))), tuple(labels.tolist()), "test")


def test_logits_that_are_not_finite_are_never_correct() -> None:
    # argmax of NaN is 0, which is the label here.
    bad = np.full((4, 2), np.nan, np.float32)
    good = np.tile(np.array([[9.0, 0.0]], np.float32), (4, 1))
    labels = np.zeros(4, dtype=int)
    evaluation, _ = evaluate(make_policy(0.9), rows_of(labels), [bad, good])
    assert evaluation.member_accuracy == (0.0, 1.0)
    assert evaluation.cascade_accuracy == 1.0
    assert evaluation.disagreement == 0
    evaluation, _ = evaluate(make_policy(0.9), rows_of(labels), [good, bad])
    assert evaluation.member_accuracy == (1.0, 0.0)
    assert evaluation.disagreement == 1.0  # the last member has no answer to agree with
    evaluation, _ = evaluate(make_policy(0.9), rows_of(labels), [bad, bad])
    assert evaluation.unanswered == 4
    assert evaluation.cascade_accuracy == 0.0
    assert evaluation.disagreement == 0
    assert "4 rows have no answer" in str(evaluation)


def test_every_figure_has_its_interval_and_signals_are_compared() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    logits = [
        (np.eye(2)[labels] * strength + rng.normal(0, 1.5, (600, 2))).astype(np.float32)
        for strength in (1.5, 3.0)
    ]
    evaluation, _ = evaluate(make_policy(0.9), rows_of(labels), logits)
    assert evaluation.metrics is not None
    assert evaluation.signals is not None
    for member in evaluation.metrics:
        for interval in (member.dis, member.ece, member.brier, member.coverage):
            assert interval.low <= interval.value <= interval.high
            assert interval.low < interval.high
    small, large = evaluation.metrics
    assert large.coverage.value > small.coverage.value
    by_signal = {name: found.value for name, found in evaluation.signals.items()}
    assert by_signal["margin"] == by_signal["entropy"] == by_signal["max_probability"]
    assert by_signal["energy"] != by_signal["max_probability"]
    text = str(evaluation)
    assert f"by signal: max_probability {by_signal['max_probability']:.1f}" in text
    assert "sure at 5% wrong" in text


def sets_of(logits: np.ndarray) -> np.ndarray:
    return label_sets(sigmoid(logits.astype(np.float32)))


def f1(truth: np.ndarray, found: np.ndarray) -> float:
    """F1 from precision and recall."""
    precision, recall = (truth & found).sum() / np.array([found.sum(), truth.sum()])
    return 2 / (1 / precision + 1 / recall)


def multi_label_case(n: int = 600) -> tuple[Rows, np.ndarray, list[np.ndarray]]:
    """Rows with sets of three labels, and the logits of a small and a large member."""
    rng = np.random.default_rng(0)
    truth = rng.random((n, 3)) < (0.5, 0.2, 0.1)
    logits = [
        ((truth - 0.5) * strength + rng.normal(0, 1.5, (n, 3))).astype(np.float32)
        for strength in (3.0, 5.0)
    ]
    names = np.array(["insult", "threat", "toxic"])
    rows = Rows(("row",) * n, tuple(tuple(names[row].tolist()) for row in truth), "test")
    return rows, truth, logits


def test_sets_are_right_as_a_whole_and_their_labels_are_scored_one_by_one() -> None:
    rows, truth, logits = multi_label_case()
    evaluation, outcome = evaluate(make_multi_label_policy(0.8), rows, logits)
    right = [(sets_of(values) == truth).all(axis=1) for values in logits]
    assert evaluation.member_accuracy == tuple(float(each.mean()) for each in right)
    last = sets_of(logits[1])
    given = label_sets(outcome.probabilities)
    assert 0 < evaluation.disagreement == (given != last).any(axis=1).mean()
    assert evaluation.label_scores is not None
    assert len(evaluation.label_scores) == 3  # the members and the cascade
    for scores, sets in zip(
        evaluation.label_scores, (sets_of(logits[0]), last, given), strict=True
    ):
        assert scores.micro_f1 == pytest.approx(f1(truth.ravel(), sets.ravel()))
        assert scores.macro_f1 == pytest.approx(
            np.mean([f1(truth[:, i], sets[:, i]) for i in range(3)])
        )
        assert scores.hamming_loss == pytest.approx((truth != sets).mean())
    text = str(evaluation)
    assert "micro F1" in text
    assert "of whole sets" in text
    assert f"{evaluation.label_scores[2].hamming_loss:.4f}" in text
    assert evaluation.signals is not None
    assert list(evaluation.signals) == ["least_sure"]
    assert evaluation.metrics is not None
    for member in evaluation.metrics:
        for interval in (member.dis, member.ece, member.brier, member.coverage):
            assert interval.low <= interval.value <= interval.high
    small, large = evaluation.metrics
    assert large.coverage.value > small.coverage.value


def test_a_label_without_any_row_scores_0_as_in_scikit_learn() -> None:
    truth = np.array([[True, False], [True, False]])
    scores = label_scores(truth, truth)
    assert (scores.micro_f1, scores.macro_f1, scores.hamming_loss) == (1.0, 0.5, 0.0)


def test_sets_without_finite_logits_are_never_correct() -> None:
    rows = Rows(("a", "b"), ((), ("toxic",)), "test")
    bad = np.full((2, 3), np.nan, np.float32)
    evaluation, _ = evaluate(make_multi_label_policy(0.9), rows, [bad, bad])
    assert (evaluation.cascade_accuracy, evaluation.unanswered) == (0.0, 2)
    assert evaluation.label_scores is not None
    assert evaluation.label_scores[-1].micro_f1 == 0


def test_predictions_of_sets_are_lists() -> None:
    rows, _, logits = multi_label_case(20)
    logits[1][3] = np.nan
    logits[0][3] = np.nan
    policy = make_multi_label_policy(0.8)
    _, outcome = evaluate(policy, rows, logits)
    lines = [json.loads(line) for line in predictions_as_jsonl(policy, outcome).splitlines()]
    names = np.array(policy.labels)
    for i, line in enumerate(lines):
        assert "label" not in line
        wanted = names[label_sets(outcome.probabilities)[i]].tolist() if i != 3 else None
        assert line["labels"] == wanted
