"""Audits in service: a random share of the answers is compared with the last stage's answers.

A guarantee covers all rows that an operating point answers. So rows are drawn at random from all of
them, before any stage has seen them. If the last stage answers a drawn row, the row agrees at no
cost. If the row exits early, the last stage runs on it later, in the background and only while no
row is queued.

Results are reported in the order in which the rows were drawn. The result of a row that the last
stage answered is known immediately, that of a row that exits early only later. If results were
reported as they become known, agreements would come first, and a test that may look at any time
would see a sample that is better than the traffic.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .job import Job
from .observer import AuditObserver
from .shares import share_of_limit
from .task import SINGLE_LABEL, answer_keys
from .tokenization import Text

_LOGGER = logging.getLogger(__name__)

# The most rows that wait for their audit; while there are as many, drawn rows are dropped.
MAX_WAITING = 1024
# Rows that are deferred while an audit runs wait until it ends. So an audit's calls are small, and
# after each call the auditor rests for four times as long as the call took.
ROWS_PER_CALL = 4
_REST = 4.0
# How often the auditor checks whether the oldest row is decided and the stage is free.
_POLL_S = 0.01

# Outcomes of a drawn row, besides the key of the answer with which it exited early.
_UNDECIDED = -3
_NO_ANSWER = -2
_BY_LAST_STAGE = -1

# Returns the key of the last stage's answer to each text, shape (n,); negative if its logits are
# not finite. See `task.answer_keys`.
LastAnswers = Callable[[list[Text]], NDArray[Any]]


@dataclass(slots=True, eq=False)
class _Sample:
    """A drawn row.

    Attributes:
        operating_point: The operating point that answers it.
        index: Its position in its job.
        text: Its text.
        outcome: Its answer's key if it exited early; otherwise one of the constants above.
    """

    operating_point: str
    index: int
    text: Text
    outcome: int = _UNDECIDED

    def decide(self, job: Job, task: str) -> None:
        # The guarantee does not cover a degraded row.
        if job.error is not None or job.degraded[self.index]:
            self.outcome = _NO_ANSWER
        elif job.exit_stage[self.index] == job.route.last:
            self.outcome = _BY_LAST_STAGE
        else:
            (key,) = answer_keys(job.probabilities[self.index : self.index + 1], task)
            self.outcome = int(key)


class Auditor:
    """Draws rows, and compares their answers with the last stage's on a thread of its own."""

    def __init__(
        self,
        rate: float,
        last_answers: LastAnswers,
        *,
        task: str = SINGLE_LABEL,
        observer: AuditObserver,
        may_run: Callable[[], bool],
        max_waiting: int = MAX_WAITING,
        auditors: int = 1,
    ) -> None:
        """Start the thread.

        Args:
            rate: The share of rows to draw, above 0 and at most 1.
            last_answers: Runs the last stage. If it raises, its rows count as failed.
            task: The policy's, which says when two answers are the same.
            observer: Receives the results.
            may_run: Returns whether the last stage is free.
            max_waiting: The most drawn rows that are not reported yet.
            auditors: How many processes audit this cascade. After each call each of them rests, so
                that all together call no more often than one would.
        """
        self._rate = rate
        self._last_answers = last_answers
        self._task = task
        self._observer = observer
        self._may_run = may_run
        self._max_waiting = share_of_limit(max_waiting, auditors)
        # One auditor calls for 1 s in 5. Two rest for 9 s each, and so call for 1 s in 5 together.
        self._rest = auditors * (1 + _REST) - 1
        self._random = random.Random()  # seeded by the operating system
        self._samples: deque[_Sample] = deque()
        self._dropped: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def draw(self, job: Job) -> None:
        """Draw rows of a job before any stage sees them.

        Rows are drawn only from jobs at an operating point. A guarantee does not cover thresholds
        or stages that the caller chooses.
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
                sample.decide(ended, self._task)

        job.listeners.append(decide)
        with self._changed:
            # Whether a row is dropped does not depend on its text or on its exit stage. So dropped
            # rows are like the others and can be left out. If rows were dropped after they exit,
            # exactly those that may disagree would be missing.
            kept = drawn[: max(0, self._max_waiting - len(self._samples))]
            self._samples += kept
            self._dropped[point] += len(drawn) - len(kept)
            self._changed.notify_all()

    def stop(self) -> None:
        """Start no further call; rows that wait for their audit are discarded."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait up to `timeout_s` for a running call to end."""
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
            except Exception as exc:  # noqa: BLE001 - the thread must continue; no text in the log
                _LOGGER.warning("the result of an audit was lost: %s", type(exc).__name__)
            took_s = time.monotonic() - started_s
            self._stopping.wait(self._rest * took_s if samples else _POLL_S)

    def _take(self) -> list[_Sample]:
        """Remove the oldest rows, up to an undecided one or to the end of one call."""
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
        """Run the last stage on the rows that exited early, and report the results of all rows."""
        agreed: Counter[str] = Counter()
        disagreed: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for sample in samples:
            agreed[sample.operating_point] += sample.outcome == _BY_LAST_STAGE
            # Deferred rows wait longest, so rows that time out would mostly agree: report them too.
            failed[sample.operating_point] += sample.outcome == _NO_ANSWER
        exited = [sample for sample in samples if sample.outcome >= 0]
        for sample, answer in zip(exited, self._answers_to(exited), strict=True):
            kind = failed if answer < 0 else agreed if answer == sample.outcome else disagreed
            kind[sample.operating_point] += 1
        for point in dict.fromkeys(sample.operating_point for sample in samples):
            if agreed[point] or disagreed[point]:
                self._observer.audited(point, agreed[point], disagreed[point])
            if failed[point]:
                self._observer.audit_failed(point, failed[point])

    def _answers_to(self, samples: list[_Sample]) -> list[int]:
        if not samples:
            return []
        try:
            return [int(key) for key in self._last_answers([s.text for s in samples])]
        except Exception:  # noqa: BLE001 - counted as failed; no request depends on it
            return [-1] * len(samples)
