"""The cascade's own counts, read from the server's metrics endpoint."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from cascadebert_client._metrics_text import fetch_metrics, samples_from_text
from cascadebert_core import metric_names

from .waiting import settled

ANSWERED_REQUESTS = "requests answered"
EXITED_ROWS = "rows exited"
IN_FLIGHT_ROWS = "rows in flight"
QUEUED_ROWS = "rows queued"

# The cascade passes its counts on twice a second. After this time without a change, they are all
# there.
_UNCHANGED_S = 1.2


@dataclass(frozen=True)
class MetricsPage:
    """The metrics endpoint of a server on this machine."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"

    def text(self) -> str:
        """Read the page."""
        return fetch_metrics(self.url, timeout_s=10)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over the series of a metric with these labels."""
        return _total(samples_from_text(self.text(), name), name, labels)

    def settled(self, name: str, **labels: str) -> float:
        """Return the same sum once the counts of earlier requests have arrived."""
        return settled(lambda: self.total(name, **labels), unchanged_s=_UNCHANGED_S)


def settled_counters(metrics_port: int) -> dict[str, float]:
    """Return the counts once nothing is in flight and they stay as they are, or after a minute.

    Requests that were cancelled or missed their deadline may go on in the server for a while.
    """
    look = itertools.count(1)

    def read() -> tuple[dict[str, float], int]:
        counts = counters(metrics_port)
        # While rows are in flight, no two looks are equal.
        return counts, next(look) if counts[IN_FLIGHT_ROWS] else 0

    return settled(read, unchanged_s=_UNCHANGED_S)[0]


def counters(metrics_port: int) -> dict[str, float]:
    """Return the counts of all cascades and stages together."""
    samples = samples_from_text(MetricsPage(metrics_port).text(), metric_names.PREFIX)
    return {
        ANSWERED_REQUESTS: _total(
            samples, metric_names.REQUESTS, {"outcome": metric_names.ANSWERED}
        ),
        EXITED_ROWS: _total(samples, metric_names.EXITED, {}),
        IN_FLIGHT_ROWS: _total(samples, metric_names.IN_FLIGHT, {}),
        QUEUED_ROWS: _total(samples, metric_names.QUEUED, {}),
    }


def _total(samples: Any, name: str, labels: dict[str, str]) -> float:
    return sum(
        sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
