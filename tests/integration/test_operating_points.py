"""Operating points: chosen per request, thresholds by label, listed by the server."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_build.tuning.policy import predictions_of_stages
from cascadebert_client import CascadeClient
from cascadebert_client.cli.rendering import status_text
from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.policy import Policy, Threshold, policy_to_json
from cascadebert_core.under_load import UnderLoad
from tests.support.counters import MetricsPage
from tests.support.serving import FREE_PORTS, Built, publish_as
from tests.support.waiting import wait_until


def with_points(built: Built, repository: Path) -> Policy:
    """A copy of the repository whose policy has two points, one with thresholds by label."""
    shutil.copytree(built.repository, repository)
    answers = predictions_of_stages(built.policy, built.logits(), built.steps.rows)
    sure = answers.confidence[:, 0]
    often = int(np.bincount(answers.labels[:, 0]).argmax())
    middle = float(np.median(sure[answers.labels[:, 0] == often]))
    of_labels = (middle, 1.0) if often == 0 else (1.0, middle)
    points: dict[str, tuple[Threshold, ...]] = {"by-label": (of_labels,), "everything": (1.0,)}
    policy = replace(
        built.policy.with_operating_points(points, "everything"),
        certificate={
            "operating_points": {
                "by-label": {
                    "promise": {"kind": "max_disagreement", "limit": 0.02, "confidence": 0.95},
                    "exits": [0.25, 0.75],
                    "speedup": 1.25,
                }
            }
        },
    )
    publish_as(built.steps, repository, built.name, policy)
    assert (repository / built.name / "2" / POLICY_FILE).read_text() == policy_to_json(policy)
    return policy


@pytest.fixture(scope="module")
def repository(built: Built, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Policy]:
    folder = tmp_path_factory.mktemp("points") / "repository"
    return folder, with_points(built, folder)


def test_a_point_is_chosen_per_request_and_may_differ_by_label(
    built: Built, repository: tuple[Path, Policy]
) -> None:
    folder, policy = repository
    texts = [str(text) for text in built.texts]
    with (
        serve_cascades(folder, ports=FREE_PORTS) as server,
        CascadeClient(server.url, built.name) as client,
    ):
        status = client.status()
        default = client.classify(texts)
        by_label = client.classify(texts, operating_point="by-label")
    assert {answer.exit_stage for answer in default} == {1}
    outcome = simulate(policy, built.logits(), policy.operating_points["by-label"])
    near = outcome.near_threshold(policy.operating_points["by-label"], 1e-5)
    assert 0 < (outcome.exit_stage == 0).mean() < 1
    # The label with the threshold 1 never exits at the first stage, whatever its confidence.
    (of_labels,) = policy.operating_points["by-label"]
    assert isinstance(of_labels, tuple)
    assert {of_labels[i] for i in outcome.labels[outcome.exit_stage == 0]} == {min(of_labels)}
    for i, answer in enumerate(by_label):
        if not near[i]:
            assert answer.exit_stage == outcome.exit_stage[i]
            assert answer.label == policy.labels[outcome.labels[i]]
    points = {point.name: point for point in status.model.operating_points}
    assert list(points) == ["by-label", "everything"]
    assert points["everything"].default
    assert points["by-label"].thresholds == policy.operating_points["by-label"]
    assert points["by-label"].deferral == 0.75
    text = status_text(status)
    assert "at most 2% of the inputs, with 95% confidence" in text
    assert "everything (default)" in text


def test_a_server_that_takes_the_published_configuration_lists_them_too(
    built: Built, repository: tuple[Path, Policy]
) -> None:
    """As the containers start it: no load request hands a configuration over."""
    folder, policy = repository
    options = ("--model-config-name=published",)
    with TritonServer(folder, ports=FREE_PORTS, options=options) as server:
        for stage in policy.stages:
            server.load(stage.model)
        server.load(built.name)
        with CascadeClient(server.url, built.name) as client:
            points = client.status().model.operating_points
            assert client.classify("good film", operating_point="by-label").exit_stage in {0, 1}
    assert [point.name for point in points] == ["by-label", "everything"]


def test_above_its_limit_requests_that_chose_nothing_get_the_faster_point(
    built: Built, tmp_path: Path
) -> None:
    folder = tmp_path / "repository"
    shutil.copytree(built.repository, folder)
    confidence = predictions_of_stages(built.policy, built.logits(), built.steps.rows).confidence
    points: dict[str, tuple[Threshold, ...]] = {
        "usual": (1.0,),
        "fast": (float(np.median(confidence)),),
    }
    policy = replace(
        built.policy.with_operating_points(points, "usual"),
        certificate={"operating_points": {"fast": {"exits": [0.5, 0.5]}}},
        # Every latency is above this limit, until calls are too long ago to say anything.
        under_load=UnderLoad("fast", queued_rows=0, latency_s=1e-6, hold_s=0.0),
    )
    publish_as(built.steps, folder, built.name, policy)
    texts = [str(text) for text in built.texts]
    with (
        serve_cascades(folder, ports=FREE_PORTS) as server,
        CascadeClient(server.url, built.name) as client,
    ):
        client.classify(texts[:8], stage=1)
        loaded = client.classify(texts)
        own = client.classify(texts[:2], operating_point="usual")
        number = client.classify(texts[0], threshold=0.5)
        page = MetricsPage(server.ports.metrics)
        # The page shows what was before, until the next export: its counter says that all is over.
        switches = "cascadebert_operating_point_switches_total"
        wait_until(lambda: page.total(switches, operating_point="usual") >= 1)
        after = client.classify(texts[0])
        shown = page.text()
    assert {answer.operating_point for answer in loaded} == {"fast"}
    assert {answer.operating_point for answer in own} == {"usual"}
    assert (number.operating_point, after.operating_point) == (None, "usual")
    assert "cascadebert_operating_point_active{" in shown
    assert not any(answer.degraded for answer in loaded)
    outcome = simulate(policy, built.logits(), points["fast"])
    near = outcome.near_threshold(points["fast"], 1e-5)
    for i, answer in enumerate(loaded):
        assert near[i] or answer.exit_stage == outcome.exit_stage[i]
