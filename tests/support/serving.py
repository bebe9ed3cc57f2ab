"""Cascades built from checkpoints and served by the real tritonserver."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.evaluation.evaluate import NEAR
from cascadebert_build.evaluation.simulate import Outcome, simulate
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import workspace_of
from cascadebert_build.repository.publish import StageFiles, publish_cascade
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import AsyncCascadeClient, CascadeClient, Classification
from cascadebert_core.policy import Policy
from cascadebert_core.task import CUT_OFF, MULTI_LABEL, names_of_answer, text_of_answer
from cascadebert_core.tokenization import Text

# A threshold of a request, or one for each stage that may defer; None: the policy's own.
Asked = float | tuple[float, ...] | None

FREE_PORTS = Ports(0, 0, 0)


@dataclass(frozen=True)
class Built:
    """A published cascade with what the offline evaluator knows of it."""

    steps: CascadeBuild
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


def build(config_path: Path, repository: Path, *, quick: bool = False) -> Built:
    """All build steps of a cascade.toml, with the exports that the test run shares.

    Args:
        config_path: The cascade.toml.
        repository: Where it is published.
        quick: As `build --quick`.
    """
    from .exports import export_members

    config = config_from_file(config_path)
    workspace = workspace_of(config, config_path.parent / "work" / config.name)
    steps = CascadeBuild(config, workspace, quick=quick)
    export_members(steps)
    steps.build(repository)
    return Built(steps, repository, steps.policy())


def stage_files(steps: CascadeBuild, policy: Policy) -> list[StageFiles]:
    """Return the files of a build's members, as the stages of `policy`."""
    artefacts = zip(policy.stages, steps.artefacts(), strict=True)
    return [artefact.stage_files(stage) for stage, artefact in artefacts]


def publish_as(steps: CascadeBuild, repository: Path, name: str, policy: Policy) -> int:
    """Publish a build's members with another policy or name; return the version."""
    files = stage_files(steps, policy)
    return publish_cascade(repository, name, policy, files, steps.config.runtime).version


@contextmanager
def serving(repository: Path, *models: str) -> Generator[TritonServer, None, None]:
    """The repository's cascades on free ports."""
    with serve_cascades(repository, models, ports=FREE_PORTS) as server:
        yield server


def one_row_at_concurrency_16(
    url: str, model: str, texts: Sequence[Text], threshold: Asked
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
    url: str, model: str, texts: Sequence[Text], threshold: Asked
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
    url: str, model: str, texts: Sequence[Text], threshold: Asked
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


def labels_of(policy: Policy, outcome: Outcome) -> list[str]:
    """The output LABEL of every row, by the offline evaluation."""
    return [
        text_of_answer(names_of_answer(key, policy.labels, policy.task), policy.task)
        for key in outcome.labels
    ]


def assert_congruent(
    built: Built,
    answers: Sequence[Classification],
    threshold: Asked,
    rows: NDArray[np.intp] | None = None,
) -> int:
    """Check that server and offline evaluation agree on label and exit stage, row by row.

    Rows within 1e-5 of a threshold that they meet are left out: batch and padding change the
    last digits. There must be few of them.

    Args:
        built: The cascade.
        answers: The server's answers to `rows`.
        threshold: What was asked for: a threshold, or one for each stage that may defer; None for
            the policy's own.
        rows: Indices of the held-out rows; None for all.

    Returns:
        The number of rows that were left out.
    """
    thresholds = built.policy.thresholds
    if threshold is not None:
        each = isinstance(threshold, tuple)
        thresholds = threshold if each else (threshold,) * len(thresholds)
    outcome = simulate(built.policy, built.logits(), thresholds)
    near = outcome.near_threshold(thresholds, NEAR)
    if built.policy.task == MULTI_LABEL:  # the last digits decide whether a label is in a set
        near |= (np.abs(outcome.probabilities - CUT_OFF) <= NEAR).any(axis=1)
    assert near.mean() <= 0.01, f"{near.sum()} rows lie within {NEAR} of {thresholds}"
    if rows is None:
        rows = np.arange(len(near))
    assert len(answers) == len(rows)
    clear = [(int(row), answer) for row, answer in zip(rows, answers, strict=True) if not near[row]]
    labels = labels_of(built.policy, outcome)
    wrong = [
        (row, answer.label, labels[row], answer.exit_stage, int(outcome.exit_stage[row]))
        for row, answer in clear
        if (answer.label, answer.exit_stage) != (labels[row], outcome.exit_stage[row])
    ]
    assert not wrong, f"{len(wrong)} rows differ, the first: {wrong[0]}"
    served = np.array([answer.probabilities for _, answer in clear], dtype=np.float32)
    expected = outcome.probabilities[[row for row, _ in clear]]
    np.testing.assert_allclose(served, expected, atol=1e-4)
    return len(rows) - len(clear)


async def check_congruence(
    url: str, built: Built, thresholds: Sequence[Asked], sample: int | None = None
) -> int:
    """Ask for the rows in all ways, at all thresholds, and check every answer.

    Args:
        url: The server's gRPC endpoint.
        built: The cascade.
        thresholds: See `assert_congruent`.
        sample: The number of rows that are asked for in more than one way and at more than the
            first threshold; None for all.

    Returns:
        The number of rows that were left out because they are too near to a threshold.
    """
    texts = built.texts
    chosen = np.arange(len(texts))
    if sample is not None:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, sample, replace=False))
    some = [texts[row] for row in chosen]
    left_out = 0
    for number, threshold in enumerate(thresholds):
        rows = chosen if number else np.arange(len(texts))
        mixed = [texts[row] for row in rows]
        answers = requests_of_mixed_sizes(url, built.name, mixed, threshold)
        left_out += assert_congruent(built, answers, threshold, rows)
        answers = one_row_at_concurrency_16(url, built.name, some, threshold)
        left_out += assert_congruent(built, answers, threshold, chosen)
        answers = await by_the_async_client(url, built.name, some, threshold)
        left_out += assert_congruent(built, answers, threshold, chosen)
    return left_out


def check_tie(url: str, built: Built) -> None:
    """A row sent alone with its own confidence as the threshold must defer."""
    with CascadeClient(url, built.name) as client:
        text = built.texts[0]
        alone = client.classify(text, stage=0)
        assert client.classify(text, threshold=alone.confidence).exit_stage > 0
        below = float(np.nextafter(np.float32(alone.confidence), np.float32(0)))
        assert client.classify(text, threshold=below).exit_stage == 0
