"""Several instances of a cascade keep the limits of one."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_build.config.placement import instances_of_cascade
from cascadebert_core.audit import Auditor
from cascadebert_core.batching import StageBatch
from cascadebert_core.errors import Unavailable
from cascadebert_core.job import Job
from cascadebert_core.request_log import RequestLog
from cascadebert_core.route import route_from_thresholds
from cascadebert_core.shares import share_of_calls, share_of_limit
from tests.support.plain_cascade import Bench, Recorder, by_words
from tests.support.policies import make_policy, write_tokenizer


@pytest.mark.parametrize("instances", range(1, 9))
@pytest.mark.parametrize("limit", [8, 10, 64, 1023, 1024])
def test_shares_of_a_limit_are_never_more_than_the_limit_and_use_nearly_all_of_it(
    limit: int, instances: int
) -> None:
    together = instances * share_of_limit(limit, instances)
    assert limit - instances < together <= limit


@pytest.mark.parametrize("instances", range(1, 9))
@pytest.mark.parametrize("calls", [1, 2, 3, 4, 8])
def test_shares_of_calls_use_every_instance_of_a_stage(calls: int, instances: int) -> None:
    share = share_of_calls(calls, instances)
    assert calls <= share * instances < calls + instances
    assert share_of_calls(calls, 1) == calls


def test_an_instance_refuses_rows_beyond_its_share(tmp_path: Path) -> None:
    """The last stage waits until the queue of this one of two instances is full."""
    write_tokenizer(tmp_path)
    policy = make_policy(0.9)
    stages = tuple(replace(stage, max_queued_rows=8) for stage in policy.stages)
    entered, go_on = threading.Event(), threading.Event()

    def waits(stage: int, batch: StageBatch) -> np.ndarray:
        if stage:
            entered.set()
            assert go_on.wait(30)
        return by_words(stage, batch)

    bench = Bench(tmp_path, replace(policy, stages=stages), waits, instances=2)
    ended: list[Job] = []
    running, queued, refused = (bench.job(*["not good"] * n) for n in (1, 4, 1))
    try:
        bench.cascade.begin([running], lambda _: ended.append)
        assert entered.wait(30)
        bench.cascade.begin([queued], lambda _: ended.append)
        bench.cascade.begin([refused], lambda _: ended.append)
        assert isinstance(refused.error, Unavailable)
        assert "has 4 rows waiting in one of 2 instances" in str(refused.error)
        assert not ended
    finally:
        go_on.set()
        bench.cascade.close()
    assert ended == [running, queued]
    assert not running.error
    assert not queued.error


def test_auditors_together_rest_as_long_and_keep_as_many_rows_as_one() -> None:
    def auditor(auditors: int) -> Auditor:
        made = Auditor(
            1.0,
            lambda texts: np.zeros(len(texts), dtype=np.object_),
            observer=Recorder(),
            may_run=lambda: False,
            max_waiting=12,
            auditors=auditors,
        )
        made.stop()
        made.join(30)
        return made

    for auditors in (1, 2, 3):
        made = auditor(auditors)
        share_of_time = auditors / (1 + made._rest)
        assert share_of_time == pytest.approx(0.2)
        assert made._max_waiting * auditors == 12


def test_request_logs_together_write_as_many_lines_as_one() -> None:
    lines: list[str] = []
    options: dict[str, Any] = {"write": lines.append, "clock": lambda: 0.0, "instances": 2}
    for log in [RequestLog("news", "2", **options) for _ in range(2)]:
        for _ in range(25):
            job = Job(["a"], route_from_thresholds((0.5,)), 2)
            job.listeners.append(log.ended)
            job.fail(Unavailable("full"))
    assert len(lines) == 10


def test_a_cascade_has_several_instances_only_before_a_gpu_with_cores_enough() -> None:
    assert [instances_of_cascade(n, gpu=False) for n in (1, 2, 16, 64)] == [1, 1, 1, 1]
    assert [instances_of_cascade(n, gpu=True) for n in (1, 2, 7, 8, 16, 64)] == [1, 1, 1, 2, 4, 8]
