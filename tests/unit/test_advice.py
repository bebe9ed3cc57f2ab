"""Whether a cascade pays, from logits and times that are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_build.advice.advice import Advice, advise
from cascadebert_build.advice.money import HOURS_A_MONTH, Demand, month_of
from cascadebert_build.advice.text import advice_as_text, text_plot
from cascadebert_build.advice.verdict import (
    PAYS,
    PAYS_WITH_LOSS,
    SMALL_TOO_WEAK,
    TOO_CLOSE_IN_COST,
    TOO_FEW_ROWS,
)
from cascadebert_build.config.rows import Rows
from cascadebert_build.config.schema import CascadeConfig, MemberConfig
from cascadebert_build.evaluation.costs import RowCosts
from cascadebert_build.evaluation.verdicts import (
    LABELS_EXCHANGED,
    OUT_OF_ORDER,
    SMALLER_AS_ACCURATE,
    TEMPERATURE_AT_LIMIT,
)
from cascadebert_build.tuning.row_split import split_rows_for_tuning
from tests.support.policies import make_policy


def advice(
    *,
    n: int = 600,
    small: float = 0.85,
    large: float = 0.95,
    sure: bool = True,
    share: float = 0.25,
    labelled: bool = True,
    demand: Demand | None = None,
    not_run: int = 0,
) -> Advice:
    """Advice on two members.

    Args:
        n: Rows.
        small: Accuracy of the first member.
        large: Accuracy of the last.
        sure: Whether the first member is surer if it is right; else it is as sure if it is wrong.
        share: Its time relative to the last one's.
        labelled: Whether the rows have labels.
        demand: For the price of a month.
        not_run: Rows that the time was not enough for.
    """
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, n)
    # Exact shares, so that no figure hangs on a seed. What the large member gets wrong, the small
    # one gets wrong too.
    order = rng.permutation(n)
    wrong_large, wrong_small = order[: round((1 - large) * n)], order[: round((1 - small) * n)]
    logits: list[np.ndarray] = []
    for wrong, knows in ((wrong_small, sure), (wrong_large, True)):
        answers = truth.copy()
        answers[wrong] = 1 - answers[wrong]
        margin = rng.uniform(2.0, 4.0, n)
        if knows:
            margin[wrong] = rng.uniform(0.1, 1.5, len(wrong))
        values = np.zeros((n, 2), np.float32)
        values[np.arange(n), answers] = margin
        logits.append(values)
    rows = Rows(
        tuple(f"text {i}" for i in range(n)),
        tuple(int(label) for label in truth) if labelled else None,
        "rows.csv",
    )
    ms = np.tile([10.0 * share, 10.0], (n, 1))
    config = CascadeConfig(Path(), (MemberConfig("small", "s"), MemberConfig("large", "l")))
    return advise(
        config,
        make_policy(0.5),
        rows,
        logits,
        RowCosts(ms),
        split=split_rows_for_tuning(rows),
        cost_of="made up",
        demand=demand,
        not_run=not_run,
    )


@pytest.mark.parametrize(
    ("settings", "kind", "pays"),
    [
        ({}, PAYS, True),
        ({"labelled": False}, PAYS, True),
        ({"n": 30}, TOO_FEW_ROWS, False),
        ({"large": 0.11}, LABELS_EXCHANGED, False),
        ({"share": 3.1}, OUT_OF_ORDER, False),
        ({"small": 0.95}, SMALLER_AS_ACCURATE, False),
        ({"share": 0.9}, TOO_CLOSE_IN_COST, False),
        ({"small": 0.55, "sure": False}, SMALL_TOO_WEAK, False),
        ({"small": 0.92, "sure": False}, PAYS_WITH_LOSS, True),
    ],
)
def test_the_verdict_in_a_sentence(settings: dict[str, Any], kind: str, pays: bool):
    found = advice(**settings)
    assert (found.verdict.kind, found.verdict.pays) == (kind, pays), found.verdict.text
    assert found.verdict.text.startswith("Yes" if pays else "No")
    assert "\n" not in found.verdict.text


def test_what_else_is_wrong_is_a_warning_below():
    found = advice(small=0.48, sure=False)
    assert TEMPERATURE_AT_LIMIT in {warning.kind for warning in found.warnings}
    assert "WARNING: The temperature of small is at its limit, 20" in advice_as_text(found)
    assert found.to_json()["warnings"][0]["kind"] == TEMPERATURE_AT_LIMIT
    assert advice(large=0.11).warnings == ()  # the verdict itself


@pytest.mark.parametrize("right", [1.0, 2.0, 3.7, 40.0, 900.0])
def test_the_labels_of_a_plot_do_not_touch(right: float):
    plot = text_plot([(0.1, 0.8, "A"), (right, 0.9, "B")], "accuracy, %", "time")
    labels = plot.splitlines()[-2].split()
    assert len(labels) >= 4
    values = [float(label) for label in labels]
    assert values[0] == 0
    assert np.allclose(np.diff(values), values[1])
    assert values[-1] <= 1.1 * right


def test_too_little_time_is_not_too_few_rows():
    text = advice(n=30, not_run=500).verdict.text
    assert "30 of 530 rows" in text
    assert "--seconds" in text
    assert "give about" in advice(n=30).verdict.text


def test_the_gain_at_equal_accuracy():
    found = advice()
    assert found.equal is not None
    assert found.equal.accuracy >= 0.95 - 1e-9
    # All rows that the small member is right on may end there, and it knows which these are.
    assert found.equal.exits[0] == pytest.approx(0.85, abs=0.03)
    assert found.equal.cost.speedup.value == pytest.approx(1 / (0.25 + 0.15), rel=0.1)
    assert found.equal.behind.low <= 0 <= found.equal.behind.high


def test_the_guarantees_that_the_rows_could_carry():
    found = advice()
    names = [each.name for each in found.points]
    assert names == ["fast", "balanced", "accurate"]
    assert found.left_out == {}
    few = advice(n=200)  # 160 rows are left to test on
    assert [each.name for each in few.points] == ["fast", "balanced"]
    assert set(few.left_out) == {"accurate"}


def test_a_month_of_machines():
    month = month_of(Demand(200, 0.5), 10.0)
    assert month.machines == pytest.approx(2.0)
    assert month.price == pytest.approx(2 * 0.5 * HOURS_A_MONTH)
    assert month_of(Demand(200), 10.0).price is None
    found = advice(demand=Demand(1000, 1.0))
    assert found.months["large alone"].machines == pytest.approx(10.0)
    assert found.months["cascade at equal accuracy"].machines < 5.0


@pytest.mark.parametrize("settings", [{}, {"labelled": False}, {"n": 30}])
def test_text_and_json(settings: dict[str, Any]):
    found = advice(**settings, demand=Demand(10))
    text = advice_as_text(found)
    assert text.startswith(found.verdict.text)
    assert "small alone" in text
    assert max(map(len, text.splitlines()[1:])) < 200
    raw = json.loads(json.dumps(found.to_json()))
    assert raw["verdict"]["kind"] == found.verdict.kind
    assert len(raw["curve"]) <= 24
    assert ("accuracy" in raw["curve"][0]) == found.labelled


def test_a_plot_keeps_its_points_within():
    plot = text_plot([(0.0, 0.8, "A"), (1.0, 0.9, "B"), (3.0, 0.85, "x")], "accuracy, %", "time")
    lines = plot.splitlines()
    assert lines[1].startswith("  90.0 │")
    assert lines[12].startswith("  80.0 │A")
    assert lines[6].rstrip().endswith("x") or lines[7].rstrip().endswith("x")
    assert text_plot([], "y", "x")
