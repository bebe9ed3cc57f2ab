"""Cascades built from checkpoints and served by the real tritonserver."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.evaluation.evaluate import NEAR, evaluate
from cascadebert_build.pipeline.build import Steps
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import AsyncCascadeClient, CascadeClient, Classification
from cascadebert_core.policy import Policy
from cascadebert_core.tokenization import Text

FREE_PORTS = Ports(0, 0, 0)


@dataclass(frozen=True)
class Built:
    """A published cascade with what the offline evaluator knows of it."""

    steps: Steps
    repository: Path
    policy: Policy

    @property
    def name(self) -> str:
        return self.steps.config.name

    @property
    def texts(self) -> tuple[Text, ...]:
        return self.steps.rows.texts

    def logits(self) -> list[NDArray[np.float32]]:
        return [self.steps.logits(member) for member in self.steps.config.members]


def build(config_path: Path, repository: Path) -> Built:
    """All build steps of a cascade.toml."""
    config = config_from_file(config_path)
    steps = Steps(config, workspace_of(config, config_path.parent / "work" / config.name))
    steps.build(repository)
    return Built(steps, repository, steps.policy())


@contextmanager
def serving(repository: Path, *models: str) -> Generator[TritonServer, None, None]:
    """The repository's cascades on free ports."""
    with serve_cascades(repository, models, ports=FREE_PORTS) as server:
        yield server


# A way of asking for all rows at a threshold (None: the policy's default).
Ask = Callable[[str, str, Sequence[Text], float | None], list[Classification]]


def one_row_at_concurrency_16(
    url: str, model: str, texts: Sequence[Text], threshold: float | None
) -> list[Classification]:
    with CascadeClient(url, model) as client:
        return list(
            client.classify_stream(
                texts,  # pyright: ignore[reportArgumentType] - all of one kind
                rows_per_request=1,
                max_concurrency=16,
                threshold=threshold,
                timeout_s=60,
            )
        )


def requests_of_mixed_sizes(
    url: str, model: str, texts: Sequence[Text], threshold: float | None
) -> list[Classification]:
    sizes = random.Random(0)
    answers: list[Classification] = []
    with CascadeClient(url, model) as client:
        start = 0
        while start < len(texts):
            part = list(texts[start : start + sizes.choice([1, 2, 3, 7, 20, 64, 150])])
            answers += client.classify(part, threshold=threshold, timeout_s=60)  # pyright: ignore[reportArgumentType, reportCallIssue]
            start += len(part)
    return answers


async def by_the_async_client(
    url: str, model: str, texts: Sequence[Text], threshold: float | None
) -> list[Classification]:
    async with AsyncCascadeClient(url, model) as client:
        stream = client.classify_stream(
            texts,  # pyright: ignore[reportArgumentType] - all of one kind
            rows_per_request=5,
            max_concurrency=16,
            threshold=threshold,
            timeout_s=60,
        )
        return [answer async for answer in stream]


def assert_congruent(
    built: Built, answers: Sequence[Classification], threshold: float | None
) -> int:
    """Server and offline evaluation agree on label and exit stage, row by row.

    Rows within 1e-5 of a threshold that they meet are left out: batch and padding change the
    last digits. They must be few.

    Returns:
        How many rows were left out.
    """
    thresholds = built.policy.thresholds
    if threshold is not None:
        thresholds = (threshold,) * len(thresholds)
    _, outcome = evaluate(built.policy, built.steps.rows, built.logits(), thresholds)
    near = outcome.near_threshold(thresholds, NEAR)
    assert near.mean() <= 0.01, f"{near.sum()} rows lie within {NEAR} of {thresholds}"
    assert len(answers) == len(outcome.exit_stage)
    wrong = [
        (i, answer.label, built.policy.labels[outcome.labels[i]], answer.exit_stage, stage)
        for i, (answer, stage) in enumerate(zip(answers, outcome.exit_stage, strict=True))
        if not near[i]
        and (answer.exit_stage != stage or answer.label != built.policy.labels[outcome.labels[i]])
    ]
    assert not wrong, f"{len(wrong)} rows differ, the first: {wrong[0]}"
    served = np.array([answer.probabilities for answer in answers], dtype=np.float32)
    np.testing.assert_allclose(served[~near], outcome.probabilities[~near], atol=1e-4)
    return int(near.sum())


async def check_congruence(url: str, built: Built, thresholds: Sequence[float | None]) -> int:
    """All ways of asking, at all thresholds; how many rows were too near to a threshold."""
    left_out = 0
    for threshold in thresholds:
        for ask in (one_row_at_concurrency_16, requests_of_mixed_sizes):
            answers = ask(url, built.name, built.texts, threshold)
            left_out += assert_congruent(built, answers, threshold)
        answers = await by_the_async_client(url, built.name, built.texts, threshold)
        left_out += assert_congruent(built, answers, threshold)
    return left_out


def check_tie(url: str, built: Built) -> None:
    """A row sent alone with its own confidence as the threshold must defer."""
    with CascadeClient(url, built.name) as client:
        text = built.texts[0]
        alone = client.classify(text, stage=0)
        assert client.classify(text, threshold=alone.confidence).exit_stage > 0
        below = float(np.nextafter(np.float32(alone.confidence), np.float32(0)))
        assert client.classify(text, threshold=below).exit_stage == 0
