"""Auditing in service: a random share of the answers is compared with the last stage's own.

A promise is about all rows that an operating point answers, so the sample is drawn from all of
them, by a coin that falls before a row has been looked at. Where a sampled row is answered by the
last stage anyway, it agrees at no cost; where it exits early, the last stage is run on it later, in
the background, and only when nobody waits for that stage.

Results are told in the order in which the rows were drawn. A row that is answered by the last stage
is known at once and one that exits only later; told as they come, the agreements would run ahead,
and a test that may look at any time would look at a sample that is better than the traffic.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .job import Job
from .observer import AuditObserver
from .tokenization import Text

_LOGGER = logging.getLogger(__name__)

# Rows that may wait for their audit; beyond that, rows are dropped as they are drawn.
MAX_WAITING = 1024
# Who is deferred while an audit runs waits for it to end: so its calls are small, and after each of
# them the stage is left alone for four times as long as the call took.
ROWS_PER_CALL = 4
_REST = 4.0
# Between two looks at whether the oldest row is decided and the stage is free.
_POLL_S = 0.01

# What became of a sampled row, where it is not the label that an earlier stage answered with.
_UNDECIDED = -3
_NO_ANSWER = -2
_BY_LAST_STAGE = -1

# The last stage's label of each text, int of shape (n,); negative where its logits are not finite.
LastLabels = Callable[[list[Text]], NDArray[np.intp]]


@dataclass(slots=True, eq=False)
class _Sample:
    """A row that was drawn.

    Attributes:
        outcome: the label's number if it exited early; else one of the constants above.
    """

    operating_point: str
    index: int
    text: Text
    outcome: int = _UNDECIDED

    def decide(self, job: Job) -> None:
        # What was degraded was not answered as the operating point promises.
        if job.error is not None or job.degraded[self.index]:
            self.outcome = _NO_ANSWER
        elif job.exit_stage[self.index] == job.route.last:
            self.outcome = _BY_LAST_STAGE
        else:
            self.outcome = int(job.probabilities[self.index].argmax())


class Auditor:
    """Draws rows, and has a thread that compares their answers with the last stage's."""

    def __init__(
        self,
        rate: float,
        last_labels: LastLabels,
        *,
        observer: AuditObserver,
        may_run: Callable[[], bool],
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """Start the thread.

        Args:
            rate: share of the rows to draw, above 0, at most 1.
            last_labels: runs the last stage; what it raises is counted and goes no further.
            observer: for metrics.
            may_run: whether the last stage has nothing better to do.
            max_waiting: rows that may have been drawn and not yet been told of.
        """
        self._rate = rate
        self._last_labels = last_labels
        self._observer = observer
        self._may_run = may_run
        self._max_waiting = max_waiting
        self._random = random.Random()  # seeded by the operating system
        self._samples: deque[_Sample] = deque()
        self._dropped: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def draw(self, job: Job) -> None:
        """Draw rows of a job that has not begun; to be called before any stage sees it.

        Only rows that are answered at a named operating point are covered by its promise. A
        caller's own threshold and a forced stage are the caller's business.
        """
        point = job.route.operating_point
        if point is None:
            return
        drawn = [
            _Sample(point, index, text)
            for index, text in enumerate(job.texts)
            if self._random.random() < self._rate
        ]
        if not drawn:
            return

        def decide(ended: Job) -> None:
            for sample in drawn:
                sample.decide(ended)

        job.listeners.append(decide)
        with self._changed:
            # Neither the coin nor the room that is left knows anything of the row: what it says, or
            # where it will exit. So rows that are dropped are like those that are not, and may be
            # left out. Dropped only once they had exited, they would be those that may disagree.
            kept = drawn[: max(0, self._max_waiting - len(self._samples))]
            self._samples += kept
            self._dropped[point] += len(drawn) - len(kept)
            self._changed.notify_all()

    def stop(self) -> None:
        """Begin no further call; rows that still wait are forgotten."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the call that is running, if one is, but not for longer than `timeout_s`."""
        self._thread.join(None if timeout_s is None else max(0.0, timeout_s))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping.is_set() or self._samples)
                if self._stopping.is_set():
                    return
                dropped, self._dropped = self._dropped, Counter()
                samples = self._take() if self._may_run() else []
            started_s = time.monotonic()
            try:
                for point, rows in dropped.items():
                    if rows:
                        self._observer.audit_dropped(point, rows)
                self._judge(samples)
            except Exception as exc:  # noqa: BLE001 - the thread must live on; no text in the log
                _LOGGER.warning("the result of an audit was lost: %s", type(exc).__name__)
            took_s = time.monotonic() - started_s
            self._stopping.wait(_REST * took_s if samples else _POLL_S)

    def _take(self) -> list[_Sample]:
        """Remove the oldest rows that are decided, as far as one call goes."""
        taken: list[_Sample] = []
        n_exited = 0
        while self._samples and n_exited < ROWS_PER_CALL:
            outcome = self._samples[0].outcome
            if outcome == _UNDECIDED:
                break
            n_exited += outcome >= 0
            taken.append(self._samples.popleft())
        return taken

    def _judge(self, samples: list[_Sample]) -> None:
        """Run the last stage on the rows that exited early, and tell of all."""
        agreed: Counter[str] = Counter()
        disagreed: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for sample in samples:
            agreed[sample.operating_point] += sample.outcome == _BY_LAST_STAGE
            # Deferred rows wait longest, so it is agreements that time out: they must not be lost.
            failed[sample.operating_point] += sample.outcome == _NO_ANSWER
        exited = [sample for sample in samples if sample.outcome >= 0]
        for sample, label in zip(exited, self._labels_of(exited), strict=True):
            kind = failed if label < 0 else agreed if label == sample.outcome else disagreed
            kind[sample.operating_point] += 1
        for point in dict.fromkeys(sample.operating_point for sample in samples):
            if agreed[point] or disagreed[point]:
                self._observer.audited(point, agreed[point], disagreed[point])
            if failed[point]:
                self._observer.audit_failed(point, failed[point])

    def _labels_of(self, samples: list[_Sample]) -> list[int]:
        if not samples:
            return []
        try:
            return [int(label) for label in self._last_labels([s.text for s in samples])]
        except Exception:  # noqa: BLE001 - counted as failed; no request depends on it
            return [-1] * len(samples)
