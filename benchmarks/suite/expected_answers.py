"""What contenders must answer: each is asked for some rows before it is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.errors import CheckFailed
from cascadebert_build.evaluation.evaluate import NEAR
from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.verification.decisions import MAX_FLIPPED_INT8
from cascadebert_client import CascadeClientError
from cascadebert_core.tokenization import Text

from ..peers.python_cascade import Answer
from .workload import Workload

_ROWS = 100


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected answers to the first n rows of a workload.

    Attributes:
        texts: The rows.
        labels: The name of the label of each row.
        exit_stages: The exit stage of each row, among the contender's own stages, shape (n,).
        near: Whether the exit or label depends on the last bits of a logit, shape (n,).
        allowed: How many of the other rows may differ.
        deferred_share: The share of all rows of the workload that the contender defers.
    """

    texts: Sequence[Text]
    labels: Sequence[str]
    exit_stages: NDArray[np.int32]
    near: NDArray[np.bool_]
    allowed: int
    deferred_share: float

    def require(self, contender: str, answers: Sequence[Answer]) -> None:
        """Compare the answers of a contender.

        Raises:
            CheckFailed: A row has another label or exit. The message has both answers.
        """
        if len(answers) != len(self.texts):
            raise CheckFailed(f"{contender} gave {len(answers)} answers to {len(self.texts)} rows")
        differing = [
            i
            for i, answer in enumerate(answers)
            if not self.near[i]
            and (answer.label, answer.exit_stage) != (self.labels[i], self.exit_stages[i])
        ]
        if len(differing) > self.allowed:
            i = differing[0]
            raise CheckFailed(
                f"{contender} does not answer as the members' logits do, in {len(differing)} of "
                f"{len(answers)} rows: row {i} ({self.texts[i]!r:.80}) is {answers[i].label} at "
                f"stage {answers[i].exit_stage} (confidence {answers[i].confidence:.6f}), and by "
                f"the logits {self.labels[i]} at stage {self.exit_stages[i]}"
            )


def expected_of_cascade(workload: Workload, share: float) -> Expected:
    """Return the answers at the operating point of a share of deferred rows."""
    return _expected(workload, workload.thresholds[share])


def expected_of_member(workload: Workload, member: int) -> Expected:
    """Return the answers of one member alone, 0 or 1."""
    # No confidence is 0 and none is above 1: all rows exit at the first stage, or none does.
    return _expected(workload, float(member), member)


def checked(
    contender: str, expected: Expected, ask: Callable[[Sequence[Text]], Sequence[Answer]]
) -> Callable[[], None]:
    """Return a contender's `check`, which asks it for the rows and compares the answers."""

    def check() -> None:
        try:
            answers = ask(expected.texts)
        except CascadeClientError as exc:
            raise CheckFailed(f"{contender} does not answer: {exc}") from exc
        expected.require(contender, answers)

    return check


def _expected(workload: Workload, threshold: float, first_stage: int = 0) -> Expected:
    n = min(_ROWS, len(workload.corpus.texts))
    policy = workload.policy
    whole = simulate(policy, workload.logits, [threshold])
    outcome = simulate(policy, [values[:n] for values in workload.logits], [threshold])
    highest = np.sort(outcome.probabilities, axis=1)[:, -2:]
    near = highest[:, 1] - highest[:, 0] <= NEAR
    if 0.0 < threshold < 1.0:
        near |= outcome.near_threshold([threshold], NEAR)
    # Reduced precision changes some answers with the rows that share the call.
    exact = not workload.built.steps.is_compiled
    return Expected(
        texts=workload.corpus.texts[:n],
        labels=[policy.labels[i] for i in outcome.labels],
        exit_stages=outcome.exit_stage - first_stage,
        near=near,
        allowed=0 if exact else int(np.ceil(MAX_FLIPPED_INT8 * n)),
        deferred_share=float((whole.exit_stage > first_stage).mean()),
    )
