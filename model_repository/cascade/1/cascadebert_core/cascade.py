"""The cascade itself: rows in, gated answers out, stages run by whoever is asked to.

The BLS model hands in a function that calls other Triton models, a test one that computes logits;
what lies between is pure.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .admission import Admission
from .audit import Auditor
from .contract import DEADLINE, FAULT, OVERLOAD
from .deferral import DeferralQueue, DeferralWorker
from .errors import Cancelled, CascadeError, DeadlineExceeded, InternalError, Unavailable
from .expiry import ExpiryTimer
from .gate import Decision, stack_thresholds
from .job import Job, Row
from .observer import Observer
from .parallel import ParallelCalls
from .policy import Policy
from .stage import RunStage, Stage, stages_of_policy

# What a degraded answer needs to reach its caller in time: this share of the time that was given,
# within these bounds.
_MARGIN = 0.1
_MARGIN_S = (0.005, 0.1)

# Asking whether a caller has given up is a message to the server and back, which may cost as much
# as a row of a small stage: not worth it where the caller has hardly begun to wait.
_ASK_AFTER_S = 0.02

_EXPIRED = "request timeout expired before all of its rows were decided"

# One call after the other; it has no threads, so that all cascades may share it.
_IN_TURN = ParallelCalls(1, "call")

Deferred = dict[int, list[Row]]
# Makes the callback of a job that `begin` does not end.
OnEnd = Callable[[Job], Callable[[Job], None]]


class Cascade:
    """A policy with everything that it takes to answer by it."""

    def __init__(
        self,
        policy: Policy,
        version_folder: Path,
        run_stage: RunStage,
        *,
        observer: Observer | None = None,
        calls_in_flight: int = 1,
        first_calls: int = 1,
        max_batch_size: int = 64,
    ) -> None:
        """Load the tokenizers and start the stages' threads.

        Args:
            policy: validated.
            version_folder: holds `tokenizers/`.
            run_stage: see `RunStage`.
            observer: for metrics; without one, nothing is audited.
            calls_in_flight: calls of one deferred stage at a time; as many as it has instances.
            first_calls: calls of the first stage at a time; as many as it has instances.
            max_batch_size: rows that the jobs of one `begin` have at most.

        Raises:
            PolicyError: a tokenizer of the policy is missing or damaged.
        """
        self.policy = policy
        self._observer = observer
        self._stages = stages_of_policy(
            policy, version_folder, run_stage, calls_in_flight, first_calls
        )
        self._admission = Admission(max_batch_size, policy.stages[0].max_queued_rows)
        self._first_calls = ParallelCalls(first_calls, "stage-0-call")
        self._expiry = ExpiryTimer(self._expire)
        self._queues: list[DeferralQueue] = []
        self._workers: list[DeferralWorker] = []
        for stage in self._stages:
            queue = DeferralQueue(stage.settings.max_queued_rows)
            worker = DeferralWorker(
                queue,
                lambda rows, stage=stage: self._advance(stage, rows),
                lambda rows, exc, stage=stage: self._fail(rows, exc, str(stage)),
                # Rows of the first stage are cut into several calls, as in `begin`.
                choose=stage.next_call if stage.index else stage.oldest,
                calls_in_flight=calls_in_flight if stage.index else first_calls,
                name=f"stage-{stage.index}",
            )
            self._queues.append(queue)
            self._workers.append(worker)
        self._auditor: Auditor | None = None
        if policy.audit_rate > 0 and observer is not None:
            self._auditor = Auditor(
                policy.audit_rate,
                self._stages[-1].labels,
                observer=observer,
                may_run=lambda: not any(self.queued_rows()),
            )

    def queued_rows(self) -> list[int]:
        """Rows that wait for each stage at this moment."""
        return [len(queue) for queue in self._queues]

    def begin(self, jobs: Sequence[Job], on_end: OnEnd) -> None:
        """Run the first stage of all jobs and hand on the rows that are not sure.

        A batch too small for all instances of the first stage is left to other threads where others
        ask too, and this returns at once for the sake of those who come meanwhile.

        On return a job has either ended, and its result is the caller's to collect, or
        `on_end(job)` has been called and what it returned will be called, once, when the job
        ends; other threads do so, perhaps before this returns.

        Args:
            jobs: of any routes; those that have ended already are left alone.
            on_end: makes the callback of a job that is not over yet.
        """
        others = self._is_busy()
        arrived: Deferred = defaultdict(list)
        for job in jobs:
            self._admit(job)
            if job.expired():
                job.fail(DeadlineExceeded(_EXPIRED))
            if not job.ended:
                arrived[job.route.first] += job.rows()
        self._admission.saw(len(jobs), others)
        if self._runs_at_once(arrived.get(0, [])):
            deferred: Deferred = defaultdict(list)
            self._run_rows(self._stages[0], arrived.pop(0), deferred)
            self._enqueue(deferred, on_end)
        self._enqueue(arrived, on_end)

    def close(self, timeout_s: float = 20.0) -> None:
        """Decide what is in flight, then stop. Stages close in order, as rows move forward.

        Args:
            timeout_s: after so many seconds, what has not ended is failed; a stage hangs.
        """
        deadline_s = time.monotonic() + timeout_s
        if self._auditor is not None:
            self._auditor.stop()
        for queue, worker in zip(self._queues, self._workers, strict=True):
            queue.close()
            worker.join(deadline_s - time.monotonic())
        self._first_calls.close()
        for job in self._expiry.stop():
            job.fail(Unavailable("the cascade is unloading: send the request again"))
        if self._auditor is not None:
            self._auditor.join(deadline_s - time.monotonic())

    def _is_busy(self) -> bool:
        """Whether a request is under way."""
        return any(stage.latency.running for stage in self._stages) or any(self.queued_rows())

    def _runs_at_once(self, rows: list[Row]) -> bool:
        """Whether rows run on the thread of `begin`, or on those of the first stage's queue."""
        if not rows or self._admission.queues(len(rows), len(self._queues[0])):
            return False
        most = self._first_calls.limit
        if most == 1 or not self._admission.has_company():
            return True
        stage = self._stages[0]
        lengths = [len(row.encoded or ()) for row in self._encode_or_fail(stage, rows)]
        return len(stage.chunks(lengths, most)) >= most

    def _idle_first_calls(self) -> int:
        """How many more calls of the first stage its instances would take; at least 1."""
        return max(1, self._first_calls.limit - self._stages[0].latency.running)

    def _admit(self, job: Job) -> None:
        if self._observer is not None:
            self._observer.began(job)
            if job.ended:
                self._observer.ended(job)
            else:
                job.listeners.append(self._observer.ended)
        if self._auditor is not None and not job.ended:
            self._auditor.draw(job)

    def _advance(self, stage: Stage, rows: list[Row]) -> None:
        """Run a stage for rows that have waited for it."""
        deferred: Deferred = defaultdict(list)
        worth_it = [
            row for job, own in _by_job(rows) if self._still_wanted(job, stage) for row in own
        ]
        self._run_rows(stage, worth_it, deferred)
        self._enqueue(deferred)

    def _still_wanted(self, job: Job, stage: Stage) -> bool:
        """Whether anybody would have something of the call; a job without hope is ended here."""
        has_waited = time.monotonic() - job.began_s > _ASK_AFTER_S
        if not job.ended and has_waited and job.cancelled is not None and job.cancelled():
            job.fail(Cancelled("the caller cancelled the request"))
        if not job.ended:
            self._refuse_if_late(job, stage, waiting=0)
        return not job.ended

    def _enqueue(self, deferred: Deferred, on_end: OnEnd | None = None) -> None:
        """Queue rows for their next stage, or end their jobs, where there is no room or no time.

        Args:
            deferred: by stage.
            on_end: for jobs that have no callback yet.
        """
        for index, rows in deferred.items():
            queue = self._queues[index]
            waiting = len(queue)  # before the rows of this batch, which share calls
            try:
                for job, own in _by_job(rows):
                    if not job.ended:
                        self._refuse_if_late(job, self._stages[index], waiting)
                    self._enqueue_job(self._stages[index], job, own, on_end)
            finally:
                queue.tell()

    def _enqueue_job(self, stage: Stage, job: Job, rows: list[Row], on_end: OnEnd | None) -> None:
        """Queue rows of one job, unless it has ended; the queue's threads are not told yet."""
        queue = self._queues[stage.index]
        if job.ended:
            return
        if queue.is_full():
            self._drop_or_degrade(rows, self._is_full(stage), OVERLOAD)
            return
        encoded = self._encode_or_fail(stage, rows)
        if not encoded:
            return
        if on_end is not None:
            # Callback before rows: once a row is queued, its job may end at any moment.
            job.on_end = on_end(job)
            self._expiry.watch(job, self._due_s(job))
        self._offer(stage, encoded)

    def _offer(self, stage: Stage, rows: list[Row]) -> None:
        try:
            taken = self._queues[stage.index].offer(rows)
        except CascadeError as exc:
            rows[0].job.fail(exc)
            return
        if not taken:  # it has filled up meanwhile
            self._drop_or_degrade(rows, self._is_full(stage), OVERLOAD)

    def _is_full(self, stage: Stage) -> Unavailable:
        return Unavailable(
            f"{stage} has {stage.settings.max_queued_rows} rows waiting, as many as it may: "
            "send less at once"
        )

    def _refuse_if_late(self, job: Job, stage: Stage, waiting: int) -> None:
        """End a job whose deadline has passed, or will have before the stage answers."""
        if job.deadline_s is None:
            return
        left_s = job.deadline_s - time.monotonic()
        # The first stage is tried unless rows wait for it already: what it took lately, for other
        # rows, must not keep it from those that it would be sure of.
        expected_s = stage.latency.expected_s(waiting) if stage.index or waiting else 0.0
        if left_s <= 0:
            error = DeadlineExceeded(_EXPIRED)
        elif expected_s > left_s:
            error = DeadlineExceeded(
                f"request timeout expired: {stage} would answer in about {expected_s:.3g} s, and "
                f"{left_s:.3g} s are left"
            )
        else:
            return
        self._end_early(job, error, DEADLINE)

    def _due_s(self, job: Job) -> float:
        """When the timer ends a job; with some time to spare where it may be degraded."""
        due_s = self._deadline_s(job)
        if not self.policy.degrade:
            return due_s
        low, high = _MARGIN_S
        return due_s - min(max(_MARGIN * (due_s - job.began_s), low), high)

    def _deadline_s(self, job: Job) -> float:
        if job.deadline_s is not None:
            return job.deadline_s
        return job.began_s + self.policy.request_timeout_s

    def _expire(self, job: Job) -> None:
        error = DeadlineExceeded(
            _EXPIRED
            if job.deadline_s is not None
            else "request timeout expired: no answer within the policy's request_timeout_s, "
            f"{self.policy.request_timeout_s:g} s; a stage hangs, or too much was sent at once"
        )
        if self.policy.degrade:
            self._tell_degraded(DEADLINE, job.degrade())
        due_s = self._deadline_s(job)
        if not job.ended and due_s > time.monotonic():
            # It cannot be degraded, and has until its deadline, then.
            self._expiry.watch(job, due_s)
        else:
            job.fail(error)

    def _end_early(self, job: Job, error: CascadeError, reason: str) -> None:
        """Degrade all of a job's rows that are not decided, or fail it."""
        if self.policy.degrade:
            self._tell_degraded(reason, job.degrade())
        job.fail(error)  # a job that has ended keeps its answer

    def _drop_or_degrade(self, rows: Sequence[Row], error: CascadeError, reason: str) -> None:
        """Degrade rows that no stage may answer any more, or fail their jobs."""
        for job, own in _by_job(rows):
            # In a call that failed half way, some rows are decided already.
            lost = np.array([r.index for r in own if job.exit_stage[r.index] < 0], dtype=np.intp)
            if not len(lost):
                continue
            if self.policy.degrade:
                n = job.degrade(lost)
                self._tell_degraded(reason, n)
                if n:
                    continue
            job.fail(error)

    def _tell_degraded(self, reason: str, rows: int) -> None:
        if rows and self._observer is not None:
            self._observer.degraded(reason, rows)

    def _fail(self, rows: Sequence[Row], exc: Exception, where: str) -> None:
        self._drop_or_degrade(rows, _as_cascade_error(exc, where), FAULT)

    def _encode_or_fail(self, stage: Stage, rows: list[Row]) -> list[Row]:
        """The rows, with their tokens; none of them where that fails."""
        try:
            n_truncated = stage.encode(rows)
        except Exception as exc:  # noqa: BLE001 - a thread's rows must never be lost
            self._fail(rows, exc, f"tokenising for {stage}")
            return []
        if n_truncated and self._observer is not None:
            self._observer.truncated(n_truncated)
        return rows

    def _run_rows(self, stage: Stage, rows: list[Row], deferred: Deferred) -> None:
        """Run, gate and settle rows at `stage`; rows that do not exit join `deferred`."""
        live = self._encode_or_fail(stage, rows)
        lengths = [len(row.encoded or ()) for row in live]
        # Calls of a later stage run beside each other already, each for another batch.
        parallel, idle = _IN_TURN, 1
        if stage.index == 0:
            parallel, idle = self._first_calls, self._idle_first_calls()
        chunks = stage.chunks(lengths, idle)
        parts: list[Deferred] = [defaultdict(list) for _ in chunks]
        parallel.run(
            [
                partial(self._run_chunk_or_fail, stage, [live[i] for i in indices], part)
                for indices, part in zip(chunks, parts, strict=True)
            ]
        )
        for part in parts:
            for index, own in part.items():
                deferred[index] += own

    def _run_chunk_or_fail(self, stage: Stage, rows: list[Row], deferred: Deferred) -> None:
        try:
            self._run_chunk(stage, rows, deferred)
        except Exception as exc:  # noqa: BLE001 - a thread's rows must never be lost
            self._fail(rows, exc, str(stage))

    def _run_chunk(self, stage: Stage, rows: list[Row], deferred: Deferred) -> None:
        encoded = [row.encoded for row in rows if row.encoded is not None]
        thresholds = stack_thresholds(
            [row.job.route.thresholds[stage.index] for row in rows], len(self.policy.labels)
        )
        trace = next((row.job.trace for row in rows if row.job.trace is not None), None)
        decision = stage.decide(encoded, thresholds, trace)
        if self._observer is not None:
            self._observer.decided(stage.index, decision.confidence, decision.exits)
        self._settle(stage.index, rows, decision)
        for row in (rows[i] for i in np.flatnonzero(~decision.exits)):
            if row.job.route.last == stage.index:
                error = InternalError(
                    f"{stage} returned NaN or infinite logits for row {row.index}, and no further "
                    "stage may answer it"
                )
                self._drop_or_degrade([row], error, FAULT)
            elif not row.job.ended:
                deferred[stage.index + 1].append(row)

    def _settle(self, stage: int, rows: list[Row], decision: Decision) -> None:
        """Scatter a stage's answers back to their jobs."""
        now_s = time.monotonic()
        exits = decision.exits
        settled = [
            (now_s - job.began_s, job.settle(*_part(rows, decision, positions), stage))
            for job, positions in _positions_by_job(rows, np.flatnonzero(exits))
        ]
        if settled and self._observer is not None:
            self._observer.answered(stage, [s for s, _ in settled], [n for _, n in settled])
        if self.policy.degrade:
            for job, positions in _positions_by_job(rows, np.flatnonzero(~exits)):
                job.note(*_part(rows, decision, positions), stage)


def _part(
    rows: Sequence[Row], decision: Decision, positions: list[int]
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    indices = np.array([rows[i].index for i in positions], dtype=np.intp)
    return indices, decision.probabilities[positions], decision.confidence[positions]


def _by_job(rows: Iterable[Row]) -> list[tuple[Job, list[Row]]]:
    """Rows of each job together, in the order in which the jobs first come."""
    of_job: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        of_job[id(row.job)].append(row)
    return [(own[0].job, own) for own in of_job.values()]


def _positions_by_job(
    rows: Sequence[Row], positions: NDArray[np.intp]
) -> Iterator[tuple[Job, list[int]]]:
    of_job: dict[int, list[int]] = defaultdict(list)
    for i in positions.tolist():
        of_job[id(rows[i].job)].append(i)
    return ((rows[own[0]].job, own) for own in of_job.values())


def _as_cascade_error(exc: Exception, where: str) -> CascadeError:
    if isinstance(exc, CascadeError):
        return type(exc)(f"{where}: {exc}")
    return InternalError(f"{where}: {type(exc).__name__}: {exc}")
