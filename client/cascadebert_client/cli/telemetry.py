"""Spans of a command go to a collector if the environment names one."""

import contextlib
import os
import sys
from collections.abc import Generator

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@contextlib.contextmanager
def spans_exported(service: str) -> Generator[None, None, None]:
    """Send the spans of a block to the collector of the environment, over OTLP/HTTP.

    The variables are OpenTelemetry's own. Without an endpoint there, nothing is imported.

    Args:
        service: The service's name, unless the environment has one.
    """
    named = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or os.environ.get("OTEL_TRACES_EXPORTER", "").lower() == "none"
    )
    if named is None or off:
        yield
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        sys.stderr.write(
            f"{named} is set, and there are no traces: pip install 'cascadebert[otel]'\n"
        )
        yield
        return
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        yield  # the program around this has set it up
        return
    own = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
    provider = TracerProvider(resource=Resource.create(own))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
