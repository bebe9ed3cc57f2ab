"""Rows that no further stage answers: their best answer so far, or an error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .contract import FAULT
from .errors import CascadeError, InternalError
from .job import Job, Row, rows_by_job
from .observer import Observer


class Degradation:
    """Ends rows that cannot reach their next stage.

    If the policy allows it, a row gets its most confident answer so far and is marked as degraded.
    Otherwise, or if the row has no answer yet, its job fails.
    """

    def __init__(self, allowed: bool, observer: Observer | None) -> None:
        """Remember what is allowed.

        Args:
            allowed: The policy's `degrade`.
            observer: Told of every degraded row.
        """
        self.allowed = allowed
        self._observer = observer

    def degrade(self, job: Job, reason: str) -> None:
        """Degrade all undecided rows of a job, if all of them have an answer."""
        if self.allowed:
            self._tell(reason, job.degrade())

    def drop_or_degrade_job(self, job: Job, error: CascadeError, reason: str) -> None:
        """Degrade all undecided rows of a job, or fail it."""
        self.degrade(job, reason)
        job.fail(error)  # no effect on a job that has ended

    def drop_or_degrade(self, rows: Sequence[Row], error: CascadeError, reason: str) -> None:
        """Degrade rows, or fail their jobs.

        Args:
            rows: Rows that no stage will answer.
            error: What their jobs fail with.
            reason: One of `contract.DEGRADED_BY`.
        """
        for job, own in rows_by_job(rows):
            # If a call failed half way, some of its rows are decided already.
            exit_stage = job.exit_stage
            lost = np.array([r.index for r in own if exit_stage[r.index] < 0], dtype=np.intp)
            if not len(lost):
                continue
            if self.allowed:
                n_degraded = job.degrade(lost)
                self._tell(reason, n_degraded)
                if n_degraded:
                    continue
            job.fail(error)

    def fail(self, rows: Sequence[Row], exc: Exception, where: str) -> None:
        """Degrade rows, or fail their jobs, after an exception.

        Args:
            rows: The rows that were being worked on.
            exc: The exception.
            where: What was being done, for the message.
        """
        if isinstance(exc, CascadeError):
            error = type(exc)(f"{where}: {exc}")
        else:
            error = InternalError(f"{where}: {type(exc).__name__}: {exc}")
        self.drop_or_degrade(rows, error, FAULT)

    def _tell(self, reason: str, rows: int) -> None:
        if rows and self._observer is not None:
            self._observer.degraded(reason, rows)
