"""The flags with which tritonserver sends traces to a collector of OpenTelemetry."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..errors import UsageError

_PATH = "/v1/traces"


def trace_flags(url: str | None) -> tuple[str, ...]:
    """Return the flags for a collector; none without one.

    A request with a traceparent is always traced, and of the others one in a thousand, which is
    Triton's own rate. Timestamps alone: its other level writes tensors, and so texts.

    Args:
        url: The collector's OTLP/HTTP endpoint, with or without its path.

    Raises:
        UsageError: It is no URL of HTTP.
    """
    if url is None:
        return ()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"--trace-to {url}: give a URL, such as http://localhost:4318")
    path = parts.path.rstrip("/") or _PATH
    return (
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=1000",
        f"--trace-config=opentelemetry,url={parts.scheme}://{parts.netloc}{path}",
        "--trace-config=opentelemetry,resource=service.name=tritonserver",
    )
