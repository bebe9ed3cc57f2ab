"""A deferred request, from the gateway's caller to the last stage, is one trace at a collector."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from starlette.testclient import TestClient

from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.serve_parameters import LogSettings
from cascadebert_build.server.trace_flags import trace_flags
from cascadebert_gateway import GatewaySettings, create_app
from tests.support.otlp import Collector, collecting
from tests.support.serving import FREE_PORTS, Built
from tests.support.waiting import wait_until

# On a busy machine Triton 2.51 sometimes sends nothing of a request, and says nothing about it.
_ATTEMPTS = 4
TEXT = "a text that no trace may hold"


def names_of(collector: Collector, trace_id: str) -> set[str]:
    return {span.name for span in collector.of_trace(trace_id)}


def test_a_deferred_request_is_one_tree(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, trace_id = tmp_path / "server.log", ""
    with (
        collecting() as collector,
        serve_cascades(
            built.repository, [built.name], ports=FREE_PORTS, log_path=log,
            options=trace_flags(collector.endpoint), log=LogSettings("all"),
        ) as server,
    ):  # fmt: skip
        provider = TracerProvider(resource=Resource.create({"service.name": "gateway"}))
        exporter = OTLPSpanExporter(f"{collector.endpoint}/v1/traces")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        app = create_app(GatewaySettings(url=server.url, model=built.name))
        with TestClient(app) as gateway:
            for attempt in range(1, _ATTEMPTS + 1):
                trace_id = f"{attempt:032x}"
                answered = gateway.post(
                    "/classify",
                    json={"text": TEXT, "threshold": 1.0},
                    headers={"traceparent": f"00-{trace_id}-{'cd' * 8}-01"},
                )
                (answer,) = answered.json()["answers"]
                assert answer["exit_stage"] == 1
                try:  # Triton sends its own a few seconds later
                    wait_until(lambda: names_of(collector, trace_id) >= {"InferRequest"})  # noqa: B023
                    break
                except AssertionError:
                    assert attempt < _ATTEMPTS, "no trace had the server's own part"
        provider.shutdown()
    spans = collector.of_trace(trace_id)
    by_id = {span.span_id: span for span in spans}
    (root,) = [span for span in spans if span.parent_id not in by_id]
    assert root.parent_id == "cd" * 8
    assert root.name == "POST /classify"
    below = {by_id[span.parent_id].name for span in spans if span.name == "InferRequest"}
    assert below == {"classify tiny"}
    own = collector.tree(trace_id, "classify tiny").splitlines()
    assert "  cascade" in own
    stages = collector.tree(trace_id, "cascade").splitlines()[1:]
    # Which of two comes first may be for the last digit of a clock to say.
    assert sorted(stages) == ["  tiny_large", "  tiny_small", "  tokenise", "  wait"]
    assert not any(TEXT in str(span) for span in collector.spans)
    text = log.read_text()
    assert f'"trace_id": "{trace_id}"' in text
    assert TEXT not in text
