"""A request and its rows, on their way through the stages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .route import Route
from .timeline import Timeline
from .tokenization import EncodedRow, Encoder, Text

_LOGGER = logging.getLogger(__name__)

# Rows of a job: ints of shape (k,), or a slice of rows that follow each other, which is faster.
Indices = NDArray[np.intp] | slice

# Columns of answers whose rows are all answered by one stage, above their threshold. Jobs share
# them, since making two arrays costs more than a look at them.
_SHARED_ROWS = 64


@dataclass(slots=True, eq=False)
class Answers:
    """The answers of n rows, as columns.

    Attributes:
        probabilities: float32 of shape (n, n_labels).
        confidence: float32 of shape (n,).
        exit_stage: int32 of shape (n,), 0-based; -1 for an undecided row.
        degraded: bool of shape (n,), whether a row was answered below its threshold.
    """

    probabilities: NDArray[np.float32]
    confidence: NDArray[np.float32]
    exit_stage: NDArray[np.int32]
    degraded: NDArray[np.bool_]


def _none_yet(n: int, n_labels: int) -> Answers:
    confidence = np.empty(n, dtype=np.float32)
    confidence.fill(-1.0)  # below every confidence, so that the first answer is kept
    exit_stage = np.empty(n, dtype=np.int32)
    exit_stage.fill(-1)
    probabilities = np.zeros((n, n_labels), dtype=np.float32)
    return Answers(probabilities, confidence, exit_stage, np.zeros(n, dtype=np.bool_))


@lru_cache(maxsize=64)
def _shared_columns(stage: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return `exit_stage` and `degraded` of rows that exit at a stage; they cannot be written."""
    exit_stage = np.full(_SHARED_ROWS, stage, dtype=np.int32)
    degraded = np.zeros(_SHARED_ROWS, dtype=np.bool_)
    exit_stage.setflags(write=False)
    degraded.setflags(write=False)
    return exit_stage, degraded


@dataclass(slots=True, eq=False)
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
        traceparent: W3C's trace context of the caller; empty without one.
        outputs: Names of the outputs that the caller wants.
        timeline: Notes when each stage has the rows; None unless the request asks for it.
        trace: The request's trace, which the calls of its stages join; None if it has none.
        on_end: Called once by the thread that ends the job. It is None while the thread that made
            the job collects the result itself.
        cancelled: Returns whether the caller has cancelled. It may cost as much as a small call.
        listeners: Each is called once, after `on_end`, on the same thread.
        error: Why the job failed, or None.
        began_s: When the job was made, on the clock of `time.monotonic`.
    """

    texts: Sequence[Text]
    route: Route
    n_labels: int
    deadline_s: float | None = None
    request_id: str = ""
    traceparent: str = ""
    outputs: Collection[str] = ()
    timeline: Timeline | None = None
    trace: object | None = None
    on_end: Callable[[Job], None] | None = None
    cancelled: Callable[[], bool] | None = None
    listeners: list[Callable[[Job], None]] = field(default_factory=list)
    error: Exception | None = None
    began_s: float = field(default_factory=time.monotonic)
    # None until the job has an answer: most jobs take the arrays of their only call as they are.
    _answers: Answers | None = field(init=False, default=None)
    # The stage of each row's most confident answer so far; None until one is kept.
    _seen_stage: NDArray[np.int32] | None = field(init=False, default=None)
    _pending: int = field(init=False)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._pending = len(self.texts)

    @property
    def answers(self) -> Answers:
        """The answers so far, to be read: an undecided row has its most confident answer."""
        return self._answers or _none_yet(len(self.texts), self.n_labels)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """See `Answers`."""
        return self.answers.probabilities

    @property
    def confidence(self) -> NDArray[np.float32]:
        """See `Answers`."""
        return self.answers.confidence

    @property
    def exit_stage(self) -> NDArray[np.int32]:
        """See `Answers`."""
        return self.answers.exit_stage

    @property
    def degraded(self) -> NDArray[np.bool_]:
        """See `Answers`."""
        return self.answers.degraded

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
            probabilities: float32 of shape (k, n_labels). The job may keep this array and the next
                one, so nothing may change them afterwards.
            confidence: float32 of shape (k,).
            stage: The stage, 0-based.

        Returns:
            How many rows were decided; 0 if the job has ended already.
        """
        with self._lock:
            if self._pending == 0:
                return 0
            n_decided = len(confidence)
            if self._answers is None and n_decided == len(self.texts) and type(indices) is slice:
                self._answers = _whole_answer(probabilities, confidence, stage)
            else:
                n_decided = self._write(indices, probabilities, confidence, stage)
            self._pending -= n_decided
            ended = self._pending == 0
        if ended:
            self._call_listeners()
        return n_decided

    def _write(
        self,
        indices: Indices,
        probabilities: NDArray[np.float32],
        confidence: NDArray[np.float32],
        stage: int,
    ) -> int:
        """Decide those of these rows that are undecided, under the lock; return their number."""
        answers = self._own_answers()
        undecided = answers.exit_stage[indices] < 0
        if np.count_nonzero(undecided) != len(confidence):
            indices = np.arange(len(self.texts))[indices][undecided]
            probabilities, confidence = probabilities[undecided], confidence[undecided]
        answers.probabilities[indices] = probabilities
        answers.confidence[indices] = confidence
        answers.exit_stage[indices] = stage
        return len(confidence)

    def _own_answers(self) -> Answers:
        """Return the answers to write to, under the lock."""
        if self._answers is None:
            self._answers = _none_yet(len(self.texts), self.n_labels)
        return self._answers

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
            answers = self._own_answers()
            if self._seen_stage is None:
                self._seen_stage = np.full(len(self.texts), -1, dtype=np.int32)
            better = confidence > answers.confidence[indices]  # false for NaN
            better &= answers.exit_stage[indices] < 0  # a row may be degraded during its call
            kept = np.arange(len(self.texts))[indices][better]
            answers.probabilities[kept] = probabilities[better]
            answers.confidence[kept] = confidence[better]
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
            if self._pending == 0 or self._seen_stage is None:
                return 0
            answers = self._own_answers()
            undecided = answers.exit_stage < 0
            if indices is None:
                indices = np.flatnonzero(undecided)
            indices = indices[undecided[indices]]
            if not len(indices) or (self._seen_stage[indices] < 0).any():
                return 0
            answers.exit_stage[indices] = self._seen_stage[indices]
            answers.degraded[indices] = True
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


def _whole_answer(
    probabilities: NDArray[np.float32], confidence: NDArray[np.float32], stage: int
) -> Answers:
    """Return the answers of all rows of a job that exit at one stage."""
    n = len(confidence)
    if n <= _SHARED_ROWS:
        exit_stage, degraded = _shared_columns(stage)
        return Answers(probabilities, confidence, exit_stage[:n], degraded[:n])
    exit_stage = np.full(n, stage, dtype=np.int32)
    return Answers(probabilities, confidence, exit_stage, np.zeros(n, dtype=np.bool_))


def rows_by_job(rows: Sequence[Row]) -> list[tuple[Job, list[Row]]]:
    """Group rows by job, in the order in which each job first appears."""
    return [(job, [rows[i] for i in own]) for job, own in positions_by_job(rows)]


def positions_by_job(rows: Sequence[Row]) -> list[tuple[Job, list[int]]]:
    """Group the positions of rows by job, in the order in which each job first appears."""
    if len(rows) == 1:
        return [(rows[0].job, [0])]
    of_job: dict[Job, list[int]] = {}
    last: Job | None = None
    own: list[int] = []
    for i, row in enumerate(rows):
        job = row.job
        if job is not last:  # rows of a job mostly follow each other
            own = of_job.setdefault(job, [])
            last = job
        own.append(i)
    return list(of_job.items())
