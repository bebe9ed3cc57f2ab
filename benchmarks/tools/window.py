"""One measured window: the figures of a load on a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .profile_export import Profile


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of some requests of a window.

    Attributes:
        requests: how many.
        p50_ms, p99_ms: median and 99th percentile.
    """

    requests: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Window:
    """The figures of one run of perf_analyzer.

    Attributes:
        model: that was asked.
        command: perf_analyzer's command line.
        duration_s: time measured, without the ramp.
        throughput_rps: answers per second.
        sent_rps: requests sent per second.
        total: requests of the whole run, the ramp included.
        run_s: of the whole run, from its first request to its last answer.
        all, exited, deferred: latencies; exited requests are those whose rows the first stage
            answered, and either of the two is None where there were none.
        deferred_share: of the requests.
    """

    model: str
    command: str
    duration_s: float
    throughput_rps: float
    sent_rps: float
    total: int
    run_s: float
    all: Latency
    exited: Latency | None
    deferred: Latency | None
    deferred_share: float


def window_of_profile(model: str, profile: Profile, command: str) -> Window:
    """The figures of a profile."""
    return Window(
        model=model,
        command=command,
        duration_s=profile.duration_s,
        throughput_rps=profile.throughput_rps,
        sent_rps=profile.sent_rps,
        total=profile.total,
        run_s=profile.run_s,
        all=latency_of(profile.latencies_ms()),
        exited=latency_or_none(profile.latencies_ms(deferred=False)),
        deferred=latency_or_none(profile.latencies_ms(deferred=True)),
        deferred_share=profile.deferred_share,
    )


def latency_of(latencies_ms: NDArray[np.float64]) -> Latency:
    """Median and 99th percentile of at least one latency."""
    p50, p99 = np.percentile(latencies_ms, (50, 99))
    return Latency(len(latencies_ms), float(p50), float(p99))


def latency_or_none(latencies_ms: NDArray[np.float64]) -> Latency | None:
    """`latency_of`, or None of none."""
    return latency_of(latencies_ms) if len(latencies_ms) else None
