"""The numbers of an evaluation's page, against the evaluator's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascadebert_build.cli import main
from cascadebert_build.errors import UsageError
from cascadebert_build.evaluation.metrics import deferral_curve, expected_calibration_error
from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.report import (
    EarlyExitCurve,
    Material,
    early_exit_from_file,
)
from cascadebert_build.report.answers import NO_ANSWER, exit_stages
from cascadebert_build.report.curves import cascade_curve, mean_cost, oracle_curve
from cascadebert_build.report.examples import example_at, sure_and_wrong, unlike_the_last
from cascadebert_build.report.html import points
from cascadebert_build.report.provenance import source_name
from cascadebert_build.report.reliability import reliability
from tests.support.material import make_material
from tests.support.policies import make_policy


@pytest.fixture(scope="module")
def two_stages() -> Material:
    return make_material(0.8)


def test_figures_are_those_of_the_evaluator(two_stages: Material) -> None:
    evaluation = two_stages.evaluation
    assert two_stages.accuracy == evaluation.cascade_accuracy
    assert two_stages.right.mean(axis=0).tolist() == pytest.approx(evaluation.member_accuracy)
    assert two_stages.deferral == evaluation.deferral_rate
    assert two_stages.cost == pytest.approx(0.5 + evaluation.deferral_rate)
    assert len(unlike_the_last(two_stages.members, two_stages.exit_stage)) == pytest.approx(
        evaluation.disagreement * 300
    )
    assert two_stages.gain.value == pytest.approx(
        two_stages.accuracy - two_stages.right[:, 1].mean()
    )


def test_the_assessment_has_every_operating_point_and_the_same_costs(two_stages: Material) -> None:
    found = two_stages.assessment
    assert found is not None
    (point,) = found.points
    assert point.cost.share.value == pytest.approx(two_stages.cost)
    assert point.disagreement.value == pytest.approx(two_stages.evaluation.disagreement)
    assert point.promise is None  # its certificate guarantees nothing
    assert [member.accuracy for member in found.members] == pytest.approx(
        two_stages.evaluation.member_accuracy
    )
    # 0.5 of the time and every deferred row the whole of it, 5% less or more in the repeats.
    costs_more = two_stages.cost > 1
    assert [v.kind for v in found.verdicts if v.subject == point.name] == (
        ["costs_more"] if costs_more else []
    )
    assert json.loads(json.dumps(found.to_json()))["operating_points"].keys() == {point.name}
    given = make_material(0.8, used=(0.0,)).assessment
    assert given is not None
    assert [each.name for each in given.points] == [point.name, "given thresholds"]
    assert given.points[1].exits == (1.0, 0.0)


def test_a_difference_of_nothing_has_an_interval_that_is_not_empty() -> None:
    gain = make_material(0.8, used=(1.0,)).gain  # all rows deferred: every answer is the last's
    assert gain.value == 0
    assert -0.03 < gain.low < 0 < gain.high < 0.03


def test_bins_are_those_of_the_calibration_error(two_stages: Material) -> None:
    assert two_stages.evaluation.metrics is not None
    for i, member in enumerate(two_stages.members):
        right = two_stages.right[:, i]
        bins = reliability(member.probability, right)
        gaps = bins.rows * np.abs(bins.confidence - bins.accuracy)
        error = gaps.sum() / bins.rows.sum()
        assert error == pytest.approx(expected_calibration_error(member.probability, right))
        assert error == pytest.approx(two_stages.evaluation.metrics[i].ece.value, abs=1e-6)
        assert (bins.low <= bins.accuracy).all()
        assert (bins.accuracy <= bins.high).all()
        assert 0 <= bins.low.min() <= bins.high.max() <= 1


CONFIDENCES = st.lists(
    st.tuples(*[st.sampled_from([0.5, 0.6, 0.7, 0.8, 1.0, float("nan")])] * 3),
    min_size=1, max_size=30,
)  # fmt: skip


@given(CONFIDENCES, st.tuples(*[st.sampled_from([0.0, 0.6, 0.65, 0.8, 1.0])] * 2))
def test_exits_are_the_gates(
    rows: list[tuple[float, float, float]], thresholds: tuple[float, float]
) -> None:
    confidences = np.array(rows, dtype=np.float32)
    with np.errstate(divide="ignore"):
        margins = np.log(confidences / (1 - confidences))
    margins[np.isinf(margins)] = 100
    logits = [np.stack([margin / 2, -margin / 2], axis=1) for margin in margins.T]
    outcome = simulate(make_policy(*thresholds), logits)
    everywhere = simulate(make_policy(*thresholds), logits, (np.inf, np.inf)).stage_confidence
    assert exit_stages(everywhere, thresholds).tolist() == outcome.exit_stage.tolist()


def test_the_curve_is_the_cascade_at_each_threshold() -> None:
    for material in (make_material(0.8, n=120), make_material(0.7, 0.6, n=120, nan_rows=(3,))):
        curve = material.curve
        assert curve.deferral[-1] == 1
        assert curve.cost[-1] == pytest.approx(sum(material.costs))
        assert (np.diff(curve.deferral) >= 0).all()
        assert (np.diff(curve.cost) >= 0).all()
        stages = len(material.names)
        for at in (0, len(curve.threshold) // 2, -1):
            thresholds = (float(curve.threshold[at]),) * (stages - 1)
            exits = exit_stages(material.confidences, thresholds)
            assert curve.deferral[at] == (exits != 0).mean()
            assert curve.cost[at] == pytest.approx(mean_cost(exits, material.times))
    assert make_material(0.8, n=50).curve.deferral[0] == 0


def test_the_curve_of_two_stages_is_that_of_the_metrics(two_stages: Material) -> None:
    first, last = two_stages.right.T
    expected = deferral_curve(two_stages.confidences[:, 0], first, last)
    curve = two_stages.curve
    places = {
        round(float(d), 9): a for d, a in zip(expected.deferral, expected.accuracy, strict=True)
    }
    for deferral, accuracy in zip(curve.deferral, curve.accuracy, strict=True):
        assert accuracy == pytest.approx(places[round(float(deferral), 9)])


def test_a_long_curve_has_few_points() -> None:
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.5, 1, (20_000, 2))
    curve = cascade_curve(
        confidences, rng.random((20_000, 2)) > 0.3, np.tile([0.2, 1.0], (20_000, 1))
    )
    assert 200 < len(curve.threshold) <= 301
    assert (curve.deferral[0], curve.deferral[-1]) == (0, 1)
    assert np.diff(curve.deferral).max() < 0.01


def test_a_row_costs_the_stages_it_ran_through() -> None:
    assert mean_cost(
        np.array([0, 1, 2, NO_ANSWER]), np.tile([0.1, 0.4, 1.0], (4, 1))
    ) == pytest.approx((0.1 + 0.5 + 1.5 + 1.5) / 4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_no_gate_is_better_than_the_oracle(rows: list[tuple[bool, bool]]) -> None:
    first, last = np.array(rows).T
    rates, best = oracle_curve(first, last)
    assert (rates[0], rates[-1]) == (0, 1)
    assert sorted(rates) == pytest.approx(list(rates))
    assert (best[0], best[-1]) == pytest.approx((first.mean(), last.mean()))
    curve = deferral_curve(np.arange(len(first)), first, last)
    assert (curve.accuracy <= np.interp(curve.deferral, rates, best) + 1e-9).all()


def test_examples_are_the_surest_first(two_stages: Material) -> None:
    assert two_stages.truth is not None
    members, exits = two_stages.members, two_stages.exit_stage
    found = sure_and_wrong(members, exits, two_stages.truth)
    assert len(found) > 3
    assert (exits[found] == 0).all()
    assert (members[0].labels[found] != two_stages.truth[found]).all()
    assert (np.diff(members[0].confidence[found]) <= 0).all()
    first = example_at(int(found[0]), two_stages)
    assert first.text == two_stages.texts[found[0]]
    assert first.row == found[0] + 1
    assert first.answers[0] is not None
    assert first.answers[0][0] != first.label
    other = unlike_the_last(members, exits)
    assert (exits[other] == 0).all()
    assert (members[0].labels[other] != members[1].labels[other]).all()


def test_differences_are_signed() -> None:
    assert [points(value) for value in (0.0123, -0.0123, -0.0001)] == ["+1.2", "−1.2", "0.0"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/home/me/glue/dev.tsv", "dev.tsv"),
        ("C:\\data\\dev.tsv", "dev.tsv"),
        ("~/sst2-small", "sst2-small"),
        ("/", "?"),
        ("nyu-mll/glue (validation)", "nyu-mll/glue (validation)"),
        ("checkpoints/small", "checkpoints/small"),
    ],
)
def test_absolute_paths_are_left_out(source: str, name: str) -> None:
    assert source_name(source) == name


def curves_file(folder: Path, value: Any) -> Path:
    path = folder / "curves.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def with_point(**point: Any) -> dict[str, Any]:
    return {"curves": [{"name": "PABEE", "points": [{"cost": 0.3, "accuracy": 0.8, **point}]}]}


def test_early_exit_curves_are_read_by_ascending_cost(tmp_path: Path) -> None:
    points_ = [{"cost": 0.9, "accuracy": 0.9}, {"cost": 0.33, "accuracy": 1}]
    path = curves_file(tmp_path, {"curves": [{"name": "PABEE", "points": points_}]})
    assert early_exit_from_file(path) == (EarlyExitCurve("PABEE", (0.33, 0.9), (1.0, 0.9)),)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "is not JSON"),
        ([], r"the top level is \[\]: give an object with curves"),
        ({}, "the top level has no key 'curves'"),
        ({"curves": []}, r"curves is \[\]: give a list of one or more"),
        ({"curves": [3]}, r"curves\[0\] is 3: give an object"),
        ({"curves": [{"name": "x"}]}, r"curves\[0\] has no key 'points'"),
        ({"curves": [{"name": "", "points": [1]}]}, r"curves\[0\]\.name is ''"),
        ({"curves": [{"name": "a\nb", "points": [1]}]}, r"curves\[0\]\.name is 'a\\nb'"),
        ({"curves": [{"name": "x", "points": "y"}]}, r"curves\[0\]\.points is 'y'"),
        (with_point(accuracy=81), r"points\[0\]\.accuracy is 81: .* not a percentage"),
        (with_point(cost=0), r"curves\[0\]\.points\[0\]\.cost is 0: give a number above 0"),
        (with_point(cost="1"), r"points\[0\]\.cost is '1': give a finite number"),
        (with_point(cost=True), r"points\[0\]\.cost is True"),
        (with_point(speed=2), r"unknown key 'speed' in curves\[0\]\.points\[0\]"),
        ('{"curves": [{"name": "x", "points": [{"cost": NaN, "accuracy": 1}]}]}', "cost is nan"),
    ],
)
def test_bad_curves_are_named_with_key_and_value(tmp_path: Path, value: Any, message: str) -> None:
    path = curves_file(tmp_path, value)
    with pytest.raises(UsageError, match=message) as error:
        early_exit_from_file(path)
    assert str(error.value).startswith(f"--early-exit: {path}")


def test_absent_curves_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--early-exit: .*absent\.json does not exist"):
        early_exit_from_file(tmp_path / "absent.json")


def test_accuracies_of_early_exits_need_labels() -> None:
    curves = (EarlyExitCurve("PABEE", (0.3,), (0.6,)),)
    with pytest.raises(UsageError, match="no labels"):
        make_material(0.8, labelled=False, early_exit=curves)


def test_the_command_needs_a_page_for_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path), "--early-exit", "curves.json"]) == 2
    assert "give --report OUT.html too" in capsys.readouterr().err
