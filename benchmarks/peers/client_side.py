"""A cascade in the client: ask the small member, and the large one if the small one is not sure.

Both ways, several calls by the client or one call to the served cascade, run in the same closed
loop over the project's own client, so that Python costs both the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_client import AsyncCascadeClient, CascadeClientError, Classification
from cascadebert_core.policy import Policy, Threshold
from cascadebert_core.tokenization import Text

from ..tools.latency import Latency, latency_of, latency_or_none
from .python_cascade import Answer

_TIMEOUT_S = 60.0

# Answers one text: the last answer it got, and the number of its calls.
Ask = Callable[[Text], Awaitable[tuple[Answer, int]]]


@dataclass(frozen=True, slots=True)
class Member:
    """One member, as a client asks it alone.

    Attributes:
        model: A cascade of this one member, or any cascade that has it as `stage`.
        stage: The stage of `model`; None if this member is the only one.
    """

    model: str
    stage: int | None = None


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A loop of clients, each with one request of one row in flight.

    Attributes:
        concurrency: The clients.
        duration_s: The time measured, without the ramp.
        requests: The requests answered in that time, whenever they were sent.
        total: The requests of the whole run.
        calls: The calls for the requests answered in that time.
        requests_per_s: The throughput of all clients.
        all: The latencies of all requests.
        exited: The latencies of requests that the first member answered; None if there are none.
        deferred: The latencies of the other requests; None if there are none.
    """

    concurrency: int
    duration_s: float
    requests: int
    total: int
    calls: int
    requests_per_s: float
    all: Latency
    exited: Latency | None
    deferred: Latency | None

    @property
    def deferred_share(self) -> float:
        """The share of the requests that were deferred."""
        return 0.0 if self.deferred is None else self.deferred.requests / self.requests


async def load_client_side(
    url: str,
    members: Sequence[Member],
    policy: Policy,
    texts: Sequence[Text],
    *,
    concurrency: int,
    seconds: float,
    ramp_s: float = 0.0,
) -> ClosedLoop:
    """Put a load on the cascade in the client, at the policy's default operating point.

    Args:
        url: host:port of the server's gRPC endpoint.
        members: One for every stage, small to large.
        policy: The policy with thresholds and labels.
        texts: Sent in turn, again and again.
        concurrency: The tasks, each with one text at a time.
        seconds: The time to measure, the ramp included.
        ramp_s: Answers within this time are left out.

    Raises:
        UsageError: There is not one member for every stage, or there are no texts.
        CheckFailed: A call failed.
    """
    async with _asking_members(url, members, policy) as ask:
        return await _load(ask, texts, concurrency, seconds, ramp_s)


async def load_served(
    url: str,
    cascade: str,
    texts: Sequence[Text],
    *,
    concurrency: int,
    seconds: float,
    ramp_s: float = 0.0,
) -> ClosedLoop:
    """Put a load on the served cascade, one call per text; see `load_client_side`."""
    async with _asking_cascade(url, cascade) as ask:
        return await _load(ask, texts, concurrency, seconds, ramp_s)


async def answers_client_side(
    url: str, members: Sequence[Member], policy: Policy, texts: Sequence[Text]
) -> list[Answer]:
    """Return the answers of the cascade in the client. For errors see `load_client_side`."""
    async with _asking_members(url, members, policy) as ask:
        return [answer for answer, _ in [await ask(text) for text in texts]]


@asynccontextmanager
async def _asking_members(
    url: str, members: Sequence[Member], policy: Policy
) -> AsyncGenerator[Ask, None]:
    if len(members) != len(policy.stages):
        raise UsageError(f"{len(members)} members for {len(policy.stages)} stages: give as many")
    clients = {model: AsyncCascadeClient(url, model) for model in {m.model for m in members}}

    async def ask(text: Text) -> tuple[Answer, int]:
        for i, member in enumerate(members):
            answer = await clients[member.model].classify(
                text, stage=member.stage, timeout_s=_TIMEOUT_S
            )
            is_last = i == len(members) - 1
            if is_last or exits(answer, policy.thresholds[i], policy.labels):
                return Answer(answer.label, answer.confidence, i), i + 1
        raise AssertionError("the last member answers")

    try:
        yield ask
    finally:
        for client in clients.values():
            await client.close()


@asynccontextmanager
async def _asking_cascade(url: str, cascade: str) -> AsyncGenerator[Ask, None]:
    async with AsyncCascadeClient(url, cascade) as client:

        async def ask(text: Text) -> tuple[Answer, int]:
            answer = await client.classify(text, timeout_s=_TIMEOUT_S)
            return Answer(answer.label, answer.confidence, answer.exit_stage), 1

        yield ask


def exits(answer: Classification, threshold: Threshold, labels: Sequence[str]) -> bool:
    """Apply the gate in the client: whether a member's answer is final."""
    if isinstance(threshold, tuple):
        threshold = threshold[labels.index(answer.label)]
    return bool(np.float32(answer.confidence) > np.float32(threshold))


async def _load(
    ask: Ask, texts: Sequence[Text], concurrency: int, seconds: float, ramp_s: float
) -> ClosedLoop:
    if not texts or concurrency < 1:
        raise UsageError(f"{len(texts)} texts, {concurrency} clients: give one or more of both")
    if not 0 <= ramp_s < seconds:
        raise UsageError(f"a ramp of {ramp_s} s: give less than the {seconds} s to measure")
    try:
        await ask(texts[0])  # connects
        taken = np.array(await _loop(ask, texts, concurrency, seconds))
    except CascadeClientError as exc:
        raise CheckFailed(f"a call failed under load: {exc}") from exc
    at_s, ms, stage, calls = taken[(ramp_s <= taken[:, 0]) & (taken[:, 0] <= seconds)].T
    if not len(at_s):
        raise CheckFailed(f"no answer of {concurrency} clients in {seconds} s after the ramp")
    return ClosedLoop(
        concurrency=concurrency,
        duration_s=seconds - ramp_s,
        requests=len(at_s),
        total=len(taken),
        calls=int(calls.sum()),
        requests_per_s=len(at_s) / (seconds - ramp_s),
        all=latency_of(ms),
        exited=latency_or_none(ms[stage == 0]),
        deferred=latency_or_none(ms[stage > 0]),
    )


async def _loop(
    ask: Ask, texts: Sequence[Text], concurrency: int, seconds: float
) -> list[tuple[float, float, int, int]]:
    """Return every answer: its time from the start, its latency in ms, exit stage and calls."""
    taken: list[tuple[float, float, int, int]] = []
    at = 0
    began_s = time.perf_counter()

    async def client() -> None:
        nonlocal at
        while (sent_s := time.perf_counter()) < began_s + seconds:
            text = texts[at % len(texts)]
            at += 1
            answer, calls = await ask(text)
            now_s = time.perf_counter()
            taken.append((now_s - began_s, (now_s - sent_s) * 1000, answer.exit_stage, calls))

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return taken
