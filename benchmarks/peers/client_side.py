"""A cascade in the client: ask the small member, and where it is not sure, the next one.

Both ways, several calls by the client or one call to the served cascade, run in the same closed
loop over the project's own client, so that Python costs them the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_client import AsyncCascadeClient, CascadeClientError, Classification
from cascadebert_core.policy import Policy, Threshold
from cascadebert_core.tokenization import Text

from ..window import Latency, latency_of

_TIMEOUT_S = 60.0

# Answers one text: the last answer it got, and how many calls it took.
Ask = Callable[[Text], Awaitable[tuple[Classification, int]]]


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
        duration_s: time measured.
        requests: answered in that time.
        calls: made for them.
        requests_per_s: of all clients.
        exited, deferred: latencies of requests that the first member answered, and of the others;
            None where there were none.
    """

    concurrency: int
    duration_s: float
    requests: int
    calls: int
    requests_per_s: float
    exited: Latency | None
    deferred: Latency | None


def members_of_cascade(cascade: str, policy: Policy) -> tuple[Member, ...]:
    """Every stage of a served cascade, as a member that is asked alone."""
    return tuple(Member(cascade, stage) for stage in range(len(policy.stages)))


async def load_client_side(
    url: str,
    members: Sequence[Member],
    policy: Policy,
    texts: Sequence[Text],
    *,
    concurrency: int,
    seconds: float,
) -> ClosedLoop:
    """The cascade in the client, at the policy's default operating point.

    Args:
        url: host:port of the server's gRPC endpoint.
        members: one for every stage, small to large.
        policy: for thresholds and labels.
        texts: sent in turn, round and round.
        concurrency: tasks, each with one text at a time.
        seconds: to measure.

    Raises:
        UsageError: not one member for every stage, or no texts.
        CheckFailed: a call failed.
    """
    if len(members) != len(policy.stages):
        raise UsageError(f"{len(members)} members for {len(policy.stages)} stages: give as many")
    clients = {model: AsyncCascadeClient(url, model) for model in {m.model for m in members}}

    async def ask(text: Text) -> tuple[Classification, int]:
        for member, threshold in zip(members[:-1], policy.thresholds, strict=True):
            answer = await clients[member.model].classify(
                text, stage=member.stage, timeout_s=_TIMEOUT_S
            )
            if is_sure(answer, threshold, policy.labels):
                return answer, members.index(member) + 1
        last = members[-1]
        answer = await clients[last.model].classify(text, stage=last.stage, timeout_s=_TIMEOUT_S)
        return answer, len(members)

    try:
        return await _load(ask, lambda _, calls: calls > 1, texts, concurrency, seconds)
    finally:
        for client in clients.values():
            await client.close()


async def load_served(
    url: str, cascade: str, texts: Sequence[Text], *, concurrency: int, seconds: float
) -> ClosedLoop:
    """The served cascade, one call a text; arguments and errors as of `load_client_side`."""
    async with AsyncCascadeClient(url, cascade) as client:

        async def ask(text: Text) -> tuple[Classification, int]:
            return await client.classify(text, timeout_s=_TIMEOUT_S), 1

        return await _load(
            ask, lambda answer, _: answer.exit_stage > 0, texts, concurrency, seconds
        )


def is_sure(answer: Classification, threshold: Threshold, labels: Sequence[str]) -> bool:
    """The gate, in the client: whether a member's answer stands."""
    if isinstance(threshold, tuple):
        threshold = threshold[labels.index(answer.label)]
    return bool(np.float32(answer.confidence) > np.float32(threshold))


async def _load(
    ask: Ask,
    was_deferred: Callable[[Classification, int], bool],
    texts: Sequence[Text],
    concurrency: int,
    seconds: float,
) -> ClosedLoop:
    if not texts or concurrency < 1:
        raise UsageError(f"{len(texts)} texts, {concurrency} clients: give one or more of both")
    await ask(texts[0])  # connects
    taken: list[tuple[float, bool, int]] = []  # ms, deferred, calls
    at = 0
    began_s = time.perf_counter()
    end_s = began_s + seconds

    async def client() -> None:
        nonlocal at
        while time.perf_counter() < end_s:
            text = texts[at % len(texts)]
            at += 1
            sent_s = time.perf_counter()
            answer, calls = await ask(text)
            now_s = time.perf_counter()
            taken.append(((now_s - sent_s) * 1000, was_deferred(answer, calls), calls))

    try:
        await asyncio.gather(*(client() for _ in range(concurrency)))
    except CascadeClientError as exc:
        raise CheckFailed(f"a call failed under load: {exc}") from exc
    duration_s = time.perf_counter() - began_s
    return ClosedLoop(
        concurrency=concurrency,
        duration_s=duration_s,
        requests=len(taken),
        calls=sum(calls for _, _, calls in taken),
        requests_per_s=len(taken) / duration_s,
        exited=_latency([ms for ms, deferred, _ in taken if not deferred]),
        deferred=_latency([ms for ms, deferred, _ in taken if deferred]),
    )


def _latency(taken_ms: list[float]) -> Latency | None:
    return latency_of(np.array(taken_ms)) if taken_ms else None
