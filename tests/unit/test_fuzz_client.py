"""Whatever a server sends, the client reads it or refuses it with one error."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadebert_client._audit import counts_from_samples
from cascadebert_client._cost_curve import cost_curve_from_parameters
from cascadebert_client._metrics_text import Sample, samples_from_text
from cascadebert_client._operating_points import guarantees_from_parameters, points_from_parameters
from cascadebert_client.errors import UnexpectedResponse
from cascadebert_core.contract import COST_CURVE, OPERATING_POINTS
from tests.support.fuzzing import ANY_TEXT, json_values, mutated
from tests.support.sizes import sized

EXAMPLES = settings(max_examples=sized(100, 5_000), deadline=None, derandomize=True)

PAGE = """\
# HELP nv_inference_count Number of inferences
# TYPE nv_inference_count counter
nv_inference_count{model="tiny",version="1"} 12
cascadebert_audited_rows_total{model="tiny",policy="p",operating_point="default",result="agreed"} 7
cascadebert_audited_rows_total{model="tiny",operating_point="\\"\\\\",result="disagreed"} 1
cascadebert_audit_errors_total{model="tiny",policy="p",operating_point="default"} +Inf
"""
POINTS: dict[str, Any] = {
    "fast": {
        "default": True,
        "thresholds": [0.9, [0.5, 0.6]],
        "promise": {"kind": "max_disagreement", "limit": 0.05, "confidence": 0.95},
        "exits": [0.7, 0.2, 0.1],
        "speedup": 3.1,
        "speedup_spread": [3.0, 3.3],
        "computations": 0.3,
    },
    "cheap": {"thresholds": [0.1], "budget": {"kind": "max_cost", "limit": [1.5, 2]}},
}


def read_metrics(text: str) -> None:
    try:
        samples = samples_from_text(text)
        counts = counts_from_samples(samples, "tiny")
    except UnexpectedResponse as exc:
        assert 0 < len(str(exc)) < 2000
        return
    for found in counts.values():
        assert found.agreed >= 0
        assert found.disagreed >= 0


@EXAMPLES
@given(st.text(st.characters()))
def test_any_text_is_a_metrics_page_or_refused(text: str) -> None:
    read_metrics(text)


@EXAMPLES
@given(st.data())
def test_a_damaged_metrics_page_is_read_or_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(PAGE)))
    end = data.draw(st.integers(start, min(len(PAGE), start + 30)))
    read_metrics(PAGE[:start] + data.draw(st.text(st.characters(), max_size=15)) + PAGE[end:])


NAME = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,10}", fullmatch=True)
# Names that begin with two underscores are Prometheus's own.
LABEL = st.from_regex(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,10}", fullmatch=True)
# Prometheus ends a line only at \n, so a label may hold all other line breaks of Python.
VALUE = st.text(max_size=12)


@EXAMPLES
@given(
    st.lists(
        st.tuples(NAME, st.dictionaries(LABEL, VALUE, max_size=3), st.floats(allow_nan=False)),
        max_size=4,
    )
)
def test_what_prometheus_may_write_is_read_unchanged(
    written: list[tuple[str, dict[str, str], float]],
) -> None:
    lines: list[str] = []
    for name, labels, value in written:
        escaped = {
            label: text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            for label, text in labels.items()
        }
        inside = ",".join(f'{label}="{text}"' for label, text in escaped.items())
        lines.append(f"{name}{{{inside}}} {value!r}\n")
    assert samples_from_text("".join(lines)) == [Sample(*sample) for sample in written]


def read_points(text: str) -> None:
    """A status shows what it can and never fails. An audit names what it cannot read."""
    for point in points_from_parameters({OPERATING_POINTS: text}):
        assert isinstance(point.name, str)
        assert point.goal is None or len(point.goal) < 10_000
    try:
        guarantees = guarantees_from_parameters({OPERATING_POINTS: text})
    except UnexpectedResponse as exc:
        assert str(exc)
        return
    for guarantee in guarantees.values():
        assert 0 < guarantee.limit < 1
        assert math.isfinite(guarantee.confidence)


@EXAMPLES
@given(st.one_of(st.builds(dict, st.just(POINTS)).flatmap(lambda _: _changed()), json_values()))
def test_changed_operating_points_are_shown_or_left_out(raw: Any) -> None:
    read_points(json.dumps(raw))


CURVE = {
    "quality": "accuracy",
    "n": 100,
    "curve": [[0.2, 0.9], [1.2, 0.95]],
    "last": [1.0, 0.95],
    "points": {"fast": [0.3, 0.93]},
}


@EXAMPLES
@given(st.builds(json.dumps, st.just(CURVE)).map(json.loads).flatmap(mutated))
def test_a_changed_cost_curve_is_shown_or_left_out(raw: Any) -> None:
    found = cost_curve_from_parameters({COST_CURVE: json.dumps(raw)})
    if found is not None:
        pairs = (*found.curve, found.last, *found.points.values())
        assert all(math.isfinite(number) for pair in pairs for number in pair)


def _changed() -> st.SearchStrategy[Any]:
    return mutated(json.loads(json.dumps(POINTS)))


@EXAMPLES
@given(ANY_TEXT)
def test_any_parameter_is_read_or_refused(text: str) -> None:
    read_points(text)


@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 400, "1" * 5000, "1e400", "NaN", "null"])
def test_values_that_some_json_readers_cannot_hold(value: str) -> None:
    read_points(value)
    for point, raw in POINTS.items():
        for key in raw:
            text = json.dumps({**POINTS, point: {**raw, key: "HERE"}})
            read_points(text.replace('"HERE"', value))
            read_points(text.replace('"HERE"', f"[{value}]"))
        for goal in ("promise", "budget"):
            for key in raw.get(goal, ()):
                changed = {**raw, goal: {**raw[goal], key: "HERE"}}
                read_points(json.dumps({point: changed}).replace('"HERE"', value))
