"""The evaluation: figures with intervals, and rows without finite logits."""

from __future__ import annotations

import numpy as np

from cascadebert_build.config.rows import Rows
from cascadebert_build.evaluation.evaluate import evaluate
from tests.support.policies import make_policy


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
