"""Which jobs are still worth a call: their deadlines, and callers that have cancelled."""

from __future__ import annotations

import time

from .contract import DEADLINE
from .degradation import Degradation
from .errors import Cancelled, DeadlineExceeded
from .expiry import ExpiryTimer
from .job import Job
from .stage import Stage

# A degraded answer is sent this share of the request's time before the deadline, within these
# bounds, so that it reaches its caller in time.
_MARGIN = 0.1
_MARGIN_S = (0.005, 0.1)

# Cancellation is checked only for requests older than this. The check is a message to the server
# and back, which may cost as much as a row of a small stage.
_CHECK_CANCELLED_AFTER_S = 0.02

_EXPIRED = "request timeout expired before all of its rows were decided"


class Deadlines:
    """Ends jobs whose answer would be too late, or is not wanted any more.

    A job is checked before its rows join a queue and again when they leave it. In between, a timer
    ends it at its deadline, even if a stage hangs.
    """

    def __init__(self, request_timeout_s: float, degradation: Degradation) -> None:
        """Start the timer's thread.

        Args:
            request_timeout_s: The time of a request whose caller sets no deadline.
            degradation: Degrades or fails the rows of late jobs.
        """
        self._request_timeout_s = request_timeout_s
        self._degradation = degradation
        self._timer = ExpiryTimer(self._expire)

    def watch(self, job: Job) -> None:
        """End the job when its time is up; if it may be degraded, a little earlier."""
        due_s = self._deadline_s(job)
        if self._degradation.allowed:
            low, high = _MARGIN_S
            due_s -= min(max(_MARGIN * (due_s - job.began_s), low), high)
        self._timer.watch(job, due_s)

    def stop(self) -> list[Job]:
        """Stop the timer and return the watched jobs that have not ended."""
        return self._timer.stop()

    def end_if_expired(self, job: Job) -> None:
        """End a job that has no answers yet if its deadline has passed."""
        if job.expired():
            job.fail(DeadlineExceeded(_EXPIRED))

    def end_if_late(self, job: Job, stage: Stage, queued_rows: int) -> None:
        """End a job if its deadline has passed, or will have passed before the stage answers.

        Args:
            job: A job with rows for the stage.
            stage: The next stage of these rows.
            queued_rows: Rows that wait for the stage before them.
        """
        if job.deadline_s is None:
            return
        left_s = job.deadline_s - time.monotonic()
        # The first stage is always tried if its queue is empty: slow calls of other rows must not
        # reject a row that it may answer.
        expected_s = stage.latency.expected_s(queued_rows) if stage.index or queued_rows else 0.0
        if left_s <= 0:
            error = DeadlineExceeded(_EXPIRED)
        elif expected_s > left_s:
            error = DeadlineExceeded(
                f"request timeout expired: {stage} would answer in about {expected_s:.3g} s, and "
                f"{left_s:.3g} s are left"
            )
        else:
            return
        self._degradation.drop_or_degrade_job(job, error, DEADLINE)

    def still_wanted(self, job: Job, stage: Stage) -> bool:
        """Return whether a call of the stage can help the job; if not, the job is ended."""
        if job.ended:
            return False
        if (
            job.cancelled is not None
            and time.monotonic() - job.began_s > _CHECK_CANCELLED_AFTER_S
            and job.cancelled()
        ):
            job.fail(Cancelled("the caller cancelled the request"))
        if not job.ended:
            self.end_if_late(job, stage, queued_rows=0)
        return not job.ended

    def _deadline_s(self, job: Job) -> float:
        if job.deadline_s is not None:
            return job.deadline_s
        return job.began_s + self._request_timeout_s

    def _expire(self, job: Job) -> None:
        self._degradation.degrade(job, DEADLINE)
        if job.ended:
            return
        due_s = self._deadline_s(job)
        if due_s > time.monotonic():
            # It cannot be degraded, so it keeps the margin before its deadline.
            self._timer.watch(job, due_s)
        elif job.deadline_s is not None:
            job.fail(DeadlineExceeded(_EXPIRED))
        else:
            job.fail(
                DeadlineExceeded(
                    "request timeout expired: no answer within the policy's request_timeout_s, "
                    f"{self._request_timeout_s:g} s; a stage hangs, or too much was sent at once"
                )
            )
