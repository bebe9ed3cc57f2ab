"""Runs the cascade on stored logits, with the gate that serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.gate import decide
from cascadebert_core.policy import Policy, Threshold
from cascadebert_core.route import route_from_thresholds
from cascadebert_core.task import SINGLE_LABEL, answer_keys


@dataclass(frozen=True, slots=True)
class Outcome:
    """The cascade's answers for n rows.

    Attributes:
        probabilities: Float32 of shape (n, n_labels), in the policy's label order.
        confidence: Float32 of shape (n,), of the stage that answered.
        exit_stage: Int of shape (n,); -1 for rows that no stage could answer (NaN logits).
        stage_confidence: Float32 of shape (n, n_stages); NaN if a row did not reach the stage.
        task: The policy's: whether an answer is one label or a set.
    """

    probabilities: NDArray[np.float32]
    confidence: NDArray[np.float32]
    exit_stage: NDArray[np.int32]
    stage_confidence: NDArray[np.float32]
    task: str = SINGLE_LABEL

    @property
    def labels(self) -> NDArray[Any]:
        """The answers' keys, shape (n,): indices into the policy's labels, or keys of label sets.

        See `cascadebert_core.task`.
        """
        return answer_keys(self.probabilities, self.task)

    def exits_per_stage(self) -> list[int]:
        """Rows that each stage answered."""
        n_stages = self.stage_confidence.shape[1]
        return [int((self.exit_stage == stage).sum()) for stage in range(n_stages)]

    @property
    def deferral_rate(self) -> float:
        """Share of rows that the first stage did not answer."""
        return float((self.exit_stage != 0).mean())

    def near_threshold(self, thresholds: Sequence[Threshold], distance: float) -> NDArray[np.bool_]:
        """Whether a confidence of a row is within `distance` of its stage's threshold, shape (n,).

        If thresholds differ by label, each of them counts.
        """
        near = np.zeros(len(self.exit_stage), dtype=bool)
        for i, threshold in enumerate(thresholds):
            limits = np.atleast_1d(np.array(threshold, dtype=np.float32))
            gaps = np.abs(self.stage_confidence[:, i, None] - limits)
            near |= (gaps <= distance).any(axis=1)  # false for NaN
        return near


def simulate(
    policy: Policy,
    logits: Sequence[NDArray[np.float32]],
    thresholds: Sequence[Threshold] | None = None,
) -> Outcome:
    """Send rows through all stages.

    Args:
        policy: Gives stages, temperatures and label order.
        logits: Of every stage, each of shape (n, n_labels) in the checkpoint's own order.
        thresholds: For every stage but the last; None: the policy's default ones.
    """
    route = route_from_thresholds(tuple(policy.thresholds if thresholds is None else thresholds))
    n = len(logits[0])
    outcome = Outcome(
        probabilities=np.zeros((n, len(policy.labels)), dtype=np.float32),
        confidence=np.zeros(n, dtype=np.float32),
        exit_stage=np.full(n, -1, dtype=np.int32),
        stage_confidence=np.full((n, len(policy.stages)), np.nan, dtype=np.float32),
        task=policy.task,
    )
    reaching = np.arange(n)
    for index, stage in enumerate(policy.stages):
        ordered = logits_in_policy_order(policy, index, logits[index])[reaching]
        threshold = route.thresholds[index]
        limits = threshold[None, :] if isinstance(threshold, np.ndarray) else threshold
        decision = decide(ordered, stage.temperature, limits, stage.signal, policy.task)
        outcome.stage_confidence[reaching, index] = decision.confidence
        exited = reaching[decision.exits]
        outcome.probabilities[exited] = decision.probabilities[decision.exits]
        outcome.confidence[exited] = decision.confidence[decision.exits]
        outcome.exit_stage[exited] = index
        reaching = reaching[~decision.exits]
    return outcome


def logits_in_policy_order(
    policy: Policy, stage: int, logits: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A stage's logits of shape (n, n_labels), columns in the order of the policy's labels."""
    return logits[:, list(policy.stages[stage].label_indices)]
