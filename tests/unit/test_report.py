"""The evaluation's page: its numbers against the evaluator's, and its HTML against its parser."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascadebert_build.cli import main
from cascadebert_build.config.rows import Rows
from cascadebert_build.errors import UsageError
from cascadebert_build.evaluation.evaluate import evaluate
from cascadebert_build.evaluation.metrics import deferral_curve, expected_calibration_error
from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.report import (
    EarlyExitCurve,
    Material,
    MemberSource,
    Provenance,
    early_exit_from_file,
    material_from_evaluation,
    page_from_material,
)
from cascadebert_build.report.answers import NO_ANSWER, exit_stages
from cascadebert_build.report.curves import cascade_curve, mean_cost, oracle_curve
from cascadebert_build.report.examples import example_at, sure_and_wrong, unlike_the_last
from cascadebert_build.report.html import points
from cascadebert_build.report.provenance import source_name
from cascadebert_build.report.reliability import reliability
from tests.support.policies import make_policy
from tests.support.serving import Built

NASTY = '<script>alert("1")</script> & \'<img src="http://evil.example/x" onerror=alert(1)>'


def make_material(
    *thresholds: float,
    n: int = 300,
    labels: tuple[str, ...] = ("negative", "positive"),
    labelled: bool = True,
    pair: bool = False,
    text: str = "text",
    nan_rows: Sequence[int] = (),
    signal: str = "max_probability",
    used: tuple[float, ...] | None = None,
    early_exit: Sequence[EarlyExitCurve] = (),
) -> Material:
    """A cascade of members that are the better the larger they are, over random rows."""
    rng = np.random.default_rng(0)
    policy = make_policy(*thresholds, labels=labels).with_signal(signal)
    # One member's labels stand the other way round in its logits.
    backwards = tuple(reversed(range(len(labels))))
    policy = replace(
        policy, stages=(*policy.stages[:-1], replace(policy.stages[-1], label_indices=backwards))
    )
    truth = rng.integers(0, len(labels), n)
    logits: list[np.ndarray] = []
    for i, stage in enumerate(policy.stages):
        ordered = rng.normal(size=(n, len(labels))).astype(np.float32) * 1.5
        ordered[np.arange(n), truth] += 1 + i
        ordered[list(nan_rows)] = np.nan
        own = np.empty_like(ordered)
        own[:, list(stage.label_indices)] = ordered
        logits.append(own)
    texts = tuple((f"{text} {i}", f"pair {i}") if pair else f"{text} {i}" for i in range(n))
    rows = Rows(texts, tuple(int(t) for t in truth) if labelled else None, "/home/me/rows.tsv")
    names = ["small", "middle", "large"]
    return material_from_evaluation(
        policy,
        rows,
        logits,
        evaluate(policy, rows, logits, used),
        names=names if len(thresholds) == 2 else names[:: 2 if thresholds else 3],
        costs=[(i + 1) / len(policy.stages) for i in range(len(policy.stages))],
        early_exit=early_exit,
    )


def make_provenance(material: Material, **changes: Any) -> Provenance:
    fields: dict[str, Any] = {
        "cascade": "demo",
        "policy_id": "ab" * 32,
        "method": "on held-out rows",
        "data": "rows.tsv",
        "rows": len(material.texts),
        "data_sha256": "cd" * 32,
        "chosen_on_these_rows": True,
        "runtime": "onnxruntime, fp32, cpu",
        "members": tuple(
            MemberSource(name, f"org/{name}", (("model.onnx", "ef" * 32),), 1000, 1.0)
            for name in material.names
        ),
        "versions": (("Python", "3.11"),),
        "date": "2030-01-02 03:04 UTC",
    }
    return Provenance(**{**fields, **changes})


def page_of(material: Material, **changes: Any) -> str:
    return page_from_material(material, make_provenance(material, **changes))


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its ids, what they point at, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.handlers: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "br", "link", "img"}:
            self._open.append(tag)
        for name, value in attrs:
            self.handlers += [name] if name.startswith("on") else []
            self.ids += [value or ""] if name == "id" else []
            if name in {"src", "href", "xlink:href", "action", "data", "srcset", "poster"}:
                self.links.append((name, value or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data


def assert_stands_alone(html: str) -> Page:
    """Nothing is fetched, nothing is run, and no id stands twice."""
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not page.handlers
    assert all(value.startswith("#") for _, value in page.links)
    assert len(page.ids) == len(set(page.ids))
    targets = [value[1:] for _, value in page.links] + re.findall(r"url\(#([^)]*)\)", html)
    assert targets
    assert set(targets) <= set(page.ids)
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html
    # What is left are names of namespaces, and texts, which are escaped.
    markup = re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)
    assert not re.search(r'=\s*["\']?\s*(https?:)?//', markup)
    assert "default-src 'none'" in html
    return page


@pytest.fixture(scope="module")
def two_stages() -> Material:
    return make_material(0.8)


def test_the_page_stands_alone(two_stages: Material) -> None:
    curves = (EarlyExitCurve("PABEE", (0.3, 0.9), (0.6, 0.8)),)
    page = assert_stands_alone(page_of(replace(two_stages, early_exit=curves)))
    assert page.tags.count("figure") == 6  # two of trade, and two for each of the two members
    assert "PABEE" in page.text
    for word in ("demo: evaluation", "300 rows of rows.tsv", "tuned on these very rows"):
        assert word in page.text


@pytest.mark.parametrize(
    ("kwargs", "thresholds", "figures"),
    [
        ({"labelled": False}, (0.8,), 4),
        ({}, (), 2),
        ({"labelled": False}, (), 1),
        ({"labels": ("a", "b", "c", "d")}, (0.7, 0.6), 8),
        ({"pair": True}, (0.8,), 6),
        ({"nan_rows": (0, 5)}, (0.8,), 6),
        ({"nan_rows": range(300), "labelled": False}, (0.8,), 2),
        ({"n": 1}, (0.8,), 6),
        ({"signal": "margin"}, (0.8,), 6),
        ({"used": (0.0,)}, (0.8,), 6),
        ({"used": (1.0,)}, (0.8,), 6),
    ],
    ids=[
        "no labels", "one member", "one member without labels", "three stages, four labels",
        "pairs", "NaN rows", "nothing but NaN", "one row", "another signal", "nothing deferred",
        "all deferred",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error::RuntimeWarning:cascadebert_build.report")
def test_every_kind_of_cascade_has_a_page(
    kwargs: dict[str, Any], thresholds: tuple[float, ...], figures: int
) -> None:
    page = assert_stands_alone(page_of(make_material(*thresholds, **kwargs)))
    assert page.tags.count("figure") == figures
    assert "nan" not in page.text.lower().split()


def test_what_comes_from_data_is_text() -> None:
    labels = ("<b>bad</b>", "\"good\" 'label'")
    curves = (EarlyExitCurve("<i>$x_1$</i> --> &", (0.3,), (0.6,)),)
    material = make_material(0.8, text=NASTY, labels=labels, pair=True, early_exit=curves)
    page = assert_stands_alone(page_of(material, cascade="c", data=NASTY, method=NASTY))
    assert page.text.count(NASTY) > 10
    assert labels[0] in page.text
    assert labels[1] in page.text
    assert curves[0].name in page.text
    assert "i" not in page.tags


def test_texts_are_cut_and_unprintable_characters_shown() -> None:
    material = make_material(0.8, text="\ud800\x00\x1b" + "long " * 200)
    html = page_of(material)
    html.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f]", html)
    assert "…" in html
    assert "long " * 60 not in html


def test_the_same_material_gives_the_same_page(two_stages: Material) -> None:
    assert page_of(two_stages) == page_of(make_material(0.8))
    later = page_of(two_stages, date="another day")
    assert later.replace("another day", "2030-01-02 03:04 UTC") == page_of(two_stages)


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
    page = Page(page_of(two_stages))
    assert f"{evaluation.cascade_accuracy:.2%}" in page.text


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
            assert curve.cost[at] == pytest.approx(mean_cost(exits, material.costs))
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
    curve = cascade_curve(confidences, rng.random((20_000, 2)) > 0.3, (0.2, 1.0))
    assert 200 < len(curve.threshold) <= 301
    assert (curve.deferral[0], curve.deferral[-1]) == (0, 1)
    assert np.diff(curve.deferral).max() < 0.01


def test_a_row_costs_the_stages_it_ran_through() -> None:
    assert mean_cost(np.array([0, 1, 2, NO_ANSWER]), (0.1, 0.4, 1.0)) == pytest.approx(
        (0.1 + 0.5 + 1.5 + 1.5) / 4
    )


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


def test_rows_without_an_answer_are_wrong_and_shown_as_such() -> None:
    material = make_material(0.8, nan_rows=(7,))
    assert material.exit_stage[7] == NO_ANSWER
    assert not material.right[7].any()
    example = example_at(7, material)
    assert example.answers == (None, None)
    assert "Without an answer" in page_of(material)


def test_thresholds_given_by_hand_are_called_so(two_stages: Material) -> None:
    html = page_of(make_material(0.8, used=(0.6,)))
    assert "Thresholds given by hand (0.6000)" in html
    assert "tuned on these very rows" not in html
    assert "tuned on these very rows" not in page_of(two_stages, chosen_on_these_rows=False)


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


def test_the_command_writes_a_page_without_paths(built: Built, tmp_path: Path) -> None:
    config, page = built.steps.config, tmp_path / "out" / "report.html"
    curves = curves_file(tmp_path, with_point())
    arguments = ["evaluate", str(config.folder), "--all-rows", "--report", str(page)]
    assert main([*arguments, "--early-exit", str(curves)]) == 0
    html = page.read_text(encoding="utf-8")
    parsed = assert_stands_alone(html)
    assert str(tmp_path) not in html
    assert str(config.folder) not in html
    for part in (built.policy.id, built.steps.rows.sha256(), "rows.tsv", "PABEE", "0.500"):
        assert part in parsed.text
    for member in config.members:
        assert built.steps.workspace.manifest(member).onnx_sha256 in parsed.text
    # What the user called the data is what the page calls it.
    given = str(config.folder / "rows.tsv")
    assert main([*arguments, "--data", given, "--threshold", "0.7"]) == 0
    html = page.read_text(encoding="utf-8")
    assert f"100 rows of {given}" in html
    assert "given by hand" in html
