"""What is counted, and what reaches the metrics endpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from cascadebert_core.errors import Cancelled, DeadlineExceeded, InvalidArgument, Unavailable
from cascadebert_core.job import Job
from cascadebert_core.metric_names import CONFIDENCE, FAMILIES, LATENCY
from cascadebert_core.metrics import Metrics, series
from cascadebert_core.metrics_exporter import MetricsExporter
from cascadebert_core.route import route_from_thresholds
from tests.support.policies import make_policy

BUCKETS = f"{CONFIDENCE}_bucket"


def make_job(rows: int = 1, error: Exception | None = None) -> Job:
    job = Job(["x"] * rows, route_from_thresholds((0.5,)), n_labels=2)
    if error is not None:
        job.fail(error)
    return job


def test_everything_is_there_before_its_first_event() -> None:
    lines = Metrics(make_policy(0.9)).fetch()
    assert not any(lines.values())
    assert {line.family for line in lines} == {
        family
        for family in FAMILIES
        if not any(part in family for part in ("audit", "queued", "operating_point", "guarantee"))
    } - {"cascadebert_policy_info"}
    audited = Metrics(make_policy(0.9, audit_rate=0.5)).fetch()
    assert {line.family for line in audited} > {line.family for line in lines}


def test_requests_in_are_answers_and_errors() -> None:
    metrics = Metrics(make_policy(0.9))
    jobs = [make_job(3)]
    errors = (InvalidArgument("a"), DeadlineExceeded("b"), Cancelled("c"), KeyError("d"))
    jobs += [make_job(1, error) for error in errors]
    jobs.append(make_job(2, Unavailable("e")))
    for job in jobs:
        metrics.began(job)
    assert metrics.fetch()[series("cascadebert_rows_in_flight")] == 9
    for job in jobs:
        metrics.ended(job)
    lines = metrics.fetch()
    assert lines[series("cascadebert_requests_total", outcome="answered")] == 1
    assert lines[series("cascadebert_rows_total", outcome="answered")] == 3
    assert lines[series("cascadebert_requests_total", outcome="error")] == 5
    kinds = ("invalid_argument", "deadline_exceeded", "cancelled", "unavailable", "internal")
    assert [lines[series("cascadebert_errors_total", kind=kind)] for kind in kinds] == [1] * 5
    assert lines[series("cascadebert_rows_in_flight")] == 0
    assert not any(metrics.fetch().values())


def test_buckets_are_cumulative_and_hold_their_bound() -> None:
    metrics = Metrics(make_policy(0.9))
    metrics.fetch()
    confidence = np.array([0.5, 0.95, 0.96, 1.0, np.nan], dtype=np.float32)
    metrics.decided(0, confidence, np.array([False, True, True, True, False]))
    lines = metrics.fetch()

    def at_most(le: object) -> float:
        return lines.get(series(BUCKETS, stage=0, le=le), 0)

    found = [at_most(le) for le in (0.4, 0.5, 0.9, 0.95, 0.975, 1.0, "+Inf")]
    assert found == [0, 1, 1, 2, 3, 4, 4]
    assert lines[series(f"{CONFIDENCE}_count", stage=0)] == 4
    assert lines[series(f"{CONFIDENCE}_sum", stage=0)] == pytest.approx(3.41, abs=1e-5)
    assert lines[series("cascadebert_deferred_rows_total", stage=0)] == 2
    metrics.answered(1, [0.03, 0.2], [2, 1])
    lines = metrics.fetch()
    found = [lines[series(f"{LATENCY}_bucket", stage=1, le=le)] for le in (0.025, 0.05, "+Inf")]
    assert found == [0, 2, 3]
    assert lines[series(f"{LATENCY}_sum", stage=1)] == pytest.approx(0.26)
    assert lines[series("cascadebert_exited_rows_total", stage=1)] == 3


def test_threads_lose_no_count() -> None:
    metrics = Metrics(make_policy(0.9))
    threads = [
        threading.Thread(target=lambda: [metrics.degraded("fault", 1) for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    total = 0.0
    while any(thread.is_alive() for thread in threads):
        total += metrics.fetch().get(series("cascadebert_degraded_rows_total", reason="fault"), 0)
    total += metrics.fetch().get(series("cascadebert_degraded_rows_total", reason="fault"), 0)
    assert total == 8000


class Metric:
    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.value = 0.0

    def increment(self, by: float) -> None:
        assert by >= 0
        self.value += by

    def set(self, value: float) -> None:
        self.value = value


class Family:
    """Like Triton's `MetricFamily`; it keeps all that were made."""

    COUNTER, GAUGE = "counter", "gauge"
    made: dict[str, Family]

    def __init__(self, name: str, description: str, kind: str) -> None:
        assert description
        assert name not in self.made
        self.made[name] = self
        self.kind = kind
        self.metrics: list[Metric] = []

    def Metric(self, labels: dict[str, str]) -> Metric:  # noqa: N802 - Triton's own name
        assert labels not in [metric.labels for metric in self.metrics]
        self.metrics.append(Metric(labels))
        return self.metrics[-1]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    Family.made = {}
    yield


def test_counts_reach_the_endpoint_with_the_labels_of_their_load() -> None:
    policy = replace(make_policy(0.9), audit_rate=0.5)
    metrics = Metrics(policy)
    metrics_exporter = MetricsExporter(
        Family,
        model="news",
        version="3",
        policy=policy,
        metrics=metrics,
        queued_rows=lambda: [0, 7],
    )
    metrics.truncated(2)
    metrics.audited("default", agreed=3, disagreed=1)
    metrics_exporter.close()
    (truncated,) = Family.made["cascadebert_truncated_rows_total"].metrics
    assert truncated.value == 2
    load = truncated.labels["load"]
    assert truncated.labels == {"model": "news", "version": "3", "load": load}
    queued = Family.made["cascadebert_queued_rows"]
    assert queued.kind == Family.GAUGE
    assert {m.labels["stage"]: m.value for m in queued.metrics} == {"0": 0, "1": 7}
    (info,) = Family.made["cascadebert_policy_info"].metrics
    assert (info.labels["policy"], info.value) == (policy.id, 1)
    audited = Family.made["cascadebert_audited_rows_total"].metrics
    assert {m.labels["result"]: m.value for m in audited} == {"agreed": 3, "disagreed": 1}
    assert {m.labels["policy"] for m in audited} == {policy.id}
    # Two loads of one version share no series.
    again = Family.made
    Family.made = {}
    MetricsExporter(
        Family, model="news", version="3", policy=policy, metrics=metrics, queued_rows=lambda: []
    ).close()
    assert Family.made["cascadebert_rows_in_flight"].metrics[0].labels["load"] != load
    assert again["cascadebert_rows_in_flight"].metrics[0].labels["load"] == load


def test_an_endpoint_that_fails_once_is_tried_again() -> None:
    policy = make_policy(0.9)
    metrics = Metrics(policy)
    metrics_exporter = MetricsExporter(
        Family, model="news", version="1", policy=policy, metrics=metrics, queued_rows=lambda: []
    )
    (truncated,) = Family.made["cascadebert_truncated_rows_total"].metrics
    increment = truncated.increment
    failed = threading.Event()

    def fail(by: float) -> None:
        if by:
            truncated.increment = increment
            failed.set()
            raise RuntimeError("the server is busy")
        increment(by)

    truncated.increment = fail
    metrics.truncated(1)
    assert failed.wait(10)
    metrics.truncated(4)
    metrics_exporter.close()
    assert truncated.value == 5
