"""Requests that are in flight while their server is told to stop."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from cascadebert_client import AsyncCascadeClient, Classification
from tests.support.checkpoints import TEXTS
from tests.support.faulty import HANG, FaultyStage

# Longer than a server of its own accord waits: it unloads the first stage after two seconds.
_HANG_S = 5.0
_REQUESTS = 40
_ROWS = 8


def with_faulty_stage(repository: Path, stage: str, folder: Path) -> tuple[Path, FaultyStage]:
    """Copy a repository into `folder`, and give a stage of the copy a switch for faults."""
    copied = folder / "repository"
    shutil.copytree(repository, copied)
    return copied, FaultyStage(copied, stage)


def answers_of_requests_in_flight(
    url: str, name: str, last_stage: FaultyStage, stop: Callable[[], None]
) -> list[list[Classification] | BaseException]:
    """Send requests, stop the server while their last stage hangs, and return what came back."""

    async def run() -> list[list[Classification] | BaseException]:
        texts = (list(TEXTS) * _ROWS)[:_ROWS]
        async with AsyncCascadeClient(url, name, retry=None) as client:
            await client.classify(texts)
            last_stage.begin(HANG)
            calls = [
                asyncio.create_task(client.classify(texts, threshold=1.0)) for _ in range(_REQUESTS)
            ]
            await asyncio.sleep(1.0)
            assert not any(call.done() for call in calls)
            stopping = asyncio.create_task(asyncio.to_thread(stop))
            await asyncio.sleep(_HANG_S)
            last_stage.end()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            await stopping
            return answers

    return asyncio.run(run())
