"""Rows through one stage: tokens, calls, gate, answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .contract import FAULT
from .degradation import Degradation
from .errors import InternalError
from .gate import Decision, stack_thresholds
from .job import Indices, Job, Row
from .observer import Observer
from .parallel import ParallelCalls
from .stage import Stage

# Calls one after another. It has no threads, so all cascades may share it.
_SEQUENTIAL = ParallelCalls(1, "call")


class StageRunner:
    """Runs rows through a stage, and returns those that it defers.

    An exception never leaves a method here: it degrades or fails the rows that it concerns.
    """

    def __init__(
        self,
        n_labels: int,
        first_calls: ParallelCalls,
        degradation: Degradation,
        observer: Observer | None,
    ) -> None:
        """Keep what all stages share.

        Args:
            n_labels: Labels of the policy.
            first_calls: Runs the calls of the first stage.
            degradation: Degrades or fails rows without an answer.
            observer: Told of decisions, answers and truncated rows.
        """
        self._n_labels = n_labels
        self._first_calls = first_calls
        self._degradation = degradation
        self._observer = observer

    def encode(self, stage: Stage, rows: list[Row]) -> list[Row]:
        """Tokenise rows for a stage and return them; return no rows if that fails."""
        try:
            n_truncated = stage.encode(rows)
        except Exception as exc:  # noqa: BLE001 - a thread's rows must never be lost
            self._degradation.fail(rows, exc, f"tokenising for {stage}")
            return []
        if n_truncated and self._observer is not None:
            self._observer.truncated(n_truncated)
        return rows

    def run(self, stage: Stage, rows: list[Row]) -> list[Row]:
        """Run rows through a stage and return those that the next stage has to see."""
        rows = self.encode(stage, rows)
        # Only the first stage runs several calls for one thread. The queue of a later stage has a
        # thread for every instance.
        calls, idle = _SEQUENTIAL, 1
        if stage.index == 0:
            calls = self._first_calls
            idle = max(1, calls.limit - stage.latency.running)
        chunks = stage.plan_calls_of_rows(rows, idle)
        deferred: list[list[Row]] = [[] for _ in chunks]
        calls.run(
            [
                partial(self._run_call_or_fail, stage, [rows[i] for i in indices], into)
                for indices, into in zip(chunks, deferred, strict=True)
            ]
        )
        return [row for part in deferred for row in part]

    def _run_call_or_fail(self, stage: Stage, rows: list[Row], deferred: list[Row]) -> None:
        try:
            self._run_call(stage, rows, deferred)
        except Exception as exc:  # noqa: BLE001 - a thread's rows must never be lost
            self._degradation.fail(rows, exc, str(stage))

    def _run_call(self, stage: Stage, rows: list[Row], deferred: list[Row]) -> None:
        encoded = [row.encoded for row in rows if row.encoded is not None]
        thresholds = _thresholds([row.job for row in rows], stage.index, self._n_labels)
        trace = next((row.job.trace for row in rows if row.job.trace is not None), None)
        decision = stage.decide(encoded, thresholds, trace)
        if self._observer is not None:
            self._observer.decided(stage.index, decision.confidence, decision.exits)
        self._answer(stage.index, rows, decision)
        for row in (rows[i] for i in _positions(~decision.exits)):
            if row.job.route.last == stage.index:
                error = InternalError(
                    f"{stage} returned NaN or infinite logits for row {row.index}, and no further "
                    "stage may answer it"
                )
                self._degradation.drop_or_degrade([row], error, FAULT)
            elif not row.job.ended:
                deferred.append(row)

    def _answer(self, stage: int, rows: list[Row], decision: Decision) -> None:
        """Give the jobs of these rows the stage's answers."""
        now_s = time.monotonic()
        exits = decision.exits
        answered = [
            (now_s - job.began_s, job.settle(*_part(rows, decision, positions), stage))
            for job, positions in _positions_by_job(rows, _positions(exits))
        ]
        if answered and self._observer is not None:
            self._observer.answered(stage, [s for s, _ in answered], [n for _, n in answered])
        if self._degradation.allowed:
            for job, positions in _positions_by_job(rows, _positions(~exits)):
                job.keep_best(*_part(rows, decision, positions), stage)


def _thresholds(jobs: Sequence[Job], stage: int, n_labels: int) -> NDArray[np.float32] | np.float32:
    """Return the rows' thresholds at a stage, as `gate.decide` takes them."""
    route = jobs[0].route
    if all(job.route is route for job in jobs):
        shared = route.thresholds[stage]
        return shared[None, :] if isinstance(shared, np.ndarray) else shared
    return stack_thresholds([job.route.thresholds[stage] for job in jobs], n_labels)


def _part(
    rows: Sequence[Row], decision: Decision, positions: list[int]
) -> tuple[Indices, NDArray[np.float32], NDArray[np.float32]]:
    """Return the rows' indices in their job, their probabilities and their confidence."""
    indices = [rows[i].index for i in positions]
    own, of_batch = _as_slice(indices), _as_slice(positions)
    return own, decision.probabilities[of_batch], decision.confidence[of_batch]


def _as_slice(numbers: list[int]) -> Indices:
    """Return numbers as a slice if they follow each other, because numpy is faster with one.

    A call has its rows in the order of their buckets, so the rows of a job may be in any order: all
    numbers are compared, not only the ends.
    """
    first, end = numbers[0], numbers[0] + len(numbers)
    if numbers == list(range(first, end)):
        return slice(first, end)
    return np.array(numbers, dtype=np.intp)


def _positions(chosen: NDArray[np.bool_]) -> list[int]:
    return [i for i, yes in enumerate(chosen.tolist()) if yes]


def _positions_by_job(rows: Sequence[Row], positions: list[int]) -> list[tuple[Job, list[int]]]:
    """Group positions in `rows` by job."""
    of_job: dict[int, list[int]] = {}
    for i in positions:
        of_job.setdefault(id(rows[i].job), []).append(i)
    return [(rows[own[0]].job, own) for own in of_job.values()]
