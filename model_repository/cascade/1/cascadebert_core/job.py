"""A request on its way through the stages, and its rows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .route import Route
from .tokenization import EncodedRow, Text

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class Row:
    """One row of a job, with the tokens of the stage that saw it last.

    Attributes:
        tokenizer: name of the tokenizer that made `encoded`; None before the first stage.
        max_length: the length that `encoded` was truncated to.
    """

    job: Job
    index: int
    text: Text
    encoded: EncodedRow | None = None
    tokenizer: str | None = None
    max_length: int = 0


@dataclass(slots=True, eq=False)
class Job:
    """A request: its rows, where they exited, and whom to tell when the last one is decided.

    Rows are decided by different threads; `settle`, `degrade` and `fail` may be called from any of
    them, and exactly one call ends the job.

    Attributes:
        texts: at least one row.
        route: the way through the stages.
        n_labels: columns of `probabilities`.
        deadline_s: on the clock of `time.monotonic`; None when the caller set none.
        request_id: what the caller calls it; empty where it has no name.
        trace: of the request, for the calls of stages to be part of; None where there is none.
        on_end: called once, from the thread that ends the job; None while the thread that made
            the job collects the result itself.
        cancelled: whether the caller has given up; asking may cost as much as a small call.
        listeners: each called once, after `on_end`, in the same thread.
        probabilities, confidence, exit_stage: float32 (n, n_labels), float32 (n,), int32 (n,). Of
            a row that is not decided, the surest answer so far.
        degraded: bool (n,), answered below the threshold that was asked for.
        error: why the job failed, or None.
        began_s: on the clock of `time.monotonic`.
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
        # Below every confidence, so that the first answer is the surest so far.
        self.confidence = np.full(n, -1.0, dtype=np.float32)
        self.exit_stage = np.full(n, -1, dtype=np.int32)
        self.degraded = np.zeros(n, dtype=np.bool_)
        self._seen_stage = np.full(n, -1, dtype=np.int32)
        self._pending = n
        self._lock = threading.Lock()

    def rows(self) -> list[Row]:
        """The rows in order, not yet tokenised."""
        return [Row(self, index, text) for index, text in enumerate(self.texts)]

    @property
    def ended(self) -> bool:
        """Whether every row is decided, or the job has failed."""
        return self._pending == 0

    def expired(self) -> bool:
        """Whether the caller has stopped waiting."""
        return self.deadline_s is not None and time.monotonic() > self.deadline_s

    def settle(
        self,
        indices: NDArray[np.intp],
        probabilities: NDArray[np.float32],
        confidence: NDArray[np.float32],
        stage: int,
    ) -> int:
        """Decide rows: they exit at `stage`.

        Args:
            indices: int of shape (k,), rows of this job; those that are decided stay as they are.
            probabilities: float32 of shape (k, n_labels).
            confidence: float32 of shape (k,).
            stage: 0-based.

        Returns:
            How many rows were decided; 0 where the job has ended meanwhile, by another of its rows
            or by its deadline.
        """
        with self._lock:
            if self._pending == 0:
                return 0
            undecided = self.exit_stage[indices] < 0
            if not undecided.all():
                indices, probabilities = indices[undecided], probabilities[undecided]
                confidence = confidence[undecided]
            self.probabilities[indices] = probabilities
            self.confidence[indices] = confidence
            self.exit_stage[indices] = stage
            self._pending -= len(indices)
            ended = self._pending == 0
        if ended:
            self._tell()
        return len(indices)

    def note(
        self,
        indices: NDArray[np.intp],
        probabilities: NDArray[np.float32],
        confidence: NDArray[np.float32],
        stage: int,
    ) -> None:
        """Keep what `stage` makes of rows that it does not decide; arguments as for `settle`."""
        with self._lock:
            if self._pending == 0:
                return
            surer = confidence > self.confidence[indices]  # false for NaN
            kept = indices[surer]
            self.probabilities[kept] = probabilities[surer]
            self.confidence[kept] = confidence[surer]
            self._seen_stage[kept] = stage

    def degrade(self, indices: NDArray[np.intp] | None = None) -> int:
        """Decide rows with the surest answer so far.

        Args:
            indices: int of shape (k,), rows of this job; None: all. Those that are decided stay as
                they are.

        Returns:
            How many rows were decided; 0 where one of them has no answer yet, or the job has ended.
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
            self._tell()
        return len(indices)

    def fail(self, error: Exception) -> None:
        """End the job with an error; a job that has ended keeps its answer."""
        with self._lock:
            if self._pending == 0:
                return
            self._pending = 0
            self.error = error
        self._tell()

    def _tell(self) -> None:
        for listener in (self.on_end, *self.listeners):
            if listener is None:
                continue
            try:
                listener(self)
            except Exception:
                # The thread carries rows of other jobs, which must not share this one's fate.
                _LOGGER.exception("a request was decided and its end could not be told")
