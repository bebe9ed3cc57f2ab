"""What each member alone says to every row, and which of them answers at given thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.gate import decide
from cascadebert_core.policy import Policy

from ..evaluation.simulate import logits_in_policy_order, simulate

NO_ANSWER = -1


@dataclass(frozen=True, slots=True)
class MemberAnswers:
    """One member's answers to n rows, whether or not they would come to it.

    Attributes:
        labels: indices into the policy's labels, shape (n,); NO_ANSWER where a logit is not
            finite.
        probability: of that label, at the policy's temperature, shape (n,); NaN likewise.
        confidence: what the gate compares with the threshold, shape (n,); NaN likewise.
    """

    labels: NDArray[np.int64]
    probability: NDArray[np.float32]
    confidence: NDArray[np.float32]


def answers_of_members(
    policy: Policy, logits: Sequence[NDArray[np.float32]]
) -> tuple[MemberAnswers, ...]:
    """All members' answers to all rows.

    Args:
        policy: label order and temperatures; its thresholds do not matter.
        logits: of every stage, shape (n, n_labels) in the checkpoint's own order.
    """
    # Above an infinite threshold is nothing, so every row comes to every stage.
    everywhere = simulate(policy, logits, (np.inf,) * (len(policy.stages) - 1)).stage_confidence
    members: list[MemberAnswers] = []
    for i, stage in enumerate(policy.stages):
        ordered = logits_in_policy_order(policy, i, logits[i])
        probabilities = decide(ordered, stage.temperature, np.float32(np.inf)).probabilities
        labels = np.nan_to_num(probabilities).argmax(axis=1)
        finite = np.isfinite(probabilities).all(axis=1)
        members.append(
            MemberAnswers(
                labels=np.where(finite, labels, NO_ANSWER),
                probability=probabilities.max(axis=1),
                confidence=everywhere[:, i],
            )
        )
    return tuple(members)


def exit_stages(confidences: NDArray[Any], thresholds: Sequence[float]) -> NDArray[np.int64]:
    """The stage that answers each row, shape (n,): the gate, where confidences are known.

    Args:
        confidences: of every stage for every row, shape (n, n_stages); NaN where it has none.
        thresholds: for every stage but the last.

    Returns:
        The first stage whose confidence is strictly above its threshold, the last one for what
        is left, and NO_ANSWER where that has none.
    """
    last = confidences.shape[1] - 1
    stages = np.where(np.isnan(confidences[:, last]), NO_ANSWER, last)
    for stage in reversed(range(last)):
        stages[confidences[:, stage] > np.float32(thresholds[stage])] = stage
    return stages
