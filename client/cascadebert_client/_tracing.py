"""Traces of calls: W3C's traceparent, and spans if OpenTelemetry is installed and set up.

Without OpenTelemetry nothing of it is imported. A traceparent that the caller gives goes to the
server in both cases.
"""

import importlib.util
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cascadebert_core.contract import TRACEPARENT

from ._trace_pieces import PREFIX, began_at_ns, pieces_of
from ._types import Classification
from .errors import InvalidRequest, Target

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_SCOPE = "cascadebert_client"


def is_traceparent(value: str) -> bool:
    """Return whether a value is what W3C's Trace Context allows."""
    return _TRACEPARENT.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace that a call belongs to. It is found in the caller's thread, and used in any.

    Attributes:
        traceparent: What the caller gave; None without it.
        context: The caller's context of OpenTelemetry; None if that is not set up.
    """

    traceparent: str | None
    context: Any = None

    def begin(self, target: Target, rows: int, route: Mapping[str, str | int]) -> "Span":
        """Begin the span of one request.

        Args:
            target: The model that is called.
            rows: Rows of the request.
            route: Request parameters that choose thresholds.
        """
        return Span(self, target, rows, route)


class Span:
    """The span of one request; without OpenTelemetry it only passes the caller's trace on.

    Attributes:
        headers: gRPC metadata that names this span as the parent of the server's.
        records: Whether the span is kept somewhere, so that a timeline is worth its cost.
    """

    def __init__(self, trace: Trace, target: Target, rows: int, route: Mapping[str, str | int]):
        self.headers: dict[str, str] = {}
        self.records = False
        self._span: Any = None
        self._began_ns = time.time_ns()
        if trace.context is None:
            if trace.traceparent is not None:
                self.headers = {TRACEPARENT: trace.traceparent}
            return
        from opentelemetry import trace as otel
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = otel.get_tracer(_SCOPE)
        self._span = self._tracer.start_span(
            f"classify {target.model}",
            trace.context,
            otel.SpanKind.CLIENT,
            attributes={
                "rpc.system": "grpc",
                "server.address": target.url,
                f"{PREFIX}model": target.model,
                f"{PREFIX}rows": rows,
                **{PREFIX + name: value for name, value in route.items()},
            },
            start_time=self._began_ns,
        )
        self.records = self._span.is_recording()
        TraceContextTextMapPropagator().inject(
            self.headers, otel.set_span_in_context(self._span, trace.context)
        )

    def headers_for_model(self) -> dict[str, str]:
        """Return what the cascade itself may read, as request parameters."""
        return {name: value for name, value in self.headers.items() if name == TRACEPARENT}

    def failed(self, error: BaseException) -> None:
        """End the span with an error: its type alone, as a message may quote what a caller gave."""
        if self._span is None:
            return
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("error.type", type(error).__name__)
        self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def answered(self, answers: Sequence[Classification]) -> None:
        """End the span, with the server's stages as its children if the answers have timelines."""
        if self._span is None:
            return
        ended_ns = time.time_ns()
        if self.records:
            self._span.set_attributes(
                {
                    f"{PREFIX}policy": answers[0].policy,
                    f"{PREFIX}exit_stages": sorted({each.exit_stage for each in answers}),
                    f"{PREFIX}degraded_rows": sum(each.degraded for each in answers),
                }
            )
            self._add_stages(answers, ended_ns)
        self._span.end(ended_ns)

    def _add_stages(self, answers: Sequence[Classification], ended_ns: int) -> None:
        from opentelemetry import trace as otel

        timelines = [each.timeline for each in answers if each.timeline is not None]
        if not timelines:
            return
        first = timelines[0]
        base_ns = began_at_ns(first, self._began_ns, ended_ns)
        point = {} if first.operating_point is None else {"operating_point": first.operating_point}
        # Its pieces are below it, and what the network took is around it.
        cascade = self._tracer.start_span(
            "cascade",
            otel.set_span_in_context(self._span),
            attributes={PREFIX + name: value for name, value in point.items()},
            start_time=base_ns,
        )
        below = otel.set_span_in_context(cascade)
        for piece in pieces_of(timelines):
            span = self._tracer.start_span(
                piece.name,
                below,
                attributes=piece.attributes,
                start_time=base_ns + int(1e6 * piece.began_ms),
            )
            span.end(base_ns + int(1e6 * piece.ended_ms))
        cascade.end(base_ns + int(1e6 * first.answered_ms))


def trace_of_call(traceparent: str | None) -> Trace | None:
    """Return the trace that a call of this thread belongs to; None if there is none to make.

    Args:
        traceparent: What the caller gave. The current span of OpenTelemetry comes before it.

    Raises:
        InvalidRequest: It is not W3C's form.
    """
    if traceparent is not None and not (
        isinstance(traceparent, str) and is_traceparent(traceparent)  # pyright: ignore[reportUnnecessaryIsInstance]
    ):
        raise InvalidRequest(
            f"traceparent is {str(traceparent)[:60]!r}: give W3C's form, "
            "00-<32 hexadecimal digits>-<16>-<2>, in lower case"
        )
    if not _has_opentelemetry():
        return None if traceparent is None else Trace(traceparent)
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if isinstance(
        trace.get_tracer_provider(), (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
    ):
        # It is installed, and not set up: spans would go nowhere.
        return None if traceparent is None else Trace(traceparent)
    current = context.get_current()
    if traceparent is not None and not trace.get_current_span(current).get_span_context().is_valid:
        current = TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent}, current)
    return Trace(traceparent, current)


@cache
def _has_opentelemetry() -> bool:
    return importlib.util.find_spec("opentelemetry") is not None and (
        importlib.util.find_spec("opentelemetry.trace") is not None
    )
