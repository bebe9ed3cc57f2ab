"""A cascade in the client: ask the small member, and where it is not sure, the next one.

Both ways, several calls by the client or one call to the served cascade, run in the same closed
loop over the project's own client, so that Python costs them the same.
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

from ..tools.window import Latency, latency_of, latency_or_none
from .python_cascade import Answer

_TIMEOUT_S = 60.0

# Answers one text: the last answer it got, and how many calls it took.
Ask = Callable[[Text], Awaitable[tuple[Answer, int]]]


@dataclass(frozen=True, slots=True)
class Member:
    """One member as a client asks for it alone.

    Attributes:
        model: a cascade of this one member; or any cascade that has it, with `stage`.
        stage: of `model`; None where it has only this one.
    """

    model: str
    stage: int | None = None


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A loop of clients with one request of one row in flight each.

    Attributes:
        concurrency: clients.
        duration_s: time measured, without the ramp.
        requests: answered in that time, whenever they were sent.
        total: of the whole run.
        calls: made for those answered in that time.
        requests_per_s: of all clients.
        all: latencies.
        exited, deferred: latencies of requests that the first member answered, and of the others;
            None where there were none.
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
        """Of the requests."""
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
    """The cascade in the client, at the policy's default operating point.

    Args:
        url: host:port of the server's gRPC endpoint.
        members: one for every stage, small to large.
        policy: for thresholds and labels.
        texts: sent in turn, round and round.
        concurrency: tasks, each with one text at a time.
        seconds: to measure, the ramp included.
        ramp_s: answers within this time are left out.

    Raises:
        UsageError: not one member for every stage, or no texts.
        CheckFailed: a call failed.
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
    """The served cascade, one call a text; arguments and errors as of `load_client_side`."""
    async with _asking_cascade(url, cascade) as ask:
        return await _load(ask, texts, concurrency, seconds, ramp_s)


async def answers_client_side(
    url: str, members: Sequence[Member], policy: Policy, texts: Sequence[Text]
) -> list[Answer]:
    """What the cascade in the client answers, text by text; errors as of `load_client_side`."""
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
            if is_last or is_sure(answer, policy.thresholds[i], policy.labels):
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


def is_sure(answer: Classification, threshold: Threshold, labels: Sequence[str]) -> bool:
    """The gate, in the client: whether a member's answer stands."""
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
        taken = await _loop(ask, texts, concurrency, seconds)
    except CascadeClientError as exc:
        raise CheckFailed(f"a call failed under load: {exc}") from exc
    measured = [one for one in taken if ramp_s <= one.at_s <= seconds]
    if not measured:
        raise CheckFailed(f"no answer of {concurrency} clients in {seconds} s after the ramp")
    return ClosedLoop(
        concurrency=concurrency,
        duration_s=seconds - ramp_s,
        requests=len(measured),
        total=len(taken),
        calls=sum(one.calls for one in measured),
        requests_per_s=len(measured) / (seconds - ramp_s),
        all=latency_of(np.array([one.ms for one in measured])),
        exited=latency_or_none(np.array([one.ms for one in measured if not one.deferred])),
        deferred=latency_or_none(np.array([one.ms for one in measured if one.deferred])),
    )


@dataclass(frozen=True, slots=True)
class _Taken:
    """One answer: when it came, from the start of the loop on, and how long it took."""

    at_s: float
    ms: float
    deferred: bool
    calls: int


async def _loop(ask: Ask, texts: Sequence[Text], concurrency: int, seconds: float) -> list[_Taken]:
    """All answers to what the clients send within so many seconds."""
    taken: list[_Taken] = []
    at = 0
    began_s = time.perf_counter()

    async def client() -> None:
        nonlocal at
        while (sent_s := time.perf_counter()) < began_s + seconds:
            text = texts[at % len(texts)]
            at += 1
            answer, calls = await ask(text)
            now_s = time.perf_counter()
            deferred = answer.exit_stage > 0
            taken.append(_Taken(now_s - began_s, (now_s - sent_s) * 1000, deferred, calls))

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return taken
