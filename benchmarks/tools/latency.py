"""Latencies of requests in two figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Latency:
    """The latencies of some requests.

    Attributes:
        requests: The number of requests.
        p50_ms: The median.
        p99_ms: The 99th percentile.
    """

    requests: int
    p50_ms: float
    p99_ms: float


def latency_of(latencies_ms: Any) -> Latency:
    """Summarise one latency or more."""
    p50, p99 = np.percentile(latencies_ms, (50, 99))
    return Latency(len(latencies_ms), float(p50), float(p99))


def latency_or_none(latencies_ms: Any) -> Latency | None:
    """Summarise latencies; None if there are none."""
    return latency_of(latencies_ms) if len(latencies_ms) else None
