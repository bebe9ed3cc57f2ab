"""The cascade in one Python process, by a function call: no server, no queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cascadebert_build.errors import CheckFailed
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_core.contract import (
    INLINE_ALL,
    INLINE_THREADS,
    TOKENIZER_FILE,
    TOKENIZERS_FOLDER,
)
from cascadebert_core.inline import InlineStages
from cascadebert_core.job import Job
from cascadebert_core.policy import Policy
from cascadebert_core.route import Router
from cascadebert_core.stage import RunStage, stages_of_policy
from cascadebert_core.tokenization import Encoder, Text

from ..tools.blocking.together import take_through


@dataclass(frozen=True, slots=True)
class Answer:
    """The cascade's answer to one row.

    Attributes:
        label: One of the policy's labels.
        confidence: The confidence of the stage that answered, 0 to 1.
        exit_stage: That stage, 0-based.
    """

    label: str
    confidence: float
    exit_stage: int


class PythonCascade:
    """A policy's stages, run one after the other at its default operating point.

    Tokens, batches and gate are the served ones (`cascadebert_core`), so the decisions are too.

    Attributes:
        policy: The policy of the cascade.
        stages: Its stages, small to large.
    """

    def __init__(self, policy: Policy, version_folder: Path, run_stage: RunStage) -> None:
        """Load the tokenizers, which are in `tokenizers/` of the version's folder."""
        self.policy = policy
        self._route = Router(policy).default
        self.stages = stages_of_policy(policy, version_folder, run_stage, calls_in_flight=1)

    def answers(self, texts: Sequence[Text]) -> list[Answer]:
        """Answer rows, in their order.

        Raises:
            CheckFailed: The last stage's logits for a row are NaN or infinite.
        """
        if not texts:
            return []
        job = Job(texts, self._route, len(self.policy.labels))
        undecided = take_through(self.stages, self._route.thresholds, job.rows())
        if undecided:
            raise CheckFailed(
                f"{self.stages[-1]} returned NaN or infinite logits for row {undecided[0].index}: "
                "export its checkpoint again"
            )
        labels = [self.policy.labels[i] for i in job.probabilities.argmax(axis=1)]
        columns = (labels, job.confidence.tolist(), job.exit_stage.tolist())
        return [Answer(*row) for row in zip(*columns, strict=True)]


def cascade_from_repository(repository: Path, cascade: str, threads: int = 1) -> PythonCascade:
    """Load a published cascade's newest version, with the sessions that its stages have.

    Raises:
        UsageError: There is no such cascade.
        PolicyError: A session cannot be opened.
    """
    published = ModelRepository.read(repository).cascade(cascade)
    policy = published.policy()
    sessions = InlineStages(policy, repository, INLINE_ALL, {INLINE_THREADS: str(threads)})
    return PythonCascade(policy, published.folder / str(published.newest), sessions.logits)


def onnx_paths(repository: Path, policy: Policy) -> list[Path]:
    """Return the ONNX file that each stage is served from."""
    return [repository / of.model / str(of.version) / "model.onnx" for of in policy.stages]


def encoders_of_cascade(repository: Path, cascade: str) -> list[Encoder]:
    """Return the encoder of every stage of a published cascade."""
    published = ModelRepository.read(repository).cascade(cascade)
    folder = published.folder / str(published.newest) / TOKENIZERS_FOLDER
    return [
        Encoder(folder / stage.tokenizer / TOKENIZER_FILE, stage.max_length)
        for stage in published.policy().stages
    ]
