"""The answers of each member alone, and which member answers at given thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.gate import decide
from cascadebert_core.policy import Policy
from cascadebert_core.task import MULTI_LABEL, answer_keys

from ..evaluation.simulate import logits_in_policy_order, simulate

NO_ANSWER = -1


@dataclass(frozen=True, slots=True)
class MemberAnswers:
    """One member's answers to n rows, as if it saw all of them.

    Attributes:
        labels: The answers' keys, shape (n,): indices into the policy's labels, or keys of label
            sets; see `cascadebert_core.task`. NO_ANSWER if a logit is not finite.
        probability: The probability of that label at the policy's temperature, shape (n,). Of a set
            of labels, that of the decision on its least sure label. NaN without an answer.
        confidence: The value that the gate compares with the threshold, shape (n,). NaN without an
            answer.
        probabilities: Of every label, shape (n, n_labels). NaN without an answer.
    """

    labels: NDArray[Any]
    probability: NDArray[np.float32]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def answers_of_members(
    policy: Policy, logits: Sequence[NDArray[np.float32]]
) -> tuple[MemberAnswers, ...]:
    """Return the answers of all members to all rows.

    Args:
        policy: Gives label order and temperatures; its thresholds are not used.
        logits: The logits of each stage, shape (n, n_labels) in the checkpoint's own order.
    """
    # No confidence is above an infinite threshold, so every row reaches every stage.
    everywhere = simulate(policy, logits, (np.inf,) * (len(policy.stages) - 1)).stage_confidence
    members: list[MemberAnswers] = []
    for i, stage in enumerate(policy.stages):
        ordered = logits_in_policy_order(policy, i, logits[i])
        probabilities = decide(
            ordered, stage.temperature, np.float32(np.inf), stage.signal, policy.task
        ).probabilities
        finite = np.isfinite(probabilities).all(axis=1)
        sets = policy.task == MULTI_LABEL
        members.append(
            MemberAnswers(
                labels=np.where(
                    finite, answer_keys(np.nan_to_num(probabilities), policy.task), NO_ANSWER
                ),
                probability=everywhere[:, i] if sets else probabilities.max(axis=1),
                confidence=everywhere[:, i],
                probabilities=probabilities,
            )
        )
    return tuple(members)


def exit_stages(confidences: NDArray[Any], thresholds: Sequence[float]) -> NDArray[np.int64]:
    """Return the stage that answers each row, shape (n,), from known confidences.

    Args:
        confidences: The confidence of each stage for each row, shape (n, n_stages). NaN if a stage
            has no answer.
        thresholds: One for each stage but the last.

    Returns:
        The first stage whose confidence is strictly above its threshold, else the last one, or
        NO_ANSWER if the last one has no answer.
    """
    last = confidences.shape[1] - 1
    stages = np.where(np.isnan(confidences[:, last]), NO_ANSWER, last)
    for stage in reversed(range(last)):
        stages[confidences[:, stage] > np.float32(thresholds[stage])] = stage
    return stages
