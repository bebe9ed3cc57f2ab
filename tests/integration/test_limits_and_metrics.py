"""Limits, degrading, cancellation, metrics, traces and logs, on the real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

import cascadebert_client as client
from cascadebert_build.config.schema import NICENESS
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import AsyncCascadeClient, CascadeClient, RetryPolicy
from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.metric_names import FAMILIES
from cascadebert_core.policy import policy_to_json
from tests.support.checkpoints import TEXTS, save_checkpoint, write_config
from tests.support.counters import MetricsPage
from tests.support.serving import FREE_PORTS, Built, build, publish_as
from tests.support.waiting import settled, wait_until

# Rows that may wait for the second stage: one request of a flood.
LIMIT = 64
# Whether a cascade may degrade. Those of the second pair lose a stage.
CASCADES = {"strict": False, "lenient": True, "broken": False, "patched": True}
NO_RETRY = RetryPolicy(attempts_without_deadline=1)


@dataclass(frozen=True)
class Served:
    """A server with the cascades of CASCADES."""

    server: TritonServer
    log_path: Path

    @property
    def metrics(self) -> MetricsPage:
        return MetricsPage(self.server.ports.metrics)

    def total(self, name: str, **labels: str) -> float:
        return self.metrics.total(name, **labels)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    checkpoints = {
        "small": save_checkpoint(folder / "small", num_hidden_layers=1),
        "large": save_checkpoint(folder / "large", seed=1, num_hidden_layers=8),
    }
    config = write_config(folder, checkpoints, name="deep", rate=0.4)
    built = build(config, folder / "built")
    members = built.steps.config.members
    for name, degrade in CASCADES.items():
        stages = tuple(
            replace(stage, model=f"{name}_{member.name}", max_queued_rows=limit)
            for stage, member, limit in zip(
                built.policy.stages, members, (4096, LIMIT), strict=True
            )
        )
        policy = replace(built.policy, stages=stages, degrade=degrade)
        publish_as(built.steps, folder / "repository", name, policy)
    log_path = folder / "server.log"
    with serve_cascades(folder / "repository", ports=FREE_PORTS, log_path=log_path) as server:
        yield Served(server, log_path)


async def flood(
    url: str, model: str, *, requests: int = 40
) -> list[list[client.Classification] | BaseException]:
    """Requests of 64 rows, at the same time, of which no row exits early.

    Without a deadline: with one, the client would try again until it has passed.
    """
    rows = [TEXTS[i % len(TEXTS)] for i in range(64)]
    async with AsyncCascadeClient(url, model, retry=NO_RETRY, channels=4) as asking:
        calls = [asking.classify(rows, threshold=1.0) for _ in range(requests)]
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 120)


def test_the_system_runs_later_stages_after_the_first(service: Served) -> None:
    niceness = {
        stub.model: os.getpriority(os.PRIO_PROCESS, stub.pid) for stub in service.server.stubs()
    }
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness["strict"] == niceness["strict_small"] == ours
    assert niceness["strict_large"] == min(19, ours + NICENESS)


def test_beyond_the_limit_requests_are_turned_away_and_told_why(service: Served) -> None:
    errors = {"model": "strict", "kind": "unavailable"}
    before = service.metrics.settled("cascadebert_errors_total", **errors)
    outcomes: list[list[client.Classification] | BaseException] = []
    refused: list[BaseException] = []
    for _ in range(20):  # a machine may be quick enough for one flood
        outcomes += asyncio.run(flood(service.server.url, "strict"))
        refused = [o for o in outcomes if isinstance(o, BaseException)]
        if refused:
            break
    assert 0 < len(refused) < len(outcomes)
    assert all(isinstance(error, client.ServerUnavailable) for error in refused)
    assert all(f"has {LIMIT} rows waiting" in str(error) for error in refused)
    for answers in outcomes:
        if isinstance(answers, list):
            assert {(answer.exit_stage, answer.degraded) for answer in answers} == {(1, False)}
    wait_until(lambda: service.total("cascadebert_errors_total", **errors) == before + len(refused))
    wait_until(lambda: service.total("cascadebert_rows_in_flight", model="strict") == 0)
    with CascadeClient(service.server.url, "strict") as asking:
        assert asking.classify(TEXTS[0], threshold=1.0).exit_stage == 1


def test_a_policy_that_allows_it_answers_below_the_threshold_and_says_so(service: Served) -> None:
    stages = Counter[tuple[int, bool]]()
    for _ in range(20):
        for answers in asyncio.run(flood(service.server.url, "lenient")):
            # What the first stage's own queue refuses has no answer so far.
            if isinstance(answers, BaseException):
                assert isinstance(answers, client.ServerUnavailable)
                assert "stage 0" in str(answers)
            else:
                stages.update((answer.exit_stage, answer.degraded) for answer in answers)
        if stages[0, True]:
            break
    assert stages.keys() == {(1, False), (0, True)}
    degraded = stages[0, True]
    wait_until(
        lambda: (
            service.total("cascadebert_degraded_rows_total", model="lenient", reason="overload")
            == degraded
        )
    )
    with CascadeClient(service.server.url, "lenient") as asking:
        alone = asking.classify(TEXTS[0], stage=0)
        assert not alone.degraded


def test_a_cancelled_request_ends_and_is_counted(service: Served) -> None:
    def cancelled() -> float:
        return service.total("cascadebert_errors_total", model="strict", kind="cancelled")

    async def cancel_some() -> None:
        rows = [TEXTS[i % len(TEXTS)] for i in range(64)]
        async with AsyncCascadeClient(service.server.url, "strict", retry=NO_RETRY) as asking:
            calls = [
                asyncio.create_task(asking.classify(rows, threshold=1.0, timeout_s=30))
                for _ in range(6)
            ]
            await asyncio.sleep(0.02)
            for call in calls[1:]:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def try_again() -> bool:
        """Whether one was cancelled while it waited for the second stage."""
        asyncio.run(cancel_some())
        return cancelled() > 0

    wait_until(try_again, "a cancelled request that is counted", timeout_s=100)
    wait_until(lambda: service.total("cascadebert_rows_in_flight", model="strict") == 0)


def test_requests_in_are_answers_and_errors(service: Served) -> None:
    def counted(outcome: str) -> float:
        return service.total("cascadebert_requests_total", model="strict", outcome=outcome)

    wait_until(lambda: service.total("cascadebert_rows_in_flight", model="strict") == 0)
    answered, errors = settled(lambda: (counted("answered"), counted("error")), unchanged_s=1.2)
    with CascadeClient(service.server.url, "strict", retry=NO_RETRY) as asking:
        for text in TEXTS[:20]:
            asking.classify(text)
        for _ in range(3):
            with pytest.raises(client.InvalidRequest):
                asking.classify("x", operating_point="nope")
    wait_until(lambda: counted("answered") == answered + 20 and counted("error") == errors + 3)
    assert service.total("cascadebert_errors_total", model="strict", kind="invalid_argument") >= 3


def test_every_family_is_on_the_endpoint_and_adds_up(service: Served) -> None:
    with CascadeClient(service.server.url, "strict") as asking:
        answers = asking.classify(TEXTS[:20])
        policy = answers[0].policy
    wait_until(lambda: service.total("cascadebert_rows_in_flight", model="strict") == 0)
    service.metrics.settled("cascadebert_exited_rows_total", model="strict")
    text = service.metrics.text()
    for family in FAMILIES:
        # Nothing is audited here, and no point depends on the load.
        if not re.search("audit|guarantee|operating_point", family):
            assert re.search(rf'^{family}{{[^}}]*model="strict"', text, re.MULTILINE), family
    assert service.total("cascadebert_policy_info", model="strict", policy=policy) == 1
    for stage in ("0", "1"):
        labels = {"model": "strict", "stage": stage}
        seen = service.total("cascadebert_confidence_count", **labels)
        buckets = service.total("cascadebert_confidence_bucket", **labels, le="+Inf")
        assert seen == buckets > 0
        exits = service.total("cascadebert_exited_rows_total", **labels)
        assert exits == service.total("cascadebert_latency_seconds_count", **labels) > 0
        assert exits <= service.total("cascadebert_latency_seconds_bucket", **labels, le="+Inf")
        deferred = service.total("cascadebert_deferred_rows_total", **labels)
        if stage == "0":
            assert deferred > 0
            assert seen >= exits + deferred - 1e-9


def test_the_call_of_the_first_stage_is_part_of_its_requests_trace(
    built: Built, tmp_path: Path
) -> None:
    """Later stages are called after `execute`, when the server has let go of the trace."""
    settings = ("mode=triton", "level=TIMESTAMPS", "rate=1", f"triton,file={tmp_path}/trace.json")
    options = tuple(f"--trace-config={setting}" for setting in settings)
    # In the cascade's process the first stage would be no model's call.
    with serve_cascades(
        built.repository, ports=FREE_PORTS, options=options, instances={"tiny_small": 1}
    ) as server:
        with CascadeClient(server.url, "tiny") as asking:
            assert asking.classify(TEXTS[0], threshold=0.0).exit_stage == 0
            # A part of a trace that has ended would crash the server.
            assert asking.classify(TEXTS[0], threshold=1.0).exit_stage == 1
            assert asking.classify(TEXTS[0], stage=1).exit_stage == 1
    spans = _spans(tmp_path / "trace.json")
    models = {span["id"]: span["model_name"] for span in spans}
    parents = [models.get(s.get("parent_id")) for s in spans if s["model_name"] == "tiny_small"]
    assert parents == ["tiny", "tiny"]
    assert sum(model == "tiny" for model in models.values()) == 3


def test_calls_side_by_side_are_part_of_their_requests_trace(built: Built, tmp_path: Path) -> None:
    repository = shutil.copytree(built.repository, tmp_path / "repository")
    # A call costs nothing beside its tokens: all are halved for the second instance.
    free = [replace(stage, call_tokens=0) for stage in built.policy.stages]
    policy = replace(built.policy, stages=tuple(free))
    (repository / "tiny" / "1" / POLICY_FILE).write_text(policy_to_json(policy))
    settings = ("mode=triton", "level=TIMESTAMPS", "rate=1", f"triton,file={tmp_path}/trace.json")
    options = tuple(f"--trace-config={setting}" for setting in settings)
    rows = [TEXTS[i % len(TEXTS)] for i in range(8)]
    with serve_cascades(
        repository, ports=FREE_PORTS, options=options, instances={"tiny_small": 2}
    ) as server:
        with CascadeClient(server.url, "tiny") as asking:
            for _ in range(20):
                assert {answer.exit_stage for answer in asking.classify(rows, threshold=0.0)} == {0}
    spans = _spans(tmp_path / "trace.json")
    parents = [span.get("parent_id") for span in spans if span["model_name"] == "tiny_small"]
    requests = {span["id"] for span in spans if span["model_name"] == "tiny"}
    assert set(parents) == requests
    assert len(requests) == 20
    assert len(parents) >= 2 * len(requests)


def _spans(path: Path) -> list[dict[str, object]]:
    """The spans of a trace file that name their model."""
    text = path.read_text()
    return [json.loads(span) for span in re.findall(r"\{[^{}]*\"model_name\"[^{}]*\}", text)]


def test_failed_requests_are_logged_with_their_id_and_without_their_text(service: Served) -> None:
    with triton.InferenceServerClient(service.server.url) as raw:
        text = triton.InferInput("TEXT", [1, 1], "BYTES")
        text.set_data_from_numpy(np.array([[b"zebra crossing"]], dtype=np.object_))
        with pytest.raises(triton.InferenceServerException, match="unknown operating point"):
            raw.infer(
                "strict", [text], request_id="order-66", parameters={"operating_point": "nope"}
            )

    def lines() -> list[dict[str, object]]:
        log = service.log_path.read_text().splitlines()
        return [json.loads(line) for line in log if line.startswith("{")]

    wait_until(lambda: any(line["request_id"] == "order-66" for line in lines()))
    (line,) = [line for line in lines() if line["request_id"] == "order-66"]
    assert (line["event"], line["kind"]) == ("request_failed", "invalid_argument")
    assert line["model"] == "strict"
    assert "zebra" not in service.log_path.read_text()


def test_a_stage_that_is_gone_is_an_error_or_a_degraded_answer(service: Served) -> None:
    with triton.InferenceServerClient(service.server.url) as raw:
        for name in ("broken", "patched"):
            raw.unload_model(f"{name}_large")
        wait_until(lambda: not raw.is_model_ready("patched_large"))
    with CascadeClient(service.server.url, "broken", retry=NO_RETRY) as asking:
        with pytest.raises(client.ServerUnavailable, match="broken_large"):
            asking.classify(TEXTS[0], threshold=1.0)
        assert asking.classify(TEXTS[0], threshold=0.0).exit_stage == 0
    with CascadeClient(service.server.url, "patched", retry=NO_RETRY) as asking:
        answer = asking.classify(TEXTS[0], threshold=1.0)
        assert (answer.exit_stage, answer.degraded) == (0, True)
        assert answer == replace(asking.classify(TEXTS[0], threshold=0.0), degraded=True)
        # There is nothing to fall back on for a caller who wants the last stage alone.
        with pytest.raises(client.ServerUnavailable, match="patched_large"):
            asking.classify(TEXTS[0], stage=1)
