"""A job's result as the output tensors that its caller asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import contract
from .job import Job
from .policy import Policy


class AnswerWriter:
    """Makes response tensors; what does not change from answer to answer is made once."""

    def __init__(self, policy: Policy) -> None:
        self._labels = np.array([label.encode() for label in policy.labels], dtype=np.object_)
        self._policy_id = policy.id.encode()

    def outputs_from_job(self, job: Job, requested: Iterable[str]) -> dict[str, NDArray[Any]]:
        """The requested outputs of an ended job, with shapes (n, …) of the contract.

        Only these are made: encoding labels for a caller who wants probabilities costs time.
        """
        return {name: self._output(name, job) for name in requested}

    def _output(self, name: str, job: Job) -> NDArray[Any]:
        n = len(job.texts)
        if name == contract.PROBABILITIES:
            return job.probabilities
        if name == contract.LABEL:
            return self._labels[job.probabilities.argmax(axis=1)].reshape(n, 1)
        if name == contract.CONFIDENCE:
            return job.confidence.reshape(n, 1)
        if name == contract.EXIT_STAGE:
            return job.exit_stage.reshape(n, 1)
        if name == contract.DEGRADED:
            return job.degraded.reshape(n, 1)
        if name == contract.POLICY:
            return np.full((n, 1), self._policy_id, dtype=np.object_)
        raise KeyError(name)  # Triton refuses outputs that config.pbtxt does not name
