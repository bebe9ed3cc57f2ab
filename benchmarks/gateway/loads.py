"""Closed loops in a process of their own: callers of HTTP, and callers with the asyncio client."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from cascadebert_build.errors import CheckFailed
from cascadebert_build.server.ports import HOST
from cascadebert_client import AsyncCascadeClient

_RAMP_S = 1.0

Ask = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Loop:
    """What a closed loop did.

    Attributes:
        requests: Those that were answered in the window.
        all_requests: The same with the ramp before it.
        wall_s: Seconds of the window.
        cpu_s: CPU seconds of the callers' process in the window.
    """

    requests: int
    all_requests: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Shape:
    """A closed loop: how many callers with one request in flight, and seconds of its window."""

    clients: int
    window_s: float


def in_own_process(function: Callable[..., Loop], *arguments: Any, **options: Any) -> Loop:
    """Run a loop in a fresh process, so that its CPU is that of the callers alone."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()


def client_loop(
    url: str,
    model: str,
    texts: Sequence[str],
    shape: Shape,
    *,
    on_uvloop: bool,
) -> Loop:
    """Callers of the asyncio client, on the loop of the gateway or on Python's own."""

    async def run() -> Loop:
        async with AsyncCascadeClient(url, model) as client:

            async def ask(text: str) -> None:
                await client.classify(text)

            return await _loop([ask] * shape.clients, itertools.cycle(texts), shape.window_s)

    if not on_uvloop:
        return asyncio.run(run())
    import uvloop

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


def http_loop(port: int, path: str, bodies: Sequence[bytes], shape: Shape) -> Loop:
    """Callers of HTTP on this machine, each with one connection that it keeps."""

    async def run() -> Loop:
        connections = [await asyncio.open_connection(HOST, port) for _ in range(shape.clients)]
        requests = [
            f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
            for body in bodies
        ]
        try:
            callers = [_caller(*connection) for connection in connections]
            return await _loop(callers, itertools.cycle(requests), shape.window_s)
        finally:
            for _, writer in connections:
                writer.close()

    return asyncio.run(run())


def _caller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Ask:
    async def ask(request: bytes) -> None:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status, length = head.split(" ", 2)[1], head.partition("content-length:")[2]
        if length:
            body = await reader.readexactly(int(length.split("\r\n", 1)[0]))
        else:  # in chunks, of which the last is empty
            body = await reader.readuntil(b"\r\n0\r\n\r\n")
        if status != "200":
            raise CheckFailed(f"the answer has status {status}: {body[:200]!r}")

    return ask


async def _loop(callers: Sequence[Ask], requests: Iterator[Any], window_s: float) -> Loop:
    """Let every caller ask, one request after the other, until the window is over."""
    start_s = time.perf_counter()
    end_s = start_s + _RAMP_S + window_s
    answered = 0
    at_start: list[tuple[float, float, int]] = []

    async def call(ask: Ask) -> None:
        nonlocal answered
        while (now_s := time.perf_counter()) < end_s:
            if not at_start and now_s >= start_s + _RAMP_S:
                at_start.append((now_s, time.process_time(), answered))
            await ask(next(requests))
            answered += 1

    await asyncio.gather(*map(call, callers))
    began_s, cpu_s, before = at_start[0]
    return Loop(
        answered - before, answered, time.perf_counter() - began_s, time.process_time() - cpu_s
    )
