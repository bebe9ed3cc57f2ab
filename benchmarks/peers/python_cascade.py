"""The cascade in one Python process, by a function call: no server, no queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.checkpoints.checkpoint import hide_weight_bars
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.extras import needs_extra
from cascadebert_build.graphs.session import OnnxSession
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_core.batching import StageBatch
from cascadebert_core.contract import TOKENIZER_FILE, TOKENIZERS_FOLDER
from cascadebert_core.job import Job, Row
from cascadebert_core.policy import Policy
from cascadebert_core.route import Router
from cascadebert_core.stage import RunStage, Stage, stages_of_policy
from cascadebert_core.tokenization import Encoder, Text

ONNXRUNTIME = "onnxruntime"
TORCH = "torch"
RUNTIMES = (ONNXRUNTIME, TORCH)


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
    """

    def __init__(self, policy: Policy, version_folder: Path, run_stage: RunStage) -> None:
        """Load the tokenizers.

        Args:
            policy: The policy of the cascade.
            version_folder: The folder with `tokenizers/`.
            run_stage: See `RunStage`.
        """
        self.policy = policy
        self._route = Router(policy).default
        self._stages = stages_of_policy(policy, version_folder, run_stage, calls_in_flight=1)

    def answers(self, texts: Sequence[Text]) -> list[Answer]:
        """Answer rows, in their order.

        Raises:
            CheckFailed: The last stage's logits for a row are NaN or infinite.
        """
        if not texts:
            return []
        job = self._decided(texts)
        labels = [self.policy.labels[i] for i in job.probabilities.argmax(axis=1)]
        columns = (labels, job.confidence.tolist(), job.exit_stage.tolist())
        return [Answer(*row) for row in zip(*columns, strict=True)]

    def exit_stages(self, texts: Sequence[Text]) -> NDArray[np.int32]:
        """Return the stage that answers each row, shape (n,). For errors see `answers`."""
        return self._decided(texts).exit_stage

    def _decided(self, texts: Sequence[Text]) -> Job:
        job = Job(texts, self._route, len(self.policy.labels))
        rows = job.rows()
        for stage in self._stages:
            rows = self._deferred(stage, rows)
        if rows:
            raise CheckFailed(
                f"{self._stages[-1]} returned NaN or infinite logits for row {rows[0].index}: "
                "export its checkpoint again"
            )
        return job

    def _deferred(self, stage: Stage, rows: list[Row]) -> list[Row]:
        """Run and gate rows at `stage`, and return the rows that it defers."""
        stage.encode(rows)
        threshold = self._route.thresholds[stage.index]
        limits = threshold[None, :] if isinstance(threshold, np.ndarray) else threshold
        deferred: list[Row] = []
        encoded = [row.encoded for row in rows if row.encoded is not None]
        for chunk in stage.plan_calls([len(e) for e in encoded]):
            decision = stage.decide([encoded[i] for i in chunk], limits)
            exits = np.flatnonzero(decision.exits)
            if len(exits):
                rows[0].job.settle(
                    np.array([rows[chunk[i]].index for i in exits]),
                    decision.probabilities[exits],
                    decision.confidence[exits],
                    stage.index,
                )
            deferred += [rows[chunk[i]] for i in np.flatnonzero(~decision.exits)]
        return deferred


def cascade_from_repository(
    repository: Path,
    cascade: str,
    runtime: str = ONNXRUNTIME,
    threads: int = 1,
    checkpoints: Sequence[str] = (),
) -> PythonCascade:
    """Load a published cascade's newest version.

    Args:
        repository: A model repository whose stages are ONNX files.
        cascade: The name of the cascade.
        runtime: One of `RUNTIMES`.
        threads: The threads of the runtime. PyTorch has one number for the whole process.
        checkpoints: For PyTorch, the folder of every stage, small to large.

    Raises:
        UsageError: There is no such cascade or runtime, or not one checkpoint for every stage.
        CheckFailed: A member cannot be loaded.
    """
    published = ModelRepository.read(repository).cascade(cascade)
    policy = published.policy()
    if runtime == ONNXRUNTIME:
        run_stage = _onnx_stages(repository, policy, threads)
    elif runtime == TORCH:
        run_stage = _torch_stages(policy, threads, checkpoints)
    else:
        raise UsageError(f"runtime {runtime!r}: give one of {', '.join(RUNTIMES)}")
    return PythonCascade(policy, published.folder / str(published.newest), run_stage)


def onnx_path(repository: Path, policy: Policy, stage: int) -> Path:
    """Return the ONNX file that a stage is served from."""
    settings = policy.stages[stage]
    return repository / settings.model / str(settings.version) / "model.onnx"


def encoders_of_cascade(repository: Path, cascade: str) -> list[Encoder]:
    """Return the encoder of every stage of a published cascade."""
    published = ModelRepository.read(repository).cascade(cascade)
    folder = published.folder / str(published.newest) / TOKENIZERS_FOLDER
    return [
        Encoder(folder / stage.tokenizer / TOKENIZER_FILE, stage.max_length)
        for stage in published.policy().stages
    ]


def _onnx_stages(repository: Path, policy: Policy, threads: int) -> RunStage:
    sessions = [
        OnnxSession(onnx_path(repository, policy, i), threads) for i in range(len(policy.stages))
    ]
    return lambda stage, batch: sessions[stage].logits(batch)


def _torch_stages(policy: Policy, threads: int, checkpoints: Sequence[str]) -> RunStage:
    if len(checkpoints) != len(policy.stages):
        raise UsageError(
            f"{len(checkpoints)} checkpoints for {len(policy.stages)} stages: PyTorch needs the "
            "folder of each, small to large"
        )
    with needs_extra("build"):
        import torch
        from transformers import AutoModelForSequenceClassification
    torch.set_num_threads(threads)
    hide_weight_bars()
    try:
        models: list[Any] = [
            AutoModelForSequenceClassification.from_pretrained(
                source, dtype=torch.float32, attn_implementation="sdpa"
            ).eval()
            for source in checkpoints
        ]
    except (OSError, ValueError) as exc:
        raise CheckFailed(f"a checkpoint of {list(checkpoints)} cannot be loaded: {exc}") from exc

    def run(stage: int, batch: StageBatch) -> NDArray[np.float32]:
        tensors = {
            name: torch.from_numpy(batch.tensors[name]).long()
            for name in policy.stages[stage].inputs
        }
        with torch.inference_mode():
            return models[stage](**tensors).logits.numpy()

    return run
