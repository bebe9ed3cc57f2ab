"""Prometheus' configuration, the alert rules and the Grafana dashboard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cascadebert_core.metric_names import AUDIT_FAMILIES, FAMILIES, PREFIX
from tests.compose.conftest import ROOT
from tests.compose.service import Service

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
# Triton has these only on a machine with a GPU.
GPU_METRICS = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"}
_METRIC = re.compile(r"\b(?:nv|cascadebert)_[a-z_]*[a-z]\b")

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="there is no promtool (Debian: prometheus)"
)


def promtool(*arguments: str) -> None:
    ended = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def panels() -> list[dict[str, Any]]:
    return [
        panel
        for path in sorted(DASHBOARDS.glob("*.json"))
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
    ]


def dashboard_queries() -> list[str]:
    """The queries as Grafana sends them with "All" chosen."""
    return [
        target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
        for panel in panels()
        for target in panel["targets"]
    ]


def metrics_of_rules() -> list[str]:
    # The names of recorded series have a colon behind "cascadebert".
    return _METRIC.findall((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))


def test_rules_dashboard_and_documentation_name_the_metrics_of_the_core() -> None:
    used = {*metrics_of_rules(), *_METRIC.findall(" ".join(dashboard_queries()))}
    ours = {name for name in used if name.startswith(PREFIX)}
    assert ours
    assert ours <= set(FAMILIES)
    documented = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for name in FAMILIES:
        series = re.sub("_(bucket|sum|count)$", "", name)
        assert series in documented or name in AUDIT_FAMILIES, name


@needs_promtool
def test_the_configuration_is_valid() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "alerts.yml")


def test_the_gateway_is_scraped_if_it_runs() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    job = next(each for each in jobs["scrape_configs"] if each["job_name"] == "cascadebert-gateway")
    (found,) = job["dns_sd_configs"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    (name,) = found["names"]
    (port,) = services[name]["ports"]
    assert port.endswith(f":{found['port']}")


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_each_alert_has_a_test_in_which_it_fires() -> None:
    rules = (PROMETHEUS / "alerts.yml").read_text(encoding="utf-8")
    tests = (PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert len(alerts) == 13
    for alert in alerts:
        assert re.search(rf"alertname: {alert}\s+exp_alerts:", tests), alert


def test_each_alert_has_its_paragraph_in_the_runbook() -> None:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    paragraphs = dict(re.findall(r"^### (\w+)\n\n((?:.+\n)+)", text, re.MULTILINE))
    assert set(paragraphs) == {rule["alert"] for rule in alerts}
    for rule in alerts:
        name = rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        for part in ("**Means:** ", "**Look at:** ", "**Do:** "):
            assert part in paragraphs[name], name


@needs_promtool
def test_the_queries_of_the_dashboard_parse(tmp_path: Path) -> None:
    queries = dashboard_queries()
    assert len(queries) >= 15
    rules = [{"record": f"panel:query:{i}", "expr": expr} for i, expr in enumerate(queries)]
    path = tmp_path / "queries.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(path))


def test_panels_are_whole_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "prometheus"
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    provisioned = ROOT / "deploy" / "grafana" / "provisioning"
    source = (provisioned / "datasources" / "prometheus.yml").read_text(encoding="utf-8")
    assert "uid: prometheus" in source
    assert "url: http://prometheus:9090" in source


@pytest.fixture(scope="module")
def prometheus(service: Service) -> Iterator[Service]:
    """Debian's Prometheus in the compose project, with some scrapes behind it."""
    service.compose("up", "-d", "--no-build", "--no-deps", "prometheus")
    deadline_s = time.monotonic() + 180
    while time.monotonic() < deadline_s:
        try:
            # Recorded only after two scrapes, from which a rate can be told.
            if query(service, "cascadebert:deferral:ratio5m"):
                break
        except OSError:
            pass
        time.sleep(1)
    yield service


def query(service: Service, expression: str) -> list[Any]:
    answer = api(service, f"query?{urllib.parse.urlencode({'query': expression})}")
    return answer["result"]


def api(service: Service, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(service.url("PROMETHEUS", f"/api/v1/{path}"), timeout=30) as reply:
        answer = json.load(reply)
    assert answer["status"] == "success"
    return answer["data"]


@pytest.mark.compose
@pytest.mark.timeout(900)
def test_prometheus_scrapes_the_service(prometheus: Service) -> None:
    (target,) = api(prometheus, "targets")["activeTargets"]
    assert target["health"] == "up", target["lastError"]
    assert target["labels"] == {"instance": "triton:8002", "job": "cascadebert"}


@pytest.mark.compose
@pytest.mark.timeout(900)
def test_the_rules_evaluate_on_the_live_server(prometheus: Service) -> None:
    rules = [rule for group in api(prometheus, "rules")["groups"] for rule in group["rules"]]
    assert len(rules) == 20
    for rule in rules:
        assert rule["health"] != "err", rule
        query(prometheus, rule["query"])
    for name in ("deferral:ratio5m", "rows:rate5m", "request_seconds:mean5m"):
        assert query(prometheus, f"cascadebert:{name}"), name


@pytest.mark.compose
@pytest.mark.timeout(900)
def test_rules_and_dashboard_name_metrics_that_the_server_has(prometheus: Service) -> None:
    with urllib.request.urlopen(prometheus.url("METRICS", "/metrics"), timeout=30) as reply:
        served = set(re.findall(r"^# TYPE (\w+)", reply.read().decode(), re.MULTILINE))
    used = {
        name
        for text in (*dashboard_queries(), *metrics_of_rules())
        for name in _METRIC.findall(text)
    }
    assert used - served == GPU_METRICS
    for expression in dashboard_queries():
        assert query(prometheus, expression) or set(_METRIC.findall(expression)) & (
            GPU_METRICS | {"nv_inference_request_failure"}
        ), expression
