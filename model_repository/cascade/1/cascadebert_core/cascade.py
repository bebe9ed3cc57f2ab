"""The cascade: it ties stages, queues, admission and deadlines together.

It calls the stages through a function. The BLS model's calls other Triton models, a test's computes
logits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .admission import Admission
from .audit import Auditor
from .contract import OVERLOAD
from .deadlines import Deadlines
from .deferral import DeferralQueue, DeferralWorker
from .degradation import Degradation
from .drift import GuaranteeWatch
from .drift_state import DriftState
from .errors import CascadeError, Unavailable
from .job import Job, Row, rows_by_job
from .observer import Observer
from .parallel import ParallelCalls
from .policy import Policy
from .route import route_from_thresholds
from .runner import StageRunner
from .shares import share_of_calls, share_of_limit
from .stage import RunStage, Stage, stages_of_policy
from .under_load import LoadSwitch

# Makes the callback of a job that `begin` does not end.
OnEnd = Callable[[Job], Callable[[Job], None]]


class Cascade:
    """A policy, with the threads and queues that answer requests by it.

    One request of two rows, at threshold 0.9 and without other traffic::

        time   event                                          state
        0 ms   `begin`: both rows are tokenised               on Triton's thread
        1 ms   stage 0 runs one call with both                on Triton's thread
        9 ms   row 0 has confidence 0.97 and exits            1 row is undecided
        9 ms   row 1 has confidence 0.70 and is queued        `begin` returns
        9 ms   a thread of stage 1 takes row 1 and calls it   on the queue's thread
        45 ms  row 1 is answered; the job's callback runs     the job has ended
    """

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
        instances: int = 1,
        drift_state: DriftState | None = None,
        log: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        """Load the tokenizers and start the threads of the stages.

        Args:
            policy: A validated policy.
            version_folder: The folder that holds `tokenizers/`.
            run_stage: Calls a stage; see `RunStage`.
            observer: Receives events, such as for metrics. Without one nothing is audited.
            calls_in_flight: Concurrent calls of each later stage, as many as it has instances.
            first_calls: Concurrent calls of the first stage, as many as it has instances.
            max_batch_size: The most rows that the jobs of one `begin` have.
            instances: How many processes run this cascade. Each has its share of the calls and of
                the rows that may be queued; see `shares`.
            drift_state: The memory of broken guarantees; None keeps it in this process.
            log: Writes a line of the server's log.

        Raises:
            PolicyError: A tokenizer of the policy is missing or damaged.
        """
        self.policy = policy
        self._observer = observer
        self._instances = instances
        calls_in_flight = share_of_calls(calls_in_flight, instances)
        first_calls = share_of_calls(first_calls, instances)
        limits = [share_of_limit(stage.max_queued_rows, instances) for stage in policy.stages]
        self._stages = stages_of_policy(
            policy, version_folder, run_stage, calls_in_flight, first_calls
        )
        self._admission = Admission(max_batch_size, limits[0])
        self._first_calls = ParallelCalls(first_calls, "stage-0-call")
        self._degradation = Degradation(policy.degrade, observer)
        self._deadlines = Deadlines(policy.request_timeout_s, self._degradation)
        self._runner = StageRunner(
            len(policy.labels), self._first_calls, self._degradation, observer
        )
        self._queues: list[DeferralQueue] = []
        self._workers: list[DeferralWorker] = []
        for stage in self._stages:
            queue = DeferralQueue(limits[stage.index])
            worker = DeferralWorker(
                queue,
                lambda rows, stage=stage: self._advance(stage, rows),
                lambda rows, exc, stage=stage: self._degradation.fail(rows, exc, str(stage)),
                # Rows of the first stage are split into several calls, as in `begin`.
                choose=stage.next_call if stage.index else stage.oldest,
                calls_in_flight=calls_in_flight if stage.index else first_calls,
                name=f"stage-{stage.index}",
            )
            self._queues.append(queue)
            self._workers.append(worker)
        self._load_switch: LoadSwitch | None = None
        if policy.under_load is not None:
            point = policy.under_load.operating_point
            self._faster = route_from_thresholds(policy.operating_points[point], point)
            self._load_switch = LoadSwitch(policy.under_load.hold_s, self._switched)
        self._auditor: Auditor | None = None
        self._guarantees: GuaranteeWatch | None = None
        if policy.audit_rate > 0 and observer is not None:
            self._guarantees = GuaranteeWatch(
                policy, observer, drift_state, instances=instances, log=log
            )
            for point in self._guarantees.points:
                observer.guarantee(point, point in self._guarantees.broken)
            self._auditor = Auditor(
                policy.audit_rate,
                self._stages[-1].answers,
                task=policy.task,
                observer=self._guarantees,
                may_run=lambda: not any(self.queued_rows()),
                auditors=instances,
            )

    def queued_rows(self) -> list[int]:
        """Return how many rows are in the queue of each stage."""
        return [len(queue) for queue in self._queues]

    def is_under_load(self) -> bool:
        """Return whether requests that chose nothing get the policy's faster operating point."""
        settings = self.policy.under_load
        if settings is None or self._load_switch is None:
            return False
        queued = sum(self.queued_rows())
        return self._load_switch.is_active(settings.load(queued, self._expected_s, self._instances))

    def look_around(self) -> None:
        """Notice what no request tells: that the load has gone, that an operator has cleared."""
        self.is_under_load()
        if self._guarantees is not None:
            self._guarantees.look()

    def begin(self, jobs: Sequence[Job], on_end: OnEnd) -> None:
        """Run the first stage of all jobs and queue the rows that it defers.

        If requests are concurrent and the jobs are too few for all instances of the first stage,
        they are queued for it instead, and this method returns at once; see `Admission`.

        On return a job has either ended, and the caller collects its result, or `on_end(job)` was
        called, and the callback that it returned is called once when the job ends. Another thread
        calls it, perhaps before this method returns.

        Args:
            jobs: Jobs of any routes. Those that have ended already are only counted.
            on_end: Makes the callback of a job that has not ended.
        """
        others_running = len(jobs) == 1 and self._is_busy()  # several are concurrent in any case
        arrived: dict[int, list[Row]] = {}
        if self.is_under_load():
            for job in jobs:
                if job.route.follows_load:
                    job.route = self._faster
        if self._guarantees is not None and (instead := self._guarantees.routes):
            for job in jobs:
                job.route = instead.get(job.route.operating_point or "", job.route)
        for job in jobs:
            self._admit(job)
            self._deadlines.end_if_expired(job)
            if not job.ended:
                rows, first_stage = job.rows(), job.route.first
                if first_stage in arrived:
                    arrived[first_stage] += rows
                else:
                    arrived[first_stage] = rows
        self._admission.arrived(len(jobs), others_running)
        first = arrived.get(0)
        if first and self._admission.runs_at_once(
            len(first), len(self._queues[0]), lambda: self._fills_instances(first)
        ):
            self._run(self._stages[0], first, on_end)
            del arrived[0]
        for index, rows in arrived.items():
            self._enqueue(self._stages[index], rows, on_end)

    def close(self, timeout_s: float = 20.0) -> None:
        """Decide the rows in flight, then stop. Stages close in order, as rows move forward.

        Args:
            timeout_s: Seconds after which jobs that have not ended fail, because a stage hangs.
        """
        deadline_s = time.monotonic() + timeout_s
        if self._auditor is not None:
            self._auditor.stop()
        for queue, worker in zip(self._queues, self._workers, strict=True):
            queue.close()
            worker.join(deadline_s - time.monotonic())
        self._first_calls.close()
        for job in self._deadlines.stop():
            job.fail(Unavailable("the cascade is unloading: send the request again"))
        if self._auditor is not None:
            self._auditor.join(deadline_s - time.monotonic())

    def _expected_s(self) -> float:
        """Return the expected seconds of a row that all stages see."""
        stages = zip(self._stages, self._queues, strict=True)
        return sum(stage.latency.expected_s(len(queue)) for stage, queue in stages)

    def _switched(self, under_load: bool) -> None:
        policy = self.policy
        if self._observer is not None and policy.under_load is not None:
            faster, usual = policy.under_load.operating_point, policy.default_operating_point
            self._observer.switched(faster if under_load else usual)

    def _is_busy(self) -> bool:
        """Return whether a stage runs or rows are queued."""
        for stage, queue in zip(self._stages, self._queues, strict=True):
            if stage.latency.running or len(queue):
                return True
        return False

    def _fills_instances(self, rows: list[Row]) -> bool:
        """Return whether rows make at least one call for every instance of the first stage."""
        instances = self._first_calls.limit
        if instances == 1:
            return True
        stage = self._stages[0]
        encoded = self._runner.encode(stage, rows)
        return len(stage.plan_calls_of_rows(encoded, instances)) >= instances

    def _admit(self, job: Job) -> None:
        """Tell the observer and the auditor of a new job."""
        if self._observer is not None:
            self._observer.began(job)
            if job.ended:
                self._observer.ended(job)
            else:
                job.listeners.append(self._observer.ended)
        if self._auditor is not None and not job.ended:
            self._auditor.draw(job)

    def _advance(self, stage: Stage, rows: list[Row]) -> None:
        """Run rows that have waited in the queue of a stage."""
        wanted = [
            row
            for job, own in rows_by_job(rows)
            if self._deadlines.still_wanted(job, stage)
            for row in own
        ]
        self._run(stage, wanted)

    def _run(self, stage: Stage, rows: list[Row], on_end: OnEnd | None = None) -> None:
        """Run rows through a stage, and queue those that it defers for the next stage."""
        deferred = self._runner.run(stage, rows)
        if deferred:
            self._enqueue(self._stages[stage.index + 1], deferred, on_end)

    def _enqueue(self, stage: Stage, rows: list[Row], on_end: OnEnd | None) -> None:
        """Queue rows for a stage; a job for which there is no room or no time is ended.

        Args:
            stage: The stage that the rows wait for.
            rows: Rows of several jobs.
            on_end: Makes the callback of jobs that have none yet.
        """
        queue = self._queues[stage.index]
        waiting = len(queue)  # before the rows of this batch, which share calls
        try:
            for job, own in rows_by_job(rows):
                if not job.ended:
                    self._deadlines.end_if_late(job, stage, waiting)
                if not job.ended:
                    self._enqueue_job(stage, job, own, on_end)
        finally:
            queue.notify()

    def _enqueue_job(self, stage: Stage, job: Job, rows: list[Row], on_end: OnEnd | None) -> None:
        """Queue rows of one job; `_enqueue` notifies the queue's threads afterwards."""
        queue = self._queues[stage.index]
        if queue.is_full():
            self._reject(stage, rows)
            return
        encoded = self._runner.encode(stage, rows)
        if not encoded:
            return
        if on_end is not None:
            # The callback comes first: once a row is queued, its job may end at any moment.
            job.on_end = on_end(job)
            self._deadlines.watch(job)
        if job.timeline is not None:
            of_job = [row.index for row in encoded]
            job.timeline.queued(stage.index, of_job, time.monotonic())
        try:
            accepted = queue.offer(encoded)
        except CascadeError as exc:
            job.fail(exc)
            return
        if not accepted:  # other threads have filled it meanwhile
            self._reject(stage, encoded)

    def _reject(self, stage: Stage, rows: list[Row]) -> None:
        """Degrade rows, or fail their job, because the stage's queue is full."""
        limit = self._queues[stage.index].max_rows
        where = f" in one of {self._instances} instances" if self._instances > 1 else ""
        error = Unavailable(
            f"{stage} has {limit} rows waiting{where}, and its queue is full: send less at once"
        )
        self._degradation.drop_or_degrade(rows, error, OVERLOAD)
