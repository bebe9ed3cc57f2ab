"""What happens in the cascade, counted until somebody fetches the counts.

A count on Triton's metrics endpoint is a message to the server, which costs as much as a small
call. So threads count here, and one thread passes the sums on; see `metrics_exporter`.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .contract import DEGRADED_BY
from .errors import Cancelled, DeadlineExceeded, InvalidArgument, Unavailable
from .histogram import Histogram
from .job import Job
from .policy import Policy

COUNTER = "counter"
GAUGE = "gauge"

REQUESTS = "cascadebert_requests_total"
ROWS = "cascadebert_rows_total"
ERRORS = "cascadebert_errors_total"
EXITED = "cascadebert_exited_rows_total"
DEFERRED = "cascadebert_deferred_rows_total"
DEGRADED = "cascadebert_degraded_rows_total"
TRUNCATED = "cascadebert_truncated_rows_total"
CONFIDENCE = "cascadebert_confidence"
LATENCY = "cascadebert_latency_seconds"
IN_FLIGHT = "cascadebert_rows_in_flight"
QUEUED = "cascadebert_queued_rows"
POLICY = "cascadebert_policy_info"
AUDITED = "cascadebert_audited_rows_total"
AUDIT_DROPPED = "cascadebert_audit_dropped_rows_total"
AUDIT_ERRORS = "cascadebert_audit_errors_total"

# Kind and description of every family. A histogram has three, as Prometheus writes it: Triton's own
# kind takes one value a call, and a value for every row would cost more than the rows.
FAMILIES: dict[str, tuple[str, str]] = {
    REQUESTS: (COUNTER, "Requests that have ended, by outcome"),
    ROWS: (COUNTER, "Rows of the requests that have ended"),
    ERRORS: (COUNTER, "Requests that ended with an error, by its kind"),
    EXITED: (COUNTER, "Rows answered, by the stage that answered them"),
    DEFERRED: (COUNTER, "Rows that a stage was not sure enough of"),
    DEGRADED: (COUNTER, "Rows answered below the threshold that was asked for"),
    TRUNCATED: (COUNTER, "Rows longer than the maximum length of their first stage"),
    f"{CONFIDENCE}_bucket": (COUNTER, "Rows whose confidence in a stage is at most le"),
    f"{CONFIDENCE}_sum": (COUNTER, "Sum of the confidences of rows in a stage"),
    f"{CONFIDENCE}_count": (COUNTER, "Rows that a stage has seen"),
    f"{LATENCY}_bucket": (COUNTER, "Rows answered within le seconds, by the stage that answered"),
    f"{LATENCY}_sum": (COUNTER, "Sum of seconds from the request to the answer of rows"),
    f"{LATENCY}_count": (COUNTER, "Rows answered, by the stage that answered them"),
    IN_FLIGHT: (GAUGE, "Rows of the requests that have not ended"),
    QUEUED: (GAUGE, "Rows that wait for a stage"),
    POLICY: (GAUGE, "1, with the id of the policy that is served"),
    AUDITED: (
        COUNTER,
        "Rows drawn at random whose answer was, or was not, the last stage's",
    ),
    AUDIT_DROPPED: (
        COUNTER,
        "Rows drawn at random while too many others waited for their audit",
    ),
    AUDIT_ERRORS: (
        COUNTER,
        "Rows drawn at random that the last stage could not be asked about",
    ),
}

CONFIDENCE_BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 1.0)
LATENCY_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip

ANSWERED = "answered"
ERROR = "error"
# Kinds of errors, as the codes that they become.
KINDS = ("invalid_argument", "deadline_exceeded", "cancelled", "unavailable", "internal")


@dataclass(frozen=True, slots=True)
class Series:
    """One line of the metrics endpoint, without the labels that all have.

    Attributes:
        family: a key of `FAMILIES`.
        labels: names and values.
    """

    family: str
    labels: tuple[tuple[str, str], ...] = ()


def series(family: str, **labels: object) -> Series:
    """A series with these labels."""
    return Series(family, tuple((name, str(value)) for name, value in labels.items()))


def kind_of_error(error: Exception) -> str:
    """One of `KINDS`."""
    if isinstance(error, InvalidArgument):
        return "invalid_argument"
    if isinstance(error, DeadlineExceeded):
        return "deadline_exceeded"
    if isinstance(error, Cancelled):
        return "cancelled"
    return "unavailable" if isinstance(error, Unavailable) else "internal"


_REQUESTS = {outcome: series(REQUESTS, outcome=outcome) for outcome in (ANSWERED, ERROR)}
_ROWS = {outcome: series(ROWS, outcome=outcome) for outcome in (ANSWERED, ERROR)}
_ERRORS = {kind: series(ERRORS, kind=kind) for kind in KINDS}


class Metrics:
    """Counts from any thread; an `Observer` of the cascade."""

    def __init__(self, policy: Policy) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[Series, float] = defaultdict(float)
        self._rows_in_flight = 0
        stages = range(len(policy.stages))
        self._exited = [series(EXITED, stage=stage) for stage in stages]
        self._deferred = [series(DEFERRED, stage=stage) for stage in stages]
        self._confidence = [Histogram(CONFIDENCE_BOUNDS) for _ in stages]
        self._latency = [Histogram(LATENCY_BOUNDS) for _ in stages]
        for line in (*self._exited, *self._deferred, *_lines_from_the_start(policy)):
            self._counts[line] = 0  # so that it is there before its first event

    def fetch(self) -> dict[Series, float]:
        """What was counted since the last time; gauges are as they stand."""
        with self._lock:
            counts, self._counts = self._counts, defaultdict(float)
            for family, histograms in ((CONFIDENCE, self._confidence), (LATENCY, self._latency)):
                for stage, histogram in enumerate(histograms):
                    counts.update(_lines_of_histogram(family, stage, histogram))
            return {**counts, series(IN_FLIGHT): self._rows_in_flight}

    def began(self, job: Job) -> None:
        """See `cascade.Observer`."""
        with self._lock:
            self._rows_in_flight += len(job.texts)

    def ended(self, job: Job) -> None:
        """See `cascade.Observer`."""
        rows = len(job.texts)
        outcome = ANSWERED if job.error is None else ERROR
        with self._lock:
            self._rows_in_flight -= rows
            self._counts[_REQUESTS[outcome]] += 1
            self._counts[_ROWS[outcome]] += rows
            if job.error is not None:
                self._counts[_ERRORS[kind_of_error(job.error)]] += 1

    def decided(
        self, stage: int, confidence: NDArray[np.float32], exits: NDArray[np.bool_]
    ) -> None:
        """See `cascade.Observer`."""
        known = confidence[np.isfinite(confidence)]
        with self._lock:
            self._counts[self._deferred[stage]] += len(exits) - int(exits.sum())
            self._confidence[stage].add(known)

    def answered(self, stage: int, seconds: Sequence[float], rows: Sequence[int]) -> None:
        """See `cascade.Observer`."""
        with self._lock:
            self._counts[self._exited[stage]] += sum(rows)
            self._latency[stage].add(seconds, rows)

    def degraded(self, reason: str, rows: int) -> None:
        """See `cascade.Observer`."""
        with self._lock:
            self._counts[series(DEGRADED, reason=reason)] += rows

    def truncated(self, rows: int) -> None:
        """See `cascade.Observer`."""
        with self._lock:
            self._counts[series(TRUNCATED)] += rows

    def audited(self, operating_point: str, agreed: int, disagreed: int) -> None:
        """See `cascade.Observer`."""
        with self._lock:
            for result, rows in (("agreed", agreed), ("disagreed", disagreed)):
                self._counts[_of_audit(AUDITED, operating_point, result=result)] += rows

    def audit_dropped(self, operating_point: str, rows: int) -> None:
        """See `cascade.Observer`."""
        with self._lock:
            self._counts[_of_audit(AUDIT_DROPPED, operating_point)] += rows

    def audit_failed(self, operating_point: str, rows: int) -> None:
        """See `cascade.Observer`."""
        with self._lock:
            self._counts[_of_audit(AUDIT_ERRORS, operating_point)] += rows


def _lines_of_histogram(
    family: str, stage: int, histogram: Histogram
) -> Iterator[tuple[Series, float]]:
    at_most, total = histogram.fetch()
    for bound, rows in zip((*histogram.bounds, "+Inf"), at_most.tolist(), strict=True):
        yield series(f"{family}_bucket", stage=stage, le=bound), rows
    yield series(f"{family}_sum", stage=stage), total
    yield series(f"{family}_count", stage=stage), int(at_most[-1])


def _of_audit(family: str, operating_point: str, **labels: object) -> Series:
    return series(family, operating_point=operating_point, **labels)


def _lines_from_the_start(policy: Policy) -> Iterator[Series]:
    yield from (*_REQUESTS.values(), *_ROWS.values(), *_ERRORS.values())
    yield from (series(DEGRADED, reason=reason) for reason in DEGRADED_BY)
    yield series(TRUNCATED)
    if policy.audit_rate > 0:
        for point in policy.operating_points:
            for result in ("agreed", "disagreed"):
                yield _of_audit(AUDITED, point, result=result)
            yield _of_audit(AUDIT_DROPPED, point)
            yield _of_audit(AUDIT_ERRORS, point)
