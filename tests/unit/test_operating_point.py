"""Operating points: goals are met on the rows that choose, guarantees hold on others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cascadebert_build.config.goals import Goal
from cascadebert_build.config.rows import Rows
from cascadebert_build.errors import UsageError
from cascadebert_build.evaluation.costs import RowCosts
from cascadebert_build.pipeline.tune import point_in_words
from cascadebert_build.tuning.guarantee import Predictions
from cascadebert_build.tuning.operating_point import TuningRows, choose_operating_point
from cascadebert_build.tuning.row_split import split_rows_for_tuning
from cascadebert_core.policy import policy_from_json, policy_to_json
from tests.support.policies import make_policy


def answers_of(n: int, rng: np.random.Generator, stages: int = 2) -> Predictions:
    """Confidence c; the label differs from the last stage's with probability (1 - c) / 2.

    A first stage that predicts label 1 is wrong four times as often as one that predicts 0.
    """
    last = rng.integers(0, 2, n)
    labels, confidence = [], []
    for _ in range(stages - 1):
        c = rng.uniform(0.5, 1, n)
        differs = rng.random(n) < np.where(last == 0, 1.6, 0.4) * (1 - c) / 2
        labels.append(np.where(differs, 1 - last, last))
        confidence.append(c)
    truth = np.where(rng.random(n) < 0.95, last, 1 - last)
    return Predictions(
        np.stack([*labels, last], 1), np.stack(confidence, 1).astype(np.float32), truth
    )


def population_of(n: int, seed: int = 0, stages: int = 2) -> TuningRows:
    rng = np.random.default_rng(seed)
    rows = Rows(tuple(f"row {i}" for i in range(n)), tuple(i % 2 for i in range(n)), "test")
    cost = np.tile(np.array([1.0, 3.0, 10.0])[-stages:], (n, 1))
    return TuningRows(answers_of(n, rng, stages), RowCosts(cost), split_rows_for_tuning(rows), 2)


def risk_on_fresh_rows(thresholds: tuple[object, ...], stages: int = 2) -> float:
    fresh = answers_of(200_000, np.random.default_rng(99), stages)
    limits = np.array([list(t) if isinstance(t, tuple) else t for t in thresholds], np.float32)
    exits = fresh.exits(limits)
    return float(fresh.losses("max_disagreement")[np.arange(len(fresh)), exits].mean())


@pytest.mark.parametrize(("stages", "per_label"), [(2, False), (2, True), (3, False), (3, True)])
def test_a_guarantee_holds_on_fresh_rows(stages: int, per_label: bool) -> None:
    population = population_of(6000, stages=stages)
    point = choose_operating_point(
        Goal("max_disagreement", 0.03, 0.95), population, per_label=per_label
    )
    found = point.certificate
    assert risk_on_fresh_rows(point.thresholds, stages) <= 0.03
    assert found["observed"] <= found["bound"] <= 0.03
    assert found["n"] == (3600 if (stages, per_label) == (2, False) else 2400)
    assert found["exits"][0] > 0.2
    assert found["speedup"] > 1
    assert sum(found["exits"]) == pytest.approx(1)
    if per_label:
        assert all(isinstance(threshold, tuple) for threshold in point.thresholds)


def test_a_threshold_for_each_label_defers_less_where_labels_differ() -> None:
    goal = Goal("max_disagreement", 0.02, 0.9)
    one, two = (
        choose_operating_point(goal, population_of(20_000), per_label=per_label)
        for per_label in (False, True)
    )
    assert two.certificate["exits"][0] > one.certificate["exits"][0]
    assert isinstance(two.thresholds[0], tuple)
    of_0, of_1 = two.thresholds[0]
    assert of_1 > of_0  # the label that is more often wrong has the higher threshold


def test_an_accuracy_drop_needs_labels_and_holds() -> None:
    population = population_of(8000)
    point = choose_operating_point(Goal("max_accuracy_drop", 0.02, 0.95), population)
    fresh = answers_of(200_000, np.random.default_rng(5))
    exits = fresh.exits(np.array(point.thresholds, np.float32))
    drop = fresh.losses("max_accuracy_drop")[np.arange(len(fresh)), exits].mean()
    assert drop <= 0.02
    assert point.certificate["exits"][0] > 0.3
    unlabelled = TuningRows(
        Predictions(population.predictions.labels, population.predictions.confidence),
        population.costs, population.split, 2,
    )  # fmt: skip
    with pytest.raises(UsageError, match="needs labelled rows"):
        choose_operating_point(Goal("max_accuracy_drop", 0.02, 0.95), unlabelled)


def test_budgets_are_used_and_not_exceeded() -> None:
    population = population_of(2000)  # 3 and 10 ms
    point = choose_operating_point(Goal("min_speedup", 2.0), population)
    assert 2.0 <= point.certificate["speedup"] < 2.1  # 3 + 10 d <= 5
    assert point.certificate["exits"][0] == pytest.approx(0.8, abs=0.02)
    point = choose_operating_point(Goal("max_cost", 8.0), population)
    assert 7.8 < point.certificate["ms_per_row"] <= 8.0
    point = choose_operating_point(Goal("max_deferral_rate", (0.25,)), population)
    assert point.certificate["exits"][0] == pytest.approx(0.75, abs=0.001)
    assert "guarantees nothing" in point.certificate["method"]
    with pytest.raises(
        UsageError, match=r"at least 3 ms a row and the last member alone 10; at most 3\.33"
    ):
        choose_operating_point(Goal("min_speedup", 4.0), population)
    with pytest.raises(UsageError, match="cannot be met"):
        choose_operating_point(Goal("max_cost", 2.0), population)


def test_thresholds_by_hand_are_taken_as_they_are_and_described() -> None:
    population = population_of(2000)
    point = choose_operating_point(Goal("thresholds", (0.75,)), population)
    assert point.thresholds == (0.75,)
    assert point.certificate["by_hand"] is True
    assert "promise" not in point.certificate
    assert "guarantees nothing" in point.certificate["method"]
    confidence = population.predictions.confidence[population.split.thresholds, 0]
    assert point.certificate["exits"][0] == pytest.approx((confidence > 0.75).mean(), abs=1e-6)
    three = population_of(2000, stages=3)
    assert choose_operating_point(Goal("thresholds", (0.9,)), three).thresholds == (0.9, 0.9)
    assert choose_operating_point(Goal("thresholds", (0.9, 0.5)), three).thresholds == (0.9, 0.5)


def test_thresholds_that_defer_nothing_or_everything_are_said_to() -> None:
    population = population_of(2000)
    for threshold, said in (
        (0.0, "NOTHING is deferred: this is the first member alone"),
        (1.0, "EVERYTHING is deferred"),
    ):
        goal = Goal("thresholds", (threshold,))
        assert said in point_in_words(choose_operating_point(goal, population), goal)
    goal = Goal("thresholds", (0.75,))
    assert "is deferred" not in point_in_words(choose_operating_point(goal, population), goal)


def test_a_goal_that_no_threshold_keeps_defers_everything() -> None:
    population = population_of(3000)
    guessing = Predictions(
        np.stack([1 - population.predictions.labels[:, 1], population.predictions.labels[:, 1]], 1),
        population.predictions.confidence,
    )
    point = choose_operating_point(
        Goal("max_disagreement", 0.01),
        TuningRows(guessing, population.costs, population.split, 2),
    )
    assert point.certificate["exits"][-1] > 0.99


def test_a_certificate_survives_the_policy_file() -> None:
    point = choose_operating_point(
        Goal("max_disagreement", 0.03), population_of(3000), per_label=True
    )
    policy = make_policy(0.9).with_operating_points(
        {"safe": point.thresholds, "plain": (0.5,)}, "safe"
    )
    from dataclasses import replace

    policy = replace(policy, certificate={"operating_points": {"safe": point.certificate}})
    read = policy_from_json(policy_to_json(policy))
    assert read.operating_points == policy.operating_points
    assert read.id == policy.id
    assert json.loads(policy_to_json(policy))["stages"][0]["threshold"] == list(
        point.thresholds[0] if isinstance(point.thresholds[0], tuple) else ()
    )


def test_rows_that_exit_nowhere_leave_a_budget_its_errors() -> None:
    population = population_of(200)
    confidence = population.predictions.confidence.copy()
    confidence[:40] = np.nan
    broken = TuningRows(
        Predictions(population.predictions.labels, confidence, population.predictions.truth),
        population.costs, population.split, 2,
    )  # fmt: skip
    with pytest.raises(UsageError, match="cannot be met"):
        choose_operating_point(Goal("max_cost", 3.05), broken)


def test_a_budget_is_not_spent_without_need() -> None:
    population = population_of(400)
    last = population.predictions.labels[:, -1:]
    alike = Predictions(np.repeat(last, 2, axis=1), population.predictions.confidence)
    point = choose_operating_point(
        Goal("max_cost", 20.0), TuningRows(alike, population.costs, population.split, 2)
    )
    assert point.certificate["exits"] == [1.0, 0.0]


def test_too_many_thresholds_by_label_are_refused_at_once() -> None:
    population = population_of(3000, stages=3)
    many = TuningRows(population.predictions, population.costs, population.split, 20)
    with pytest.raises(UsageError, match="makes 40 thresholds, more than the 6"):
        choose_operating_point(Goal("max_disagreement", 0.05), many, per_label=True)


def test_two_rows_are_too_few_for_anything() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        choose_operating_point(Goal("max_accuracy_drop", 0.99), population_of(2))
