"""One measured window: a load on a model, its latencies, and what the machine did meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .export import Profile
from .machine import CpuMeter, wait_until_quiet
from .perf_analyzer import Load, PerfAnalyzer


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
        date: of the start, UTC, ISO 8601.
        command: perf_analyzer's command line.
        duration_s: time measured, without the ramp.
        throughput_rps: answers per second.
        all, exited, deferred: latencies; exited requests are those whose rows the first stage
            answered, and either of the two is None where there were none.
        deferred_share: of the requests.
        server_cpu_ms: CPU time of the server for each request, ramp included.
        others_cores: cores that other processes kept busy meanwhile, on average.
    """

    model: str
    date: str
    command: str
    duration_s: float
    throughput_rps: float
    all: Latency
    exited: Latency | None
    deferred: Latency | None
    deferred_share: float
    server_cpu_ms: float
    others_cores: float


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures windows on one server.

    Attributes:
        analyzer: aimed at the server.
        server_pid: of the server.
        wait_quiet_s: how long each window may wait for other processes to leave the machine.
    """

    analyzer: PerfAnalyzer
    server_pid: int
    wait_quiet_s: float = 0.0

    def measure(self, model: str, data: Path, load: Load) -> tuple[Window, Profile]:
        """One window, and every request of it.

        Raises:
            CheckFailed: perf_analyzer failed.
        """
        if self.wait_quiet_s > 0:
            wait_until_quiet(self.wait_quiet_s)
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with CpuMeter(self.server_pid) as cpu:
            profile, command = self.analyzer.profile(model, data, load)
        window = Window(
            model=model,
            date=date,
            command=command,
            duration_s=profile.duration_s,
            throughput_rps=profile.throughput_rps,
            all=latency_of(profile.latencies_ms()),
            exited=_latency_or_none(profile.latencies_ms(deferred=False)),
            deferred=_latency_or_none(profile.latencies_ms(deferred=True)),
            deferred_share=profile.deferred_share,
            server_cpu_ms=1000 * cpu.server_s / profile.total,
            others_cores=cpu.others_cores,
        )
        return window, profile


def latency_of(latencies_ms: NDArray[np.float64]) -> Latency:
    """Median and 99th percentile of at least one latency."""
    p50, p99 = np.percentile(latencies_ms, (50, 99))
    return Latency(len(latencies_ms), float(p50), float(p99))


def _latency_or_none(latencies_ms: NDArray[np.float64]) -> Latency | None:
    return latency_of(latencies_ms) if len(latencies_ms) else None
