"""Several instances of a cascade behind the real server: answers, limits, counts, log, audits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tritonclient.grpc as triton

import cascadebert_client as client
from cascadebert_build.repository.model_config import (
    CONFIG_FILE,
    config_from_text,
    config_to_text,
)
from cascadebert_build.repository.publish import publish_cascade
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.serve_parameters import LogSettings
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import AsyncCascadeClient, CascadeClient, RetryPolicy
from cascadebert_client._metrics_text import samples_from_text
from cascadebert_core import metric_names as names
from tests.support.counters import MetricsPage
from tests.support.serving import (
    FREE_PORTS,
    Built,
    assert_congruent,
    by_the_async_client,
    one_row_at_concurrency_16,
    requests_of_mixed_sizes,
    stage_files,
)
from tests.support.waiting import wait_until

# Instances of each cascade. One has small queues, and one audits every row.
CASCADES = {"two": 2, "three": 3, "bounded": 3, "audited": 2}
LIMIT = 6
ROWS = 4  # of a request of the flood
NO_RETRY = RetryPolicy(attempts_without_deadline=1)


@dataclass(frozen=True)
class Served:
    """A server with CASCADES, each with stages of its own, and its log."""

    server: TritonServer
    log_path: Path

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def metrics(self) -> MetricsPage:
        return MetricsPage(self.server.ports.metrics)

    def log_lines(self, model: str) -> list[dict[str, Any]]:
        """The lines of the cascades in the log; one that is no JSON fails the test."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith('{"event"')]
        return [line for line in found if line["model"] == model]


@pytest.fixture(scope="module")
def service(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("instances")
    for name, instances in CASCADES.items():
        files = stage_files(built.steps, built.policy)
        limit = LIMIT if name == "bounded" else 4096
        stages = tuple(
            replace(each.stage, model=f"{name}_{i}", max_queued_rows=limit)
            for i, each in enumerate(files)
        )
        audit_rate = 1.0 if name == "audited" else 0.0
        publish_cascade(
            folder / "repository",
            name,
            replace(built.policy, stages=stages, audit_rate=audit_rate),
            [replace(each, stage=stage) for each, stage in zip(files, stages, strict=True)],
            replace(built.steps.config.runtime, cascade_instances=instances),
        )
        # As on a GPU: calls of all lengths share a batch.
        for stage in stages:
            path = folder / "repository" / stage.model / CONFIG_FILE
            config = config_from_text(path.read_text())
            for each in config.input:
                each.allow_ragged_batch = True
            path.write_text(config_to_text(config))
    log_path = folder / "server.log"
    with serve_cascades(
        folder / "repository",
        ports=FREE_PORTS,
        instances={"": 1},
        log_path=log_path,
        log=LogSettings("all"),
    ) as server:
        yield Served(server, log_path)


@pytest.mark.parametrize("name", ["two", "three"])
async def test_answers_are_those_of_the_evaluation_and_each_is_counted_and_logged_once(
    service: Served, built: Built, name: str
) -> None:
    texts, model = built.texts, {"model": name}
    for ask in (requests_of_mixed_sizes, one_row_at_concurrency_16):
        assert_congruent(built, ask(service.url, name, texts, None), None)
    assert_congruent(built, await by_the_async_client(service.url, name, texts, None), None)
    total, rows = service.metrics.total, 3 * len(texts)
    wait_until(lambda: total(names.ROWS, outcome=names.ANSWERED, **model) == rows)
    wait_until(lambda: total(names.EXITED, **model) == rows)
    wait_until(lambda: total(f"{names.LATENCY}_count", **model) == rows)
    wait_until(lambda: total(names.IN_FLIGHT, **model) == total(names.QUEUED, **model) == 0)
    assert total(f"{names.CONFIDENCE}_count", stage="0", **model) == rows
    deferred = total(names.DEFERRED, stage="0", **model)
    assert total(names.EXITED, stage="1", **model) == deferred > 0
    requests = total(names.REQUESTS, outcome=names.ANSWERED, **model)
    wait_until(lambda: len(service.log_lines(name)) == requests)
    lines = service.log_lines(name)
    assert sum(line["rows"] for line in lines) == rows
    # Each instance counts for itself, and several had work.
    samples = [
        sample
        for sample in samples_from_text(service.metrics.text(), names.ROWS)
        if model.items() <= sample.labels.items() and sample.labels["outcome"] == names.ANSWERED
    ]
    assert len({sample.labels["load"] for sample in samples}) == CASCADES[name]
    assert sum(sample.value > 0 for sample in samples) >= 2
    stubs = [stub.model for stub in service.server.stubs()]
    assert stubs.count(name) == CASCADES[name]


def test_status_tells_the_number_of_instances(service: Served) -> None:
    for name, instances in CASCADES.items():
        with CascadeClient(service.url, name) as asking:
            assert asking.status().model.instances == instances


async def flood(url: str, texts: list[str]) -> list[list[client.Classification] | BaseException]:
    """Requests at the same time, of which no row exits early."""
    async with AsyncCascadeClient(url, "bounded", retry=NO_RETRY, channels=4) as asking:
        calls = [asking.classify(texts, threshold=1.0) for _ in range(100)]
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 240)


def test_the_instances_together_keep_the_published_limit(service: Served, built: Built) -> None:
    texts = [str(text) for text in built.texts[:ROWS]]
    most = 0.0
    outcomes: list[list[client.Classification] | BaseException] = []
    refused: list[BaseException] = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(20):  # a machine may be quick enough for one flood
            flooding = pool.submit(lambda: asyncio.run(flood(service.url, texts)))
            while not flooding.done():
                samples = samples_from_text(service.metrics.text(), names.QUEUED)
                for stage in ("0", "1"):
                    most = max(
                        most,
                        sum(
                            sample.value
                            for sample in samples
                            if sample.labels["model"] == "bounded"
                            and sample.labels["stage"] == stage
                        ),
                    )
            outcomes += flooding.result()
            refused = [each for each in outcomes if isinstance(each, BaseException)]
            if refused:
                break
    assert 0 < len(refused) < len(outcomes)
    assert all(isinstance(error, client.ServerUnavailable) for error in refused)
    share = LIMIT // CASCADES["bounded"]
    expected = f"has {share} rows waiting in one of {CASCADES['bounded']} instances"
    assert all(expected in str(error) for error in refused), refused[:3]
    # Each queue takes the rows of a request together, and may exceed its share by one request.
    assert most <= CASCADES["bounded"] * (share - 1 + ROWS)
    unavailable = {"model": "bounded", "kind": "unavailable"}
    wait_until(lambda: service.metrics.total(names.ERRORS, **unavailable) == len(refused))
    wait_until(lambda: service.metrics.total(names.IN_FLIGHT, model="bounded") == 0)


def test_audits_of_all_instances_are_added(service: Served, built: Built) -> None:
    one_row_at_concurrency_16(service.url, "audited", built.texts, None)

    def audited() -> float:
        return sum(service.metrics.total(f, model="audited") for f in names.AUDIT_FAMILIES)

    wait_until(lambda: audited() == len(built.texts), "all rows audited, dropped or failed")
    agreed = service.metrics.total(names.AUDITED, model="audited", result=names.AGREED)
    deferred = service.metrics.total(names.EXITED, model="audited", stage="1")
    assert agreed >= deferred > 0, "the last stage agrees with itself"


def test_a_stage_answers_merged_calls_of_several_lengths_as_it_answers_each_alone(
    service: Served,
) -> None:
    """Calls of 8, 12 and 16 tokens wait for the one instance, and share its next batch."""
    drawn = np.random.default_rng(0)
    calls = [
        drawn.integers(5, 50, (rows, length), dtype=np.int32)
        for rows, length in [(1, 8), (2, 16), (1, 12), (3, 8)] * 8
    ]
    stage = "two_1"

    def logits(asking: triton.InferenceServerClient, ids: np.ndarray) -> np.ndarray:
        inputs: list[triton.InferInput] = []
        response: Any = asking.get_model_config(stage)
        for each in response.config.input:
            value = ids if each.name == "input_ids" else np.ones_like(ids)
            if each.name == "token_type_ids":
                value = np.zeros_like(ids)
            tensor = triton.InferInput(each.name, list(ids.shape), "INT32")
            tensor.set_data_from_numpy(value)
            inputs.append(tensor)
        result: Any = asking.infer(stage, inputs)
        return cast("np.ndarray", result.as_numpy("logits"))

    def executions(asking: triton.InferenceServerClient) -> tuple[int, int]:
        (of,) = cast("Any", asking.get_inference_statistics(stage)).model_stats
        return of.inference_stats.success.count, of.execution_count

    with triton.InferenceServerClient(service.url) as asking:
        alone = [logits(asking, ids) for ids in calls]
        with ThreadPoolExecutor(len(calls)) as pool:
            for _ in range(50):  # until calls have waited side by side
                before = executions(asking)
                together = list(pool.map(lambda ids: logits(asking, ids), calls))
                for one, other in zip(alone, together, strict=True):
                    np.testing.assert_allclose(one, other, atol=1e-4)
                made, batches = np.subtract(executions(asking), before)
                if batches <= made / 4:  # of three lengths in turn: some batch had several
                    break
            else:
                raise AssertionError("no batch had calls of several lengths")


def test_instances_reload_together_without_a_lost_request(service: Served, built: Built) -> None:
    """Last, since the counts of the instances before go with them."""

    def loads() -> set[str]:
        samples = samples_from_text(service.metrics.text(), names.POLICY)
        return {s.labels["load"] for s in samples if s.labels["model"] == "three"}

    before = loads()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(
            lambda: [
                one_row_at_concurrency_16(service.url, "three", built.texts, None) for _ in range(3)
            ]
        )
        service.server.reload("three")
        for answers in asking.result():
            assert_congruent(built, answers, None)
    wait_until(lambda: len(loads()) == CASCADES["three"] and not loads() & before)
    assert_congruent(built, requests_of_mixed_sizes(service.url, "three", built.texts, None), None)
