"""The gateway's own metrics, in Prometheus's format. The cascade's are on Triton's endpoint."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.responses import Response

_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """Counters of one gateway.

    Attributes:
        in_flight: Requests that have no answer yet.
    """

    def __init__(self) -> None:
        """Start at zero, in a registry of its own."""
        self._registry = CollectorRegistry()
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "cascadebert_gateway_requests",
            "Requests by route and status",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "cascadebert_gateway_request_seconds",
            "Seconds from a request's headers to the end of its answer",
            ("route",),
            buckets=_BOUNDS_S,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "cascadebert_gateway_requests_in_flight",
            "Requests without an answer",
            registry=self._registry,
        )
        self._stages: dict[int, Counter] = {}
        self._rows = Counter(
            "cascadebert_gateway_rows",
            "Answered rows by the stage that answered",
            ("stage",),
            registry=self._registry,
        )

        self._stream_errors = Counter(
            "cascadebert_gateway_stream_errors",
            "Streams that ended in an error after their first answer, so with status 200",
            ("error_type",),
            registry=self._registry,
        )

    def count_stream_error(self, kind: str) -> None:
        """Count a stream whose last line is an error."""
        self._stream_errors.labels(kind).inc()

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        # Finding the series by its labels costs more than counting.
        found = self._children.get((route, status))
        if found is None:
            found = self._requests.labels(route, status), self._seconds.labels(route)
            self._children[route, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def count_rows(self, stage: int, rows: int = 1) -> None:
        """Count rows that a stage has answered."""
        found = self._stages.get(stage)
        if found is None:
            found = self._stages[stage] = self._rows.labels(str(stage))
        found.inc(rows)

    def page(self) -> Response:
        """Return the page that Prometheus reads."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
