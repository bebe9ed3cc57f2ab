"""What the cascade tells an observer, such as its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .job import Job


class AuditObserver(Protocol):
    """Receives the results of audits, on the auditor's thread."""

    def audited(self, operating_point: str, agreed: int, disagreed: int) -> None:
        """Receive how many sampled rows agreed with the last stage, and how many did not."""
        ...

    def audit_dropped(self, operating_point: str, rows: int) -> None:
        """Receive how many sampled rows were not audited because the auditor's queue was full."""
        ...

    def audit_failed(self, operating_point: str, rows: int) -> None:
        """Receive how many sampled rows have no answer, of their own or of the last stage."""
        ...

    def guarantee(self, operating_point: str, broken: bool) -> None:
        """An operating point's guarantee is broken, or an operator has ended that."""
        ...


class Observer(AuditObserver, Protocol):
    """Receives what happens to requests and rows, on any thread."""

    def began(self, job: Job) -> None:
        """A request has arrived; it may have ended already."""
        ...

    def ended(self, job: Job) -> None:
        """A request has its answer or its error."""
        ...

    def decided(
        self, stage: int, confidence: NDArray[np.float32], exits: NDArray[np.bool_]
    ) -> None:
        """A stage has seen n rows: their confidence and whether it answers them, both (n,)."""
        ...

    def answered(self, stage: int, seconds: Sequence[float], rows: Sequence[int]) -> None:
        """A stage has answered rows of n requests: each one's age and number of rows, both (n,)."""
        ...

    def degraded(self, reason: str, rows: int) -> None:
        """Rows were answered below their threshold, for one of `contract.DEGRADED_BY`."""
        ...

    def truncated(self, rows: int) -> None:
        """Rows were longer than what the first stage reads, and were cut."""
        ...

    def switched(self, operating_point: str) -> None:
        """Requests that name no operating point get this one from now on, because of the load."""
        ...
