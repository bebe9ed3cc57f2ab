"""One server with a cascade, in simulated time.

What it decides is the core's own code: admission, which rows share a call, the split across
instances, the shares of several processes, and the switch of the operating point. Simulated are
arrivals, queues, and the time that work takes.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cascadebert_core.admission import Admission
from cascadebert_core.batching import (
    CallLimits,
    bucket_of,
    next_call,
    plan_calls,
    split_across_instances,
)
from cascadebert_core.latency import LatencyEstimator
from cascadebert_core.shares import share_of_calls, share_of_limit
from cascadebert_core.under_load import LoadSwitch, UnderLoad

from .shared_cores import SharedCores, weight_of_niceness
from .site import MAX_BATCH_SIZE, RequestPrice, Site, SiteStage, coldness
from .workload import Workload

if TYPE_CHECKING:
    import simpy

Process = Generator[Any, Any, Any]


@dataclass(slots=True, eq=False)
class Request:
    """A request on its way.

    Attributes:
        rows: Indices of its rows in the workload.
        arrived_s: When it arrived.
        point: The operating point.
        left: Rows without an answer.
        stage: The last stage that answered a row.
        answered_s: When its answer left; NaN before that.
        rejected: Whether a queue was full.
    """

    rows: Sequence[int]
    arrived_s: float
    point: str
    left: int = 0
    stage: int = 0
    answered_s: float = math.nan
    rejected: bool = False


@dataclass(slots=True, eq=False)
class _Row:
    request: Request
    index: int


@dataclass(slots=True, eq=False)
class Machine:
    """A machine that is shared by what runs on it.

    Attributes:
        cores: Its cores.
        gpu: Its GPUs; None without one.
    """

    cores: SharedCores
    gpu: simpy.Resource | None
    gpu_busy_s: float = 0.0
    _ran_s: dict[str, float] = field(default_factory=dict[str, float])

    def run(
        self, what: str, work_s: float, cold_s: float, *, weight: float = 1.0, threads: int = 1
    ) -> simpy.Event:
        """Start a task on the cores; see `SharedCores.run`.

        Args:
            what: Its kind.
            work_s: Core-seconds, if the kind has just run.
            cold_s: How much more it takes if the kind has not run for a while.
            weight: Its share of a core.
            threads: They divide the work.
        """
        now_s = self.cores.now_s
        work_s += cold_s * coldness(now_s - self._ran_s.get(what, -math.inf))
        self._ran_s[what] = now_s
        return self.cores.run(work_s, weight=weight, threads=threads)


def machine_of_site(env: simpy.Environment, site: Site) -> Machine:
    """Make an idle machine."""
    import simpy

    gpu = simpy.Resource(env, site.gpus) if site.gpus else None
    return Machine(SharedCores(env, site.cores), gpu)


@dataclass(slots=True, eq=False)
class StageQueue:
    """A stage of one process of the cascade: its queue, the threads that empty it, and its calls.

    Attributes:
        env: The simulation.
        index: The stage.
        stage: Its settings and times.
        machine: Where its calls run.
        workload: Gives the rows' lengths.
        on_decided: Called with the stage and the rows of a call, at its end.
        calls: Its calls at a time.
        limit: The rows that may wait.
        price: What a call takes besides its calculation.
        hop_s: Seconds on the way to another machine and back.
    """

    env: simpy.Environment
    index: int
    stage: SiteStage
    machine: Machine
    workload: Workload
    on_decided: Callable[[int, Sequence[_Row]], None]
    calls: int
    limit: int
    price: RequestPrice
    hop_s: float = 0.0
    rows: deque[_Row] = field(default_factory=deque[_Row])
    limits: CallLimits = field(init=False)
    latency: LatencyEstimator = field(init=False)
    _instances: simpy.Resource = field(init=False)
    _idle: list[simpy.Event] = field(default_factory=list[Any])
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Start the threads."""
        import simpy

        self.limits = CallLimits.of_stage(self.stage.policy)
        self.latency = LatencyEstimator(
            self.limits.rows(self.limits.buckets[0]), self.calls, lambda: self.env.now
        )
        self._instances = simpy.Resource(self.env, self.calls)
        self._random = random.Random(self.index)
        for _ in range(self.calls):
            self.env.process(self._work())

    def offer(self, rows: Sequence[_Row]) -> bool:
        """Queue rows of one request; see `deferral.DeferralQueue`."""
        if len(self.rows) >= self.limit:
            return False
        self.rows.extend(rows)
        if self._idle:
            self._idle.pop().succeed()
        return True

    def lengths(self, rows: Sequence[_Row]) -> list[int]:
        """Padded tokens of rows."""
        return [int(self.workload.lengths[row.index, self.index]) for row in rows]

    def plan(self, rows: Sequence[_Row]) -> list[list[_Row]]:
        """Split rows into calls, as the stage's runner does."""
        parallel = 1 if self.index else max(1, self.calls - self.latency.running)
        lengths = self.lengths(rows)
        chunks = plan_calls(lengths, self.limits)
        chunks = split_across_instances(chunks, lengths, self.limits, parallel)
        return [[rows[i] for i in chunk] for chunk in chunks]

    def run(self, rows: Sequence[_Row]) -> Process:
        """Run rows in calls, several at a time if the stage is the first; end with the last."""
        waiting = deque(self.plan(rows))

        def thread() -> Process:
            while waiting:
                yield from self._call(waiting.popleft())

        helpers = min(self.calls if self.index == 0 else 1, len(waiting)) - 1
        others = [self.env.process(thread()) for _ in range(helpers)]
        yield from thread()
        yield from others

    def _call(self, rows: list[_Row]) -> Process:
        length = bucket_of(max(self.lengths(rows)), self.limits.buckets)
        times = self.stage.times
        work_s = times.seconds(len(rows), length) * self._random.choice(times.spread)
        weight = weight_of_niceness(self.stage.niceness)
        with self._instances.request() as instance:
            self.latency.began()
            yield instance
            started_s = self.env.now
            gpu = self.machine.gpu
            if not self.stage.inline:
                call_s = self.price.call_s
                yield self.machine.run(f"call {self.index}", call_s, call_s * self.price.cold)
            if self.hop_s:
                yield self.env.timeout(self.hop_s)
            if self.stage.gpu and gpu is not None:
                with gpu.request() as turn:
                    yield turn
                    self.machine.gpu_busy_s += work_s
                    yield self.env.timeout(work_s)
            else:
                yield self.machine.run(
                    f"stage {self.index}", work_s, work_s * self.price.cold_call, weight=weight,
                    threads=self.stage.threads,
                )  # fmt: skip
            self.latency.ended(len(rows), started_s, self.env.now)
        self.on_decided(self.index, rows)

    def _work(self) -> Process:
        while True:
            if not self.rows:
                event = self.env.event()
                self._idle.append(event)
                yield event
                continue
            rows = [row for row in self.rows if not row.request.rejected]
            if not rows:
                self.rows.clear()
                continue
            if self.index:
                chosen = set(next_call(self.lengths(rows), self.limits))
            else:
                chosen = set(range(min(len(rows), self.stage.policy.max_batch_size)))
            self.rows = deque(row for i, row in enumerate(rows) if i not in chosen)
            if self.rows and self._idle:
                self._idle.pop().succeed()
            yield from self.run([rows[i] for i in sorted(chosen)])


class Cascade:
    """One process of the cascade: Triton's thread in it, the queues, and the switch."""

    def __init__(
        self,
        env: simpy.Environment,
        site: Site,
        machine: Machine,
        workload: Workload,
        *,
        under_load: UnderLoad | None,
        later: Callable[[int], StageQueue] | None,
    ) -> None:
        """Start the threads.

        Args:
            env: The simulation.
            site: What the machine has.
            machine: The same, in this simulation.
            workload: What the rows are.
            under_load: The operating point under load; None: there is none.
            later: Returns the queue of a later stage, if these run elsewhere.
        """
        self._env, self._site, self._machine = env, site, machine
        self._workload, self._under_load = workload, under_load
        self._instances = n = site.cascade_instances
        own = site.stages[:1] if later else site.stages
        self.queues = [
            StageQueue(
                env, index, stage, machine, workload, self.decided,
                share_of_calls(stage.instances, n),
                share_of_limit(stage.policy.max_queued_rows, n),
                site.price,
            )
            for index, stage in enumerate(own)
        ]  # fmt: skip
        self._later = later or (lambda index: self.queues[index])
        self._admission = Admission(MAX_BATCH_SIZE, self.queues[0].limit, lambda: env.now)
        hold_s = under_load.hold_s if under_load else 0.0
        self.switches: list[tuple[float, bool]] = []
        self._switch = LoadSwitch(
            hold_s, lambda on: self.switches.append((env.now, on)), lambda: env.now
        )
        self._waiting: deque[Request] = deque()
        self._woken = env.event()
        self._is_free = True
        env.process(self._execute())

    @property
    def load(self) -> tuple[bool, int]:
        """For Triton's choice of an instance: whether it works, and how many requests wait."""
        return not self._is_free, len(self._waiting)

    def submit(self, request: Request) -> None:
        """Take a request that the server has read."""
        self._waiting.append(request)
        if not self._woken.triggered:
            self._woken.succeed()

    def decided(self, stage: int, rows: Sequence[_Row]) -> None:
        """Answer the rows that exit at a stage, and queue the others for the next one."""
        deferred: dict[Request, list[_Row]] = {}
        for row in rows:
            request = row.request
            if self._workload.exits[request.point][row.index] <= stage:
                request.left -= 1
                request.stage = max(request.stage, stage)
                if request.left == 0 and not request.rejected:
                    self._env.process(self._answer(request))
            else:
                deferred.setdefault(request, []).append(row)
        for request, own in deferred.items():
            if not request.rejected and not self._later(stage + 1).offer(own):
                request.rejected = True
                self._env.process(self._answer(request))

    def _answer(self, request: Request) -> Process:
        price = self._site.price
        work_s = 0.5 * (price.server_s + price.client_s)
        yield self._machine.run("answer", work_s, work_s * price.cold)
        request.answered_s = self._env.now

    def _execute(self) -> Process:
        """Triton's thread: batches of what waits, each begun as the core's `Cascade` does it."""
        price = self._site.price
        while True:
            if not self._waiting:
                self._woken = self._env.event()
                self._is_free = True
                yield self._woken
            self._is_free = False
            batch: list[Request] = []
            n_rows = 0
            while self._waiting and n_rows + len(self._waiting[0].rows) <= MAX_BATCH_SIZE:
                batch.append(self._waiting.popleft())
                n_rows += len(batch[-1].rows)
            yield self._machine.run(
                "cascade",
                len(batch) * price.cascade_s + (n_rows - len(batch)) * price.cascade_row_s,
                price.cascade_s * price.cold,  # the others of the batch find it warm
            )
            first = self.queues[0]
            busy = any(queue.latency.running or queue.rows for queue in self.queues)
            if self._is_under_load():
                assert self._under_load is not None
                for request in batch:
                    request.point = self._under_load.operating_point
            rows = [_Row(request, index) for request in batch for index in request.rows]
            self._admission.arrived(len(batch), busy)
            if self._admission.runs_at_once(
                len(rows), len(first.rows), lambda rows=rows: self._fills_instances(rows)
            ):
                yield from first.run(rows)
                continue
            for request in batch:
                if not first.offer([row for row in rows if row.request is request]):
                    request.rejected = True
                    self._env.process(self._answer(request))

    def _fills_instances(self, rows: Sequence[_Row]) -> bool:
        first = self.queues[0]
        return first.calls == 1 or len(first.plan(rows)) >= first.calls

    def _is_under_load(self) -> bool:
        if self._under_load is None:
            return False
        queued = sum(len(queue.rows) for queue in self.queues)
        load = self._under_load.load(
            queued,
            lambda: sum(q.latency.expected_s(len(q.rows)) for q in self.queues),
            self._instances,
        )
        return self._switch.is_active(load)


class Replica:
    """One server: tritonserver's own work, and the processes of the cascade."""

    def __init__(
        self,
        env: simpy.Environment,
        site: Site,
        workload: Workload,
        *,
        under_load: UnderLoad | None = None,
        later: Callable[[int], StageQueue] | None = None,
    ) -> None:
        """Start it; the arguments are those of `Cascade`."""
        self._env, self._site = env, site
        self.machine = machine_of_site(env, site)
        self.cascades = [
            Cascade(env, site, self.machine, workload, under_load=under_load, later=later)
            for _ in range(site.cascade_instances)
        ]

    def submit(self, request: Request) -> None:
        """Take a request that has just arrived."""
        request.left = len(request.rows)
        self._env.process(self._receive(request))

    def _receive(self, request: Request) -> Process:
        price = self._site.price
        work_s = 0.5 * (price.server_s + price.client_s)
        yield self.machine.run("receive", work_s, work_s * price.cold)
        min(self.cascades, key=lambda cascade: cascade.load).submit(request)
