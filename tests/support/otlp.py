"""A small receiver of OTLP over HTTP, as a collector is, that keeps the spans it gets."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_IDS = ("traceId", "spanId", "parentSpanId")


@dataclass(frozen=True)
class Span:
    """A span as it came over the wire. Times are seconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    began_s: float
    ended_s: float
    attributes: dict[str, Any]
    failed: bool


@dataclass
class Collector:
    """The spans so far."""

    port: int
    spans: list[Span] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """The URL that OTEL_EXPORTER_OTLP_ENDPOINT takes."""
        return f"http://127.0.0.1:{self.port}"

    def of_trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace, the first ones first."""
        found = [span for span in self.spans if span.trace_id == trace_id]
        return sorted(found, key=lambda span: span.began_s)

    def tree(self, trace_id: str, root: str | None = None) -> str:
        """The spans of one trace, each below its parent, with two spaces a level.

        Args:
            trace_id: The trace.
            root: The name of the span to begin with; None for all that have no parent here.
        """
        spans = self.of_trace(trace_id)
        known = {span.span_id for span in spans}

        def lines(span: Span, depth: int) -> list[str]:
            below = [each for each in spans if each.parent_id == span.span_id]
            rest = [line for each in below for line in lines(each, depth + 1)]
            return ["  " * depth + span.name, *rest]

        roots = [s for s in spans if (s.parent_id not in known if root is None else s.name == root)]
        return "\n".join(line for span in roots for line in lines(span, 0))


@contextmanager
def collecting() -> Generator[Collector, None, None]:
    """A receiver on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            as_json = self.headers["Content-Type"] == "application/json"  # Triton's exporter
            message = (
                _message_of_json(body) if as_json else ExportTraceServiceRequest.FromString(body)
            )
            collector.spans += _spans_of(message)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def _message_of_json(body: bytes) -> Any:
    """OTLP has ids in hex, where protobuf's own JSON has base64."""

    def with_base64(found: dict[str, Any]) -> dict[str, Any]:
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode() if key in _IDS else value
            for key, value in found.items()
        }

    content = json.loads(body, object_hook=with_base64)
    return json_format.ParseDict(content, ExportTraceServiceRequest(), ignore_unknown_fields=True)


def _spans_of(message: Any) -> list[Span]:
    spans: list[Span] = []
    for resource in message.resource_spans:
        service = _attributes(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            spans += [
                Span(
                    each.trace_id.hex(),
                    each.span_id.hex(),
                    each.parent_span_id.hex(),
                    each.name,
                    service,
                    each.start_time_unix_nano / 1e9,
                    each.end_time_unix_nano / 1e9,
                    _attributes(each.attributes),
                    each.status.code == 2,
                )
                for each in scope.spans
            ]
    return spans


def _attributes(found: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for each in found:
        value = each.value
        kind = value.WhichOneof("value")
        values[each.key] = (
            [getattr(v, v.WhichOneof("value")) for v in value.array_value.values]
            if kind == "array_value"
            else getattr(value, kind)
        )
    return values
