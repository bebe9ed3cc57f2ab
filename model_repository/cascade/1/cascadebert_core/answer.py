"""A job's result as response tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import contract
from .job import Answers, Job
from .policy import Policy
from .task import MULTI_LABEL, label_sets, text_of_answer

# Rows for which the output POLICY is made once.
_USUAL_ROWS = 64


class AnswerWriter:
    """Makes response tensors; label names and the policy's id are encoded once."""

    def __init__(self, policy: Policy) -> None:
        self._names = policy.labels
        self._of = policy
        self._task = policy.task
        self._labels = np.array([label.encode() for label in policy.labels], dtype=np.object_)
        self._policy_id = policy.id.encode()
        self._policy = self._policies(_USUAL_ROWS)

    def outputs_from_job(self, job: Job, requested: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return the requested outputs of an ended job, by name, with shapes (n, …).

        Other outputs are not made, because encoding labels takes time. TIMELINE is made if the job
        has one.
        """
        answers, n = job.answers, len(job.texts)
        outputs = {
            name: _decided_by(job)
            if name == contract.DECIDED_BY
            else self._output(name, answers, n)
            for name in requested
            if name != contract.TIMELINE
        }
        if job.timeline is not None:
            texts = np.empty((n, 1), dtype=np.object_)
            texts[:, 0] = job.timeline.texts(job.began_s, job.route, self._of)
            outputs[contract.TIMELINE] = texts
        return outputs

    def _output(self, name: str, answers: Answers, n: int) -> NDArray[Any]:
        if name == contract.PROBABILITIES:
            return answers.probabilities
        if name == contract.LABEL:
            return self._label(answers.probabilities).reshape(n, 1)
        if name == contract.CONFIDENCE:
            return answers.confidence.reshape(n, 1)
        if name == contract.EXIT_STAGE:
            return answers.exit_stage.reshape(n, 1)
        if name == contract.DEGRADED:
            return answers.degraded.reshape(n, 1)
        if name == contract.POLICY:
            return self._policy[:n] if n <= len(self._policy) else self._policies(n)
        raise KeyError(name)  # Triton refuses outputs that config.pbtxt does not name

    def _policies(self, n: int) -> NDArray[Any]:
        return np.full((n, 1), self._policy_id, dtype=np.object_)

    def _label(self, probabilities: NDArray[np.float32]) -> NDArray[Any]:
        """Return the output LABEL, bytes of shape (n,)."""
        if self._task != MULTI_LABEL:
            return self._labels[probabilities.argmax(axis=1)]
        texts = np.empty(len(probabilities), dtype=np.object_)
        texts[:] = [
            text_of_answer([self._names[i] for i in np.flatnonzero(row)], self._task).encode()
            for row in label_sets(probabilities)
        ]
        return texts


def _decided_by(job: Job) -> NDArray[Any]:
    point = job.route.operating_point or ""
    return np.full((len(job.texts), 1), point.encode(), dtype=np.object_)
