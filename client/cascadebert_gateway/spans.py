"""The gateway's own span of a request, if OpenTelemetry is set up."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cascadebert_client._tracing import is_traceparent, trace_of_call

_CARRIED = ("traceparent", "tracestate")


@dataclass(slots=True)
class Outcome:
    """How a request ended.

    Attributes:
        status: The HTTP status; 500 until it is known.
    """

    status: int = 500


@contextmanager
def server_span(
    method: str, route: str, headers: Mapping[str, str]
) -> Generator[Outcome, None, None]:
    """Put a SERVER span around a request, below the caller's and above the client's.

    Without a tracer provider, or below another span of this process, there is none. It holds
    neither the query nor anything of the body.

    Args:
        method: The HTTP method.
        route: The route, which is one of ours.
        headers: By their names in lower case.
    """
    outcome = Outcome()
    carried = {name: headers[name] for name in _CARRIED if name in headers}
    traceparent = carried.get("traceparent")
    if traceparent is None or not is_traceparent(traceparent):
        carried, traceparent = {}, None
    trace = trace_of_call(traceparent)
    if trace is None or trace.context is None:
        yield outcome
        return
    from opentelemetry import context
    from opentelemetry import trace as otel
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if otel.get_current_span().get_span_context().is_valid:
        yield outcome  # the program around the gateway has made one
        return
    span = otel.get_tracer("cascadebert_gateway").start_span(
        f"{method} {route}",
        TraceContextTextMapPropagator().extract(carried),
        otel.SpanKind.SERVER,
        attributes={"http.request.method": method, "http.route": route},
    )
    token = context.attach(otel.set_span_in_context(span))
    try:
        yield outcome
    finally:
        context.detach(token)
        span.set_attribute("http.response.status_code", outcome.status)
        if outcome.status >= 500:
            span.set_attribute("error.type", str(outcome.status))
            span.set_status(otel.StatusCode.ERROR)
        span.end()
