"""Stages in the cascade's own process, behind the real server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cascadebert_build.config.schema import NICENESS
from cascadebert_build.repository.publish import publish_cascade
from cascadebert_build.server.tritonserver import TritonServer
from tests.support.serving import (
    Built,
    assert_congruent,
    one_row_at_concurrency_16,
    requests_of_mixed_sizes,
    serving,
    stage_files,
)

PLACEMENTS = ("inline-first", "inline")


@pytest.fixture(scope="module")
def placed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cascade of `built` once for each placement, with stages of its own."""
    repository = tmp_path_factory.mktemp("inline")
    for placement in PLACEMENTS:
        files = stage_files(built.steps, built.policy)
        stages = [replace(f.stage, model=f"{placement}_{i}") for i, f in enumerate(files)]
        publish_cascade(
            repository,
            placement,
            replace(built.policy, stages=tuple(stages)),
            [replace(f, stage=stage) for f, stage in zip(files, stages, strict=True)],
            replace(built.steps.config.runtime, placement=placement),
        )
    return repository


@pytest.fixture(scope="module")
def server(placed: Path) -> Iterator[TritonServer]:
    with serving(placed) as server:
        yield server


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_answers_are_those_of_the_evaluation(
    server: TritonServer, built: Built, placement: str
) -> None:
    for ask in (requests_of_mixed_sizes, one_row_at_concurrency_16):
        assert_congruent(built, ask(server.url, placement, built.texts, None), None)


def test_threads_of_the_later_stage_are_nicer(server: TritonServer) -> None:
    (pid,) = [stub.pid for stub in server.stubs() if stub.model == "inline"]
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    niceness = [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads]
    assert min(niceness) == ours
    assert max(niceness) == min(19, ours + NICENESS)


def test_the_stages_own_models_have_one_instance_and_answer(server: TritonServer) -> None:
    models = [stub.model for stub in server.stubs()]
    assert models.count("inline_0") == models.count("inline_1") == 1
    assert models.count("inline-first_0") == 1
