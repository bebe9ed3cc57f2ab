"""A cascade in the client: ask the small member, and the large one if the small one is not sure.

Both ways, several calls by the client or one call to the served cascade, run in the same closed
loop over the project's own client, so that Python costs both the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import numpy as np

from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_client import AsyncCascadeClient, CascadeClientError, Classification
from cascadebert_core.policy import Policy, Threshold
from cascadebert_core.tokenization import Text

from ..tools.window import Window, window_of_requests
from .python_cascade import Answer

_TIMEOUT_S = 60.0

# Answers one text.
Ask = Callable[[Text], Awaitable[Answer]]
# A member as a client asks it alone: a model of this one member and None, or a model and its stage.
Member = tuple[str, int | None]


@asynccontextmanager
async def asking_members(
    url: str, members: Sequence[Member], policy: Policy
) -> AsyncGenerator[Ask, None]:
    """Yield the cascade in the client, at the policy's default operating point.

    Args:
        url: host:port of the server's gRPC endpoint.
        members: One for every stage, small to large.
        policy: The policy with thresholds and labels.

    Raises:
        UsageError: There is not one member for every stage.
    """
    if len(members) != len(policy.stages):
        raise UsageError(f"{len(members)} members for {len(policy.stages)} stages: give as many")
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncCascadeClient(url, model)) for model, _ in members
        ]

        async def ask(text: Text) -> Answer:
            for i, (client, (_, stage)) in enumerate(zip(clients, members, strict=True)):
                answer = await client.classify(text, stage=stage, timeout_s=_TIMEOUT_S)
                is_last = i == len(members) - 1
                if is_last or exits(answer, policy.thresholds[i], policy.labels):
                    return Answer(answer.label, answer.confidence, i)
            raise AssertionError("the last member answers")

        yield ask


@asynccontextmanager
async def asking_cascade(url: str, cascade: str) -> AsyncGenerator[Ask, None]:
    """Yield the served cascade, one call per text."""
    async with AsyncCascadeClient(url, cascade) as client:

        async def ask(text: Text) -> Answer:
            answer = await client.classify(text, timeout_s=_TIMEOUT_S)
            return Answer(answer.label, answer.confidence, answer.exit_stage)

        yield ask


async def answers_of(
    asking: AbstractAsyncContextManager[Ask], texts: Sequence[Text]
) -> list[Answer]:
    """Return the answers to texts, asked one after the other."""
    async with asking as ask:
        return [await ask(text) for text in texts]


async def closed_loop(
    asking: AbstractAsyncContextManager[Ask],
    texts: Sequence[Text],
    *,
    concurrency: int,
    seconds: float,
    ramp_s: float = 0.0,
) -> Window:
    """Put a load on a cascade.

    Args:
        asking: `asking_members` or `asking_cascade`.
        texts: Sent in turn, again and again.
        concurrency: The tasks, each with one text at a time.
        seconds: The time to measure, the ramp included.
        ramp_s: Answers within this time are left out.

    Raises:
        CheckFailed: A call failed, or there was no answer after the ramp.
    """
    requests: list[tuple[float, float, int]] = []
    at = 0
    async with asking as ask:

        async def client() -> None:
            nonlocal at
            while (sent_s := time.perf_counter()) < began_s + seconds:
                text = texts[at % len(texts)]
                at += 1
                answer = await ask(text)
                requests.append((sent_s, time.perf_counter(), answer.exit_stage))

        try:
            await ask(texts[0])  # connects
            began_s = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(concurrency)))
        except CascadeClientError as exc:
            raise CheckFailed(f"a call failed under load: {exc}") from exc
    sent_s, answered_s, stage = np.array(requests).T
    return window_of_requests(
        sent_s - began_s, answered_s - began_s, stage.astype(np.int64), ramp_s, seconds
    )


def exits(answer: Classification, threshold: Threshold, labels: Sequence[str]) -> bool:
    """Apply the gate in the client: whether a member's answer is final."""
    if isinstance(threshold, tuple):
        threshold = threshold[labels.index(answer.label)]
    return bool(np.float32(answer.confidence) > np.float32(threshold))
