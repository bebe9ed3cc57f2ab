"""Counts of what happens in the cascade, kept until the exporter fetches them.

To change a metric of Triton is a message to the server, which costs as much as a small call. So
threads count here, and one thread sends the sums; see `metrics_exporter`.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import metric_names as names
from .contract import DEGRADED_BY
from .errors import Cancelled, DeadlineExceeded, InvalidArgument, Unavailable
from .histogram import Histogram
from .job import Job
from .policy import Policy


class Series(NamedTuple):
    """One line of the metrics endpoint, without the labels that all lines share.

    A tuple, since it is the key of every count, and hashing a dataclass costs more.

    Attributes:
        family: A key of `metric_names.FAMILIES`.
        labels: Names and values.
    """

    family: str
    labels: tuple[tuple[str, str], ...] = ()


def series(family: str, **labels: object) -> Series:
    """Return the series with these labels."""
    return Series(family, tuple((name, str(value)) for name, value in labels.items()))


def kind_of_error(error: Exception) -> str:
    """Return one of `metric_names.ERROR_KINDS`."""
    if isinstance(error, InvalidArgument):
        return "invalid_argument"
    if isinstance(error, DeadlineExceeded):
        return "deadline_exceeded"
    if isinstance(error, Cancelled):
        return "cancelled"
    return "unavailable" if isinstance(error, Unavailable) else "internal"


_OUTCOMES = (names.ANSWERED, names.ERROR)
_REQUESTS = {outcome: series(names.REQUESTS, outcome=outcome) for outcome in _OUTCOMES}
_ROWS = {outcome: series(names.ROWS, outcome=outcome) for outcome in _OUTCOMES}
_ERRORS = {kind: series(names.ERRORS, kind=kind) for kind in names.ERROR_KINDS}


class Metrics:
    """An `Observer` of the cascade that counts; threads may call it at the same time."""

    def __init__(self, policy: Policy) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[Series, float] = defaultdict(float)
        self._rows_in_flight = 0
        # What every request counts, by outcome and by stage: a number costs less than a series'
        # hash. `fetch` gives them their names.
        self._n_requests = dict.fromkeys(_OUTCOMES, 0)
        self._n_rows = dict.fromkeys(_OUTCOMES, 0)
        self._n_exited = [0] * len(policy.stages)
        self._n_deferred = [0] * len(policy.stages)
        stages = range(len(policy.stages))
        self._exited = [series(names.EXITED, stage=stage) for stage in stages]
        self._deferred = [series(names.DEFERRED, stage=stage) for stage in stages]
        self._confidence = [Histogram(names.CONFIDENCE_BOUNDS) for _ in stages]
        self._latency = [Histogram(names.LATENCY_BOUNDS) for _ in stages]
        self._points: dict[str, float] = {}  # whether each applies, if the load decides it
        if policy.under_load is not None:
            default = policy.default_operating_point
            self._points = {default: 1, policy.under_load.operating_point: 0}
        self._action = policy.on_drift or "alarm"
        self._guarantees: dict[str, float] = {}  # whether each is broken, if audits test it
        for line in (*self._exited, *self._deferred, *_lines_from_the_start(policy)):
            self._counts[line] = 0  # shown before its first event

    def fetch(self) -> dict[Series, float]:
        """Return what was counted since the last fetch, and the gauges' current values."""
        with self._lock:
            counts, self._counts = self._counts, defaultdict(float)
            for outcome in _OUTCOMES:
                counts[_REQUESTS[outcome]] += self._n_requests[outcome]
                counts[_ROWS[outcome]] += self._n_rows[outcome]
                self._n_requests[outcome] = self._n_rows[outcome] = 0
            for lines, numbers in (
                (self._exited, self._n_exited),
                (self._deferred, self._n_deferred),
            ):
                for stage, line in enumerate(lines):
                    counts[line] += numbers[stage]
                    numbers[stage] = 0
            for stage, histogram in enumerate(self._confidence):
                counts.update(_lines_of_histogram(names.CONFIDENCE, stage, histogram))
            for stage, histogram in enumerate(self._latency):
                counts.update(_lines_of_histogram(names.LATENCY, stage, histogram))
            for point, applies in self._points.items():
                counts[series(names.ACTIVE_POINT, operating_point=point)] = applies
            for point, broken in self._guarantees.items():
                line = series(names.BROKEN_GUARANTEE, operating_point=point, action=self._action)
                counts[line] = broken
            return {**counts, series(names.IN_FLIGHT): self._rows_in_flight}

    def began(self, job: Job) -> None:
        """See `observer.Observer`."""
        with self._lock:
            self._rows_in_flight += len(job.texts)

    def ended(self, job: Job) -> None:
        """See `observer.Observer`."""
        rows = len(job.texts)
        outcome = names.ANSWERED if job.error is None else names.ERROR
        with self._lock:
            self._rows_in_flight -= rows
            self._n_requests[outcome] += 1
            self._n_rows[outcome] += rows
            if job.error is not None:
                self._counts[_ERRORS[kind_of_error(job.error)]] += 1

    def decided(
        self, stage: int, confidence: NDArray[np.float32], exits: NDArray[np.bool_]
    ) -> None:
        """See `observer.Observer`."""
        n_deferred = len(exits) - int(np.count_nonzero(exits))
        with self._lock:
            self._n_deferred[stage] += n_deferred
            self._confidence[stage].add(confidence.tolist())

    def answered(self, stage: int, seconds: Sequence[float], rows: Sequence[int]) -> None:
        """See `observer.Observer`."""
        with self._lock:
            self._n_exited[stage] += sum(rows)
            latency = self._latency[stage]
            for one, n in zip(seconds, rows, strict=True):
                latency.add((one,) * n)

    def degraded(self, reason: str, rows: int) -> None:
        """See `observer.Observer`."""
        with self._lock:
            self._counts[series(names.DEGRADED, reason=reason)] += rows

    def truncated(self, rows: int) -> None:
        """See `observer.Observer`."""
        with self._lock:
            self._counts[series(names.TRUNCATED)] += rows

    def switched(self, operating_point: str) -> None:
        """See `observer.Observer`."""
        with self._lock:
            self._points = {point: point == operating_point for point in self._points}
            self._counts[series(names.SWITCHES, operating_point=operating_point)] += 1

    def guarantee(self, operating_point: str, broken: bool) -> None:
        """See `observer.AuditObserver`."""
        with self._lock:
            self._guarantees[operating_point] = broken

    def audited(self, operating_point: str, agreed: int, disagreed: int) -> None:
        """See `observer.Observer`."""
        with self._lock:
            for result, rows in ((names.AGREED, agreed), (names.DISAGREED, disagreed)):
                line = series(names.AUDITED, operating_point=operating_point, result=result)
                self._counts[line] += rows

    def audit_dropped(self, operating_point: str, rows: int) -> None:
        """See `observer.Observer`."""
        with self._lock:
            self._counts[series(names.AUDIT_DROPPED, operating_point=operating_point)] += rows

    def audit_failed(self, operating_point: str, rows: int) -> None:
        """See `observer.Observer`."""
        with self._lock:
            self._counts[series(names.AUDIT_ERRORS, operating_point=operating_point)] += rows


def _lines_of_histogram(
    family: str, stage: int, histogram: Histogram
) -> Iterator[tuple[Series, float]]:
    at_most, total = histogram.fetch()
    for bound, rows in zip((*histogram.bounds, "+Inf"), at_most.tolist(), strict=True):
        yield series(f"{family}_bucket", stage=stage, le=bound), rows
    yield series(f"{family}_sum", stage=stage), total
    yield series(f"{family}_count", stage=stage), int(at_most[-1])


def _lines_from_the_start(policy: Policy) -> Iterator[Series]:
    yield from (*_REQUESTS.values(), *_ROWS.values(), *_ERRORS.values())
    yield from (series(names.DEGRADED, reason=reason) for reason in DEGRADED_BY)
    yield series(names.TRUNCATED)
    if policy.under_load is not None:
        for point in (policy.default_operating_point, policy.under_load.operating_point):
            yield series(names.SWITCHES, operating_point=point)
    if policy.audit_rate > 0:
        for point in policy.operating_points:
            for result in (names.AGREED, names.DISAGREED):
                yield series(names.AUDITED, operating_point=point, result=result)
            yield series(names.AUDIT_DROPPED, operating_point=point)
            yield series(names.AUDIT_ERRORS, operating_point=point)
