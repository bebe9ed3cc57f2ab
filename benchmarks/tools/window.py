"""The requests that were answered in a window of time: throughput and latencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.errors import CheckFailed


@dataclass(frozen=True, slots=True)
class Latency:
    """The latencies of some requests: how many, their median and their 99th percentile in ms."""

    requests: int
    p50_ms: float
    p99_ms: float


def latency_of(latencies_ms: Any) -> Latency:
    """Summarise one latency or more."""
    p50, p99 = np.percentile(latencies_ms, (50, 99))
    return Latency(len(latencies_ms), float(p50), float(p99))


@dataclass(frozen=True, slots=True)
class Window:
    """The figures of a window.

    Attributes:
        duration_s: The time measured, without the ramp.
        throughput_rps: Answers per second of that time.
        sent_rps: Requests sent per second of it: the actual rate of an open loop.
        total: The requests of the whole run, the ramp included.
        run_s: The whole run, from its first request to its last answer.
        all: The latencies of all requests.
        exited: The latencies of requests whose rows were all answered by the first stage; None if
            there are none.
        deferred: The latencies of requests with a row that went further; None if there are none.
        deferred_share: The share of these in all requests.
        command: The command line of the load generator, if it has one.
    """

    duration_s: float
    throughput_rps: float
    sent_rps: float
    total: int
    run_s: float
    all: Latency
    exited: Latency | None
    deferred: Latency | None
    deferred_share: float
    command: str = ""


def window_of_requests(
    sent_s: NDArray[np.float64],
    answered_s: NDArray[np.float64],
    last_stage: NDArray[np.int64],
    start_s: float,
    end_s: float,
) -> Window:
    """Summarise the requests that were answered in a window.

    Requests count by the time of their answer. If the time of sending had to be in the window too,
    more slow requests than fast ones would be left out.

    Args:
        sent_s: When n requests were sent, in seconds, shape (n,).
        answered_s: When they were answered, shape (n,).
        last_stage: The last stage that any of their rows exited at, 0-based; -1 if not known.
        start_s: The start of the window.
        end_s: The end of the window.

    Raises:
        CheckFailed: There is no answer in the window.
    """
    measured = (start_s <= answered_s) & (answered_s <= end_s)
    if not measured.any() or end_s <= start_s:
        raise CheckFailed(f"none of {len(sent_s)} answers is in the window after the ramp")
    ms, stages = 1000 * (answered_s - sent_s)[measured], last_stage[measured]
    exited, deferred = ms[stages == 0], ms[stages > 0]
    return Window(
        duration_s=end_s - start_s,
        throughput_rps=len(ms) / (end_s - start_s),
        sent_rps=int(((start_s <= sent_s) & (sent_s <= end_s)).sum()) / (end_s - start_s),
        total=len(sent_s),
        run_s=float(answered_s.max() - sent_s.min()),
        all=latency_of(ms),
        exited=latency_of(exited) if len(exited) else None,
        deferred=latency_of(deferred) if len(deferred) else None,
        deferred_share=len(deferred) / len(ms),
    )
