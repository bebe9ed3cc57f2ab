"""A scripted half hour in a real Prometheus: the dashboard's queries, and which alerts fire."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.half_hour.pictures import draw
from benchmarks.half_hour.prometheus import (
    Prometheus,
    firing,
    missing,
    panels,
    prometheus_with,
    promtool,
    query_of,
    rules,
    rules_test,
    written_out,
)
from benchmarks.half_hour.scenario import BEFORE, STEP_S, Series, length_s, phases, samples

pytestmark = pytest.mark.skipif(
    missing() is not None, reason="there is no Prometheus (Debian: prometheus)"
)
# Where each alert has to begin. A rejected request is a failed one, too.
EXPECTED = {
    "CascadeQueues": "burst",
    "CascadeSlow": "burst",
    "CascadeTurnsAway": "burst",
    "CascadeRequestsFail": "burst",
    "CascadeDefersMuch": "broken promise",
    "CascadeBreaksItsPromise": "broken promise",
}


@pytest.fixture(scope="module")
def played() -> Mapping[Series, Sequence[float]]:
    return samples()


@pytest.fixture(scope="module")
def prometheus(
    played: Mapping[Series, Sequence[float]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    with prometheus_with(played, tmp_path_factory.mktemp("prometheus")) as running:
        yield running


def phase_at(second: int) -> str:
    return [phase.name for start_s, phase in phases() if start_s <= second][-1]


def test_the_alerts_that_should_fire_do_and_no_others(prometheus: Prometheus) -> None:
    found = firing(prometheus)
    assert {alert: phase_at(seconds[0]) for alert, seconds in found.items()} == EXPECTED
    # After the burst all is well again until the drift lasts; then a stage dies.
    ends = {alert: phase_at(seconds[-1]) for alert, seconds in found.items()}
    assert ends.pop("CascadeRequestsFail") == "large stage dead"
    # It never goes back by itself, though the texts are calm again.
    assert found["CascadeBreaksItsPromise"][-1] == length_s()
    assert set(ends.values()) <= {"calm again", "drift", "large stage dead"}
    quiet = {at for seconds in found.values() for at in seconds}
    assert not [at for at in quiet if phase_at(at) in ("calm", "load")]


def test_prometheus_own_rules_fire_at_the_same_minutes(
    prometheus: Prometheus, played: Mapping[Series, Sequence[float]], tmp_path: Path
) -> None:
    """`firing` computes the `for` of a rule; promtool evaluates the rules themselves.

    Minutes beside a change are not compared: the samples of the one are aligned to the clock, those
    of the other to the start.
    """
    found = firing(prometheus)

    def alerts(at: int) -> list[str]:
        return [alert for alert, seconds in found.items() if at in seconds]

    test = rules_test(played)
    test["tests"][0]["promql_expr_test"] = [
        {
            "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": f"{BEFORE.minutes + at // 60}m",
            "exp_samples": [
                {"labels": json.dumps({"alertname": alert}).replace('"alertname":', "alertname="),
                 "value": 1}
                for alert in alerts(at)
            ],
        }
        for at in range(0, length_s() + 1, 60)
        if alerts(at - 60) == alerts(at) == alerts(at + 60)
    ]  # fmt: skip
    assert len(test["tests"][0]["promql_expr_test"]) > length_s() // 120
    (tmp_path / "test.yml").write_text(json.dumps(test))  # JSON is YAML
    promtool("test", "rules", "test.yml", folder=tmp_path)


def test_every_panel_shows_figures_of_the_script(prometheus: Prometheus) -> None:
    for panel in panels():
        for target in panel["targets"]:
            found = prometheus.query_range(query_of(target))
            if "nv_gpu" in target["expr"]:
                assert not found, "the real run was on a CPU"
                continue
            finite = [v for _, values in found for v in values.values() if math.isfinite(v)]
            assert finite, (panel["title"], target["expr"])
            assert min(finite) >= 0


def test_the_panels_say_what_happened(prometheus: Prometheus) -> None:
    by_title = {panel["title"]: panel for panel in panels() if panel["type"] == "timeseries"}
    middles = {
        phase.name: start_s + 30 * phase.minutes // STEP_S * STEP_S for start_s, phase in phases()
    }

    def value(title: str, phase: str, **labels: str) -> float:
        for found, values in prometheus.query_range(query_of(by_title[title]["targets"][0])):
            if labels.items() <= found.items():
                return values[middles[phase]]
        raise AssertionError((title, labels))

    rows = "Rows a second, by the stage that answered"
    assert value(rows, "burst", stage="0") == pytest.approx(200 * 0.92 * 0.775, rel=0.01)
    assert value(rows, "large stage dead", stage="1") == 0
    assert value("Deferral rate", "broken promise") == pytest.approx(0.75, abs=0.01)
    assert value("Mean queue time", "burst", model="demo") == pytest.approx(0.6, rel=0.01)
    assert value("Errors a second, by kind", "burst", kind="unavailable") == pytest.approx(16)
    assert value("Errors a second, by kind", "large stage dead", kind="internal") > 4
    slow = "Time from request to answer, by the stage that answered"
    assert value(slow, "burst", stage="0") > 20 * value(slow, "calm again", stage="0")


def test_every_rule_has_figures(prometheus: Prometheus) -> None:
    recorded, alerts = rules()
    for expression in recorded.values():
        assert prometheus.query_range(written_out(expression, recorded)), expression
    assert len(alerts) >= 12


def test_it_can_be_drawn(prometheus: Prometheus, tmp_path: Path) -> None:
    draw(prometheus, tmp_path / "half-hour.png")
    assert 10_000 < (tmp_path / "half-hour.png").stat().st_size < 300_000
