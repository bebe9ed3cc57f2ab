"""Load on a cascade over gRPC, without retries, where every request is accounted for.

A load runs in a process of its own, so that the test around it does not disturb it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from cascadebert_client.errors import (
    DeadlineExceeded,
    RequestCancelled,
    ServerUnavailable,
    Target,
    translated,
)
from cascadebert_core import contract
from tests.support.raw_model import RawModel, result_of
from tests.support.truth import Answer, Truth

ANSWERED = "answered"
DEGRADED = "degraded"  # answered too, some row of it below its threshold
REJECTED = "rejected"  # UNAVAILABLE: sent again, it may be answered
DEADLINE = "deadline"
CANCELLED = "cancelled"  # by this generator
ERROR = "error"  # anything else
HUNG = "hung"  # nothing at all, long after the deadline
WRONG = "wrong"  # answered, and not with the truth
OUTCOMES = (ANSWERED, DEGRADED, REJECTED, DEADLINE, CANCELLED, ERROR, HUNG, WRONG)

_OUTPUTS = (contract.LABEL, contract.CONFIDENCE, contract.EXIT_STAGE, contract.DEGRADED)
# A caller that was turned away waits a moment, or it would do nothing but ask again.
_TURNED_AWAY_S = 0.01
# Far behind any delay of a busy machine.
_HUNG_S = 30.0


@dataclass(frozen=True)
class Load:
    """What is sent.

    Attributes:
        url, model: where to.
        truth: the texts, and what they must be answered with.
        seconds: how long; infinite where `requests` or `steps` limit it.
        steps: seconds and requests a second, one step after the other, whatever comes back (an
            open loop); none: see `concurrency`.
        poisson: whether the gaps of an open loop are drawn, or even.
        concurrency: callers that each wait for their answer (a closed loop).
        requests: that are sent at most.
        sizes: rows of a request, drawn evenly.
        timeout_s: deadline of a request, as the client's and as the server's.
        grace_s: by which the generator waits longer, so that the server ends late requests itself.
        hurried: share of requests whose deadline is a few milliseconds, which few can meet.
        cancelled: share of requests that are cancelled after a few milliseconds.
        threshold: for every stage; None: the default operating point.
        stop_file: no further request is sent once it is there.
        channels: connections.
        seed: of all that is drawn.
    """

    url: str
    model: str
    truth: Truth
    seconds: float = float("inf")
    steps: tuple[tuple[float, float], ...] = ()
    poisson: bool = True
    concurrency: int = 8
    requests: int | None = None
    sizes: tuple[int, ...] = (1,)
    timeout_s: float = 10.0
    grace_s: float = 0.0
    hurried: float = 0.0
    cancelled: float = 0.0
    threshold: float | None = None
    stop_file: Path | None = None
    channels: int = 2
    seed: int = 0

    def with_changes(self, **changes: Any) -> Load:
        """The load with other values of some attributes."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. Times are seconds of `time.monotonic`, which all processes share.

    Attributes:
        due_s: when it should have gone out; in a closed loop, when it did.
        sent_s, ended_s: when it did, and when its caller knew how it ended.
        rows: that it carried.
        timeout_s: its deadline.
        outcome: one of OUTCOMES.
        detail: the error's words, or what was wrong.
        last_stage: the latest stage that answered a row of it; -1 where none did.
    """

    due_s: float
    sent_s: float
    ended_s: float
    rows: int
    timeout_s: float
    outcome: str
    detail: str = ""
    last_stage: int = -1

    @property
    def latency_s(self) -> float:
        """From when it was due: a generator that lags behind hides nothing."""
        return self.ended_s - self.due_s


@dataclass(frozen=True)
class Account:
    """What became of a load.

    Attributes:
        sent: requests that went out, counted as they did.
        began_s: of `time.monotonic`.
        samples: one for every request that ended.
    """

    sent: int
    began_s: float
    samples: list[Sample] = field(repr=False)

    def __getitem__(self, outcome: str) -> int:
        return sum(sample.outcome == outcome for sample in self.samples)

    def answered_by(self, stage: int) -> Account:
        """The requests whose last answer is this stage's."""
        samples = [sample for sample in self.samples if sample.last_stage == stage]
        return Account(len(samples), self.began_s, samples)

    def counts(self) -> dict[str, int]:
        """Requests by outcome; those that did not occur are left out."""
        return dict(Counter(sample.outcome for sample in self.samples))

    def part(self, start_s: float, end_s: float = float("inf")) -> Account:
        """The requests that were due in a span of time."""
        samples = [sample for sample in self.samples if start_s <= sample.due_s < end_s]
        return Account(len(samples), start_s, samples)

    def goodput(self) -> float:
        """Requests that were answered, degraded or not, a second from the first send to the last.

        It is the sends that count where the generator could not keep up.
        """
        sent = [sample.sent_s for sample in self.samples]
        answered = self[ANSWERED] + self[DEGRADED]
        return answered / (max(sent) - min(sent)) if answered > 1 else 0.0

    def lag_s(self) -> float:
        """The longest that a request went out after it was due: the generator could not keep up."""
        return max((sample.sent_s - sample.due_s for sample in self.samples), default=0.0)

    def rows_answered(self) -> int:
        """Rows of the requests that were answered."""
        return sum(s.rows for s in self.samples if s.outcome in (ANSWERED, DEGRADED))

    def latency_ms(self, quantile: float) -> float:
        """Of the requests that were answered; NaN where none was."""
        values = [s.latency_s for s in self.samples if s.outcome in (ANSWERED, DEGRADED)]
        return float(np.quantile(values, quantile)) * 1e3 if values else float("nan")

    def overdue_s(self) -> float:
        """The longest that a caller waited past its deadline."""
        return max((s.ended_s - s.sent_s - s.timeout_s for s in self.samples), default=0.0)

    def details(self, *outcomes: str) -> list[str]:
        """The first words of each kind of trouble, most frequent first."""
        found = Counter(s.detail for s in self.samples if s.outcome in outcomes)
        return [f"{n} × {detail}" for detail, n in found.most_common(5)]

    def require_whole(self) -> None:
        """Each request ended exactly once, none hung, and none was answered wrongly."""
        assert self.sent == len(self.samples) == sum(self[outcome] for outcome in OUTCOMES)
        assert not self[HUNG], self.details(HUNG)
        assert not self[WRONG], self.details(WRONG)


@contextmanager
def load_process() -> Generator[LoadProcess, None, None]:
    """A process that generates loads, one after the other."""
    # A fork would take threads and channels of gRPC along, in whatever state they are.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(_warm_up).result()
        yield LoadProcess(pool)


class LoadProcess:
    """Generates loads beside the test."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def begin(self, load: Load) -> Future[Account]:
        """Start a load; the result is its account."""
        return self._pool.submit(run_load, load)

    def run(self, load: Load) -> Account:
        """Run a load to its end."""
        return self.begin(load).result()


def run_load(load: Load) -> Account:
    """Run a load in this process."""
    return asyncio.run(_Generator(load).run())


def _warm_up() -> None:
    """The imports of this module are what takes its time."""


class _Generator:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._random = random.Random(load.seed)
        self._target = Target(load.url, load.model)
        self._requests: dict[int, bytes] = {}
        self._judgements: dict[tuple[int, bytes], tuple[str, str, int]] = {}
        self._samples: list[Sample] = []
        self._sent = 0

    async def run(self) -> Account:
        load = self._load
        threshold = {} if load.threshold is None else {"threshold": repr(load.threshold)}
        self._model = RawModel(load.url, load.model, _OUTPUTS, threshold, load.channels)
        try:
            began_s = time.monotonic()
            self._end_s = began_s + load.seconds
            if load.steps:
                await self._call_at_rates(began_s)
            else:
                await asyncio.gather(*(self._call_in_turn() for _ in range(load.concurrency)))
        finally:
            await self._model.close()
        return Account(self._sent, began_s, self._samples)

    def _more(self) -> bool:
        limit, stop_file = self._load.requests, self._load.stop_file
        return (
            time.monotonic() < self._end_s
            and (limit is None or self._sent < limit)
            and (stop_file is None or not stop_file.exists())
        )

    async def _call_in_turn(self) -> None:
        while self._more():
            await self._call(time.monotonic())
            if self._samples[-1].outcome == REJECTED:
                await asyncio.sleep(_TURNED_AWAY_S)

    async def _call_at_rates(self, began_s: float) -> None:
        calls: set[asyncio.Task[None]] = set()
        for due_s in self._due_times(began_s):
            if not self._more():
                break
            # Also where it lags behind: answers must be taken in between.
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            call = asyncio.create_task(self._call(due_s))
            calls.add(call)
            call.add_done_callback(calls.discard)
        await asyncio.gather(*calls)

    def _due_times(self, start_s: float) -> Iterator[float]:
        for seconds, rate in self._load.steps:
            due_s = start_s
            start_s += seconds
            while due_s < start_s:
                yield due_s
                due_s += self._random.expovariate(rate) if self._load.poisson else 1 / rate

    async def _call(self, due_s: float) -> None:
        load = self._load
        self._sent += 1
        number = self._sent
        rows = [
            self._random.randrange(len(load.truth.texts))
            for _ in range(self._random.choice(load.sizes))
        ]
        timeout_s = load.timeout_s
        if self._random.random() < load.hurried:
            timeout_s = self._random.uniform(0.001, 0.01)
        give_up_s = None
        if self._random.random() < load.cancelled:
            give_up_s = self._random.uniform(0.0, 0.02)
        sent_s = time.monotonic()
        ending = await self._ending(number, rows, timeout_s, give_up_s)
        ended_s = time.monotonic()
        self._samples.append(Sample(due_s, sent_s, ended_s, len(rows), timeout_s, *ending))

    async def _ending(
        self, number: int, rows: Sequence[int], timeout_s: float, give_up_s: float | None
    ) -> tuple[str, str, int]:
        """Outcome, detail and last stage."""
        patience_s = timeout_s + self._load.grace_s
        answering = self._model.call(number, self._request(rows, timeout_s), patience_s)
        limit_s = patience_s + _HUNG_S if give_up_s is None else give_up_s
        try:
            return self._judged(rows, await asyncio.wait_for(answering, limit_s))
        except asyncio.TimeoutError:
            return (HUNG if give_up_s is None else CANCELLED), "", -1
        except (grpc.RpcError, asyncio.CancelledError) as exc:
            return (*self._failed(exc), -1)

    def _request(self, rows: Sequence[int], timeout_s: float) -> bytes:
        texts = [self._load.truth.texts[row] for row in rows]
        if len(rows) > 1 or timeout_s != self._load.timeout_s:
            return self._model.request(texts, timeout_s)
        if rows[0] not in self._requests:
            self._requests[rows[0]] = self._model.request(texts, timeout_s)
        return self._requests[rows[0]]

    def _judged(self, rows: Sequence[int], answer: bytes) -> tuple[str, str, int]:
        """Outcome, detail and last stage; the same answer to the same row is read once."""
        if len(rows) > 1:
            return self._read(rows, answer)
        key = (rows[0], answer)
        if key not in self._judgements:
            self._judgements[key] = self._read(rows, answer)
        return self._judgements[key]

    def _read(self, rows: Sequence[int], answer: bytes) -> tuple[str, str, int]:
        result = result_of(answer)
        arrays: list[Any] = [result.as_numpy(name) for name in _OUTPUTS]
        if any(array is None or array.shape != (len(rows), 1) for array in arrays):
            return WRONG, f"outputs {[None if a is None else a.shape for a in arrays]}", -1
        outputs = Answer(*(array[:, 0] for array in arrays))
        wrong = self._load.truth.wrong(rows, outputs)
        if wrong is not None:
            return WRONG, wrong, -1
        last_stage = int(outputs.exit_stages.max())
        return (DEGRADED if outputs.degraded.any() else ANSWERED), "", last_stage

    def _failed(self, exc: BaseException) -> tuple[str, str]:
        error = translated(exc, self._target) if isinstance(exc, Exception) else None
        known = isinstance(exc, grpc.aio.AioRpcError)
        detail = (f"[{exc.code()}] {exc.details()}" if known else str(exc))[:300]
        if isinstance(exc, asyncio.CancelledError) or isinstance(error, RequestCancelled):
            return CANCELLED, detail
        if isinstance(error, DeadlineExceeded):
            return DEADLINE, detail
        if isinstance(error, ServerUnavailable):
            return REJECTED, detail
        return ERROR, detail
