"""The cascade's own counts, read from the server's metrics endpoint."""

from __future__ import annotations

import time

from cascadebert_client._metrics_text import fetch_metrics, samples_from_text

ANSWERED_REQUESTS = "requests answered"
EXITED_ROWS = "rows exited"
IN_FLIGHT_ROWS = "rows in flight"
QUEUED_ROWS = "rows queued"


def settled_counters(metrics_port: int) -> dict[str, float]:
    """The counts once nothing is in flight and they stay as they are, or after a minute.

    Requests that were cancelled, or missed their deadline, end in the server when they end there.
    """
    counts: dict[str, float] = {}
    for _ in range(60):
        last, counts = counts, counters(metrics_port)
        if counts == last and not counts[IN_FLIGHT_ROWS]:
            break
        time.sleep(1)  # they are passed on a few times a second
    return counts


def counters(metrics_port: int) -> dict[str, float]:
    """The counts of all cascades and stages together."""
    page = fetch_metrics(f"http://127.0.0.1:{metrics_port}/metrics", timeout_s=10)
    samples = samples_from_text(page, "cascadebert_")

    def total(name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    return {
        ANSWERED_REQUESTS: total("cascadebert_requests_total", outcome="answered"),
        EXITED_ROWS: total("cascadebert_exited_rows_total"),
        IN_FLIGHT_ROWS: total("cascadebert_rows_in_flight"),
        QUEUED_ROWS: total("cascadebert_queued_rows"),
    }
