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
from .job import Indices, Job, Row, positions_by_job
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
        explained = [(row, row.encoded) for row in rows if row.job.timeline is not None]
        began_s = time.monotonic() if explained else 0.0
        try:
            n_truncated = stage.encode(rows)
        except Exception as exc:  # noqa: BLE001 - a thread's rows must never be lost
            self._degradation.fail(rows, exc, f"tokenising for {stage}")
            return []
        for row, before in explained:
            if row.encoded is not before and row.job.timeline is not None:
                row.job.timeline.tokenised(stage.index, row.index, began_s, time.monotonic())
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
        if len(chunks) == 1:
            deferred: list[Row] = []
            # If lengths differ, the order of the call is another than that of the rows.
            self._run_call_or_fail(stage, [rows[i] for i in chunks[0]], deferred)
            return deferred
        parts: list[list[Row]] = [[] for _ in chunks]
        calls.run(
            [
                partial(self._run_call_or_fail, stage, [rows[i] for i in indices], into)
                for indices, into in zip(chunks, parts, strict=True)
            ]
        )
        return [row for part in parts for row in part]

    def _run_call_or_fail(self, stage: Stage, rows: list[Row], deferred: list[Row]) -> None:
        try:
            self._run_call(stage, rows, deferred)
        except Exception as exc:  # noqa: BLE001 - a thread's rows must never be lost
            self._degradation.fail(rows, exc, str(stage))

    def _run_call(self, stage: Stage, rows: list[Row], deferred: list[Row]) -> None:
        encoded = [row.encoded for row in rows if row.encoded is not None]
        groups = positions_by_job(rows)
        shared = _shared_threshold(groups, stage.index)
        if shared is None:
            of_rows = [row.job.route.thresholds[stage.index] for row in rows]
            shared = stack_thresholds(of_rows, self._n_labels)
        trace = None
        for job, _ in groups:
            trace = trace or job.trace
        explained = [group for group in groups if group[0].timeline is not None]
        began_s = time.monotonic() if explained else 0.0
        decision = stage.decide(encoded, shared, trace)
        for job, own in explained:
            if job.timeline is not None:
                of_job, now_s = [rows[i].index for i in own], time.monotonic()
                job.timeline.called(
                    stage.index, of_job, own, decision, began_s=began_s, ended_s=now_s
                )
        if self._observer is not None:
            self._observer.decided(stage.index, decision.confidence, decision.exits)
        exits: list[bool] = decision.exits.tolist()
        self._answer(stage.index, rows, groups, decision, exits)
        for row, leaves in zip(rows, exits, strict=True):
            if leaves:
                continue
            if row.job.route.last == stage.index:
                error = InternalError(
                    f"{stage} returned NaN or infinite logits for row {row.index}, and no further "
                    "stage may answer it"
                )
                self._degradation.drop_or_degrade([row], error, FAULT)
            elif not row.job.ended:
                deferred.append(row)

    def _answer(
        self,
        stage: int,
        rows: list[Row],
        groups: Sequence[tuple[Job, list[int]]],
        decision: Decision,
        exits: list[bool],
    ) -> None:
        """Give the jobs of these rows the stage's answers.

        Args:
            stage: The stage that has decided.
            rows: The rows of its call.
            groups: Each of their jobs, with the positions of its rows in `rows`.
            decision: What was decided.
            exits: `decision.exits` as a list.
        """
        now_s = time.monotonic()
        seconds: list[float] = []
        settled: list[int] = []
        for job, positions in groups:
            own = [i for i in positions if exits[i]]
            if own:
                seconds.append(now_s - job.began_s)
                settled.append(job.settle(*_part(rows, decision, own), stage))
        if seconds and self._observer is not None:
            self._observer.answered(stage, seconds, settled)
        if self._degradation.allowed:
            for job, positions in groups:
                own = [i for i in positions if not exits[i]]
                if own:
                    job.keep_best(*_part(rows, decision, own), stage)


def _shared_threshold(
    groups: Sequence[tuple[Job, list[int]]], stage: int
) -> NDArray[np.float32] | np.float32 | None:
    """Return the jobs' threshold at a stage, as `gate.decide` takes it; None if they differ."""
    route = groups[0][0].route
    for job, _ in groups:
        if job.route is not route:
            return None
    shared = route.thresholds[stage]
    return shared[None, :] if isinstance(shared, np.ndarray) else shared


def _part(
    rows: Sequence[Row], decision: Decision, positions: list[int]
) -> tuple[Indices, NDArray[np.float32], NDArray[np.float32]]:
    """Return the rows' indices in their job, their probabilities and their confidence."""
    if len(positions) == 1:
        (i,) = positions
        index = rows[i].index
        own, of_batch = slice(index, index + 1), slice(i, i + 1)
    else:
        own, of_batch = _as_slice([rows[i].index for i in positions]), _as_slice(positions)
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
