"""A request and its rows, on their way through the stages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .route import Route
from .tokenization import EncodedRow, Encoder, Text

_LOGGER = logging.getLogger(__name__)

# Rows of a job: ints of shape (k,), or a slice of rows that follow each other, which is faster.
Indices = NDArray[np.intp] | slice


@dataclass(slots=True)
class Row:
    """One row of a job, with the tokens of the last stage that saw it.

    Attributes:
        job: The job that the row belongs to.
        index: The row's position in the job.
        text: The row's text or pair.
        encoded: The row's tokens; None before the first stage.
        encoder: The encoder that made `encoded`; None before the first stage.
    """

    job: Job
    index: int
    text: Text
    encoded: EncodedRow | None = None
    encoder: Encoder | None = None


@dataclass(slots=True, eq=False)
class Job:
    """A request of n rows: its route, its answers so far, and the callbacks for its end.

    Threads decide rows at the same time: each may call `settle`, `keep_best`, `degrade` or `fail`.
    Exactly one call ends the job.

    Attributes:
        texts: The rows, at least one.
        route: The stages and thresholds of the rows.
        n_labels: The number of labels.
        deadline_s: The deadline on the clock of `time.monotonic`; None if the caller set none.
        request_id: The caller's id of the request; may be empty.
        trace: The request's trace, which the calls of its stages join; None if it has none.
        on_end: Called once by the thread that ends the job. It is None while the thread that made
            the job collects the result itself.
        cancelled: Returns whether the caller has cancelled. It may cost as much as a small call.
        listeners: Each is called once, after `on_end`, on the same thread.
        probabilities: float32 of shape (n, n_labels). Here and in `confidence`, an undecided row
            has its most confident answer so far.
        confidence: float32 of shape (n,).
        exit_stage: int32 of shape (n,), 0-based; -1 for an undecided row.
        degraded: bool of shape (n,), whether a row was answered below its threshold.
        error: Why the job failed, or None.
        began_s: When the job was made, on the clock of `time.monotonic`.
    """

    texts: Sequence[Text]
    route: Route
    n_labels: int
    deadline_s: float | None = None
    request_id: str = ""
    trace: object | None = None
    on_end: Callable[[Job], None] | None = None
    cancelled: Callable[[], bool] | None = None
    listeners: list[Callable[[Job], None]] = field(default_factory=list)
    probabilities: NDArray[np.float32] = field(init=False)
    confidence: NDArray[np.float32] = field(init=False)
    exit_stage: NDArray[np.int32] = field(init=False)
    degraded: NDArray[np.bool_] = field(init=False)
    error: Exception | None = None
    began_s: float = field(default_factory=time.monotonic)
    _seen_stage: NDArray[np.int32] = field(init=False)
    _pending: int = field(init=False)
    _lock: threading.Lock = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n = len(self.texts)
        self.probabilities = np.zeros((n, self.n_labels), dtype=np.float32)
        self.confidence = np.empty(n, dtype=np.float32)
        self.confidence.fill(-1.0)  # below every confidence, so that the first answer is kept
        self.exit_stage = np.empty(n, dtype=np.int32)
        self.exit_stage.fill(-1)
        self.degraded = np.zeros(n, dtype=np.bool_)
        self._seen_stage = self.exit_stage.copy()
        self._pending = n
        self._lock = threading.Lock()

    def rows(self) -> list[Row]:
        """Return the rows in order, not tokenised yet."""
        return [Row(self, index, text) for index, text in enumerate(self.texts)]

    @property
    def ended(self) -> bool:
        """Whether every row is decided, or the job has failed."""
        return self._pending == 0

    def expired(self) -> bool:
        """Return whether the caller's deadline has passed."""
        return self.deadline_s is not None and time.monotonic() > self.deadline_s

    def settle(
        self,
        indices: Indices,
        probabilities: NDArray[np.float32],
        confidence: NDArray[np.float32],
        stage: int,
    ) -> int:
        """Decide rows: they exit at a stage.

        Args:
            indices: k rows of this job. Decided rows keep their answers.
            probabilities: float32 of shape (k, n_labels).
            confidence: float32 of shape (k,).
            stage: The stage, 0-based.

        Returns:
            How many rows were decided; 0 if the job has ended already.
        """
        with self._lock:
            if self._pending == 0:
                return 0
            undecided = self.exit_stage[indices] < 0
            if not undecided.all():
                indices = np.arange(len(self.texts))[indices][undecided]
                probabilities, confidence = probabilities[undecided], confidence[undecided]
            self.probabilities[indices] = probabilities
            self.confidence[indices] = confidence
            self.exit_stage[indices] = stage
            self._pending -= len(confidence)
            ended = self._pending == 0
        if ended:
            self._call_listeners()
        return len(confidence)

    def keep_best(
        self,
        indices: Indices,
        probabilities: NDArray[np.float32],
        confidence: NDArray[np.float32],
        stage: int,
    ) -> None:
        """Keep a stage's answers where they are the best so far; the arguments are `settle`'s."""
        with self._lock:
            if self._pending == 0:
                return
            better = confidence > self.confidence[indices]  # false for NaN
            kept = np.arange(len(self.texts))[indices][better]
            self.probabilities[kept] = probabilities[better]
            self.confidence[kept] = confidence[better]
            self._seen_stage[kept] = stage

    def degrade(self, indices: NDArray[np.intp] | None = None) -> int:
        """Decide rows with their best answers so far.

        Args:
            indices: int of shape (k,), rows of this job; None for all. Decided rows keep their
                answers.

        Returns:
            How many rows were decided; 0 if one of them has no answer yet or the job has ended.
        """
        with self._lock:
            if self._pending == 0:
                return 0
            undecided = self.exit_stage < 0
            if indices is None:
                indices = np.flatnonzero(undecided)
            indices = indices[undecided[indices]]
            if not len(indices) or (self._seen_stage[indices] < 0).any():
                return 0
            self.exit_stage[indices] = self._seen_stage[indices]
            self.degraded[indices] = True
            self._pending -= len(indices)
            ended = self._pending == 0
        if ended:
            self._call_listeners()
        return len(indices)

    def fail(self, error: Exception) -> None:
        """End the job with an error, unless it has ended already."""
        with self._lock:
            if self._pending == 0:
                return
            self._pending = 0
            self.error = error
        self._call_listeners()

    def _call_listeners(self) -> None:
        for listener in (self.on_end, *self.listeners):
            if listener is None:
                continue
            try:
                listener(self)
            except Exception:
                # The thread has rows of other jobs to work on.
                _LOGGER.exception("a request has ended, and its answer could not be sent")


def rows_by_job(rows: Iterable[Row]) -> list[tuple[Job, list[Row]]]:
    """Group rows by job, in the order in which each job first appears."""
    of_job: dict[int, list[Row]] = {}
    for row in rows:
        of_job.setdefault(id(row.job), []).append(row)
    return [(own[0].job, own) for own in of_job.values()]
