"""Traces of calls: spans and their parents, and what passes on without OpenTelemetry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from cascadebert_client import CascadeClient, InvalidRequest, ServerError, Timeline, _tracing
from cascadebert_client._timeline import timeline_from_json
from cascadebert_client._trace_pieces import began_at_ns, pieces_of
from cascadebert_client.cli import main
from cascadebert_client.cli.telemetry import spans_exported
from tests.support.otlp import collecting
from tests.support.waiting import wait_until
from tests.unit.fake_triton import DRIVERS, Driver, FakeTriton, expected, timeline_of

TRACE_ID = "ab" * 16
TRACEPARENT = f"00-{TRACE_ID}-{'cd' * 8}-01"
SURE, UNSURE = (
    next(f"text {i}" for i in range(99) if expected(f"text {i}").exit_stage == stage)
    for stage in (0, 1)
)


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


@pytest.fixture(params=sorted(DRIVERS))
def client(request: pytest.FixtureRequest, server: FakeTriton) -> Iterator[Driver]:
    driver = DRIVERS[request.param](server.url, headers={"x-mine": "1"})
    yield driver
    driver.close()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., InMemorySpanExporter]:
    """Sets OpenTelemetry up, for this test alone."""

    def with_settings(**settings: Any) -> InMemorySpanExporter:
        provider, exporter = TracerProvider(**settings), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        return exporter

    return with_settings


def tree(spans: tuple[ReadableSpan, ...]) -> list[tuple[str, str | None]]:
    """Each span's name and that of its parent, in the order of their start.

    A parent is first: the fake server's times may be longer than the call.
    """
    latest_first = reversed(spans)
    names = {span.context.span_id: span.name for span in spans if span.context}
    return [
        (span.name, names.get(span.parent.span_id) if span.parent else None)
        for span in sorted(latest_first, key=lambda span: span.start_time or 0)
    ]


def test_a_deferred_request_is_one_tree(
    server: FakeTriton, client: Driver, install: Callable[..., InMemorySpanExporter]
) -> None:
    exporter = install()
    answer = client.classify(UNSURE, traceparent=TRACEPARENT)
    assert answer.timeline is None  # the caller did not ask for it
    spans = exporter.get_finished_spans()
    assert {span.context.trace_id for span in spans if span.context} == {int(TRACE_ID, 16)}
    assert tree(spans) == [
        ("classify cascade", None),
        ("cascade", "classify cascade"),
        ("tokenise", "cascade"),
        ("cascade_small", "cascade"),
        ("wait", "cascade"),
        ("cascade_large", "cascade"),
    ]
    call = next(span for span in spans if span.name == "classify cascade")
    assert call.parent is not None
    assert call.context is not None
    assert f"{call.parent.span_id:016x}" == "cd" * 8
    assert call.attributes is not None
    assert call.attributes["cascadebert.exit_stages"] == (1,)
    (request,) = server.requests
    assert request.metadata["traceparent"] == f"00-{TRACE_ID}-{call.context.span_id:016x}-01"
    assert request.metadata["x-mine"] == "1"
    assert request.parameters["traceparent"] == request.metadata["traceparent"]
    large = next(span for span in spans if span.name == "cascade_large")
    assert large.attributes is not None
    assert large.attributes["cascadebert.batch_rows"] == 1
    assert not any(UNSURE in span.to_json() for span in spans)


def test_the_current_span_is_the_parent(
    client: Driver, install: Callable[..., InMemorySpanExporter]
) -> None:
    exporter = install()
    with trace.get_tracer("mine").start_as_current_span("mine"):
        client.classify([SURE] * 20, traceparent=TRACEPARENT)  # more than one request
        list(client.stream([SURE] * 3))
    spans = exporter.get_finished_spans()
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    parents = [parent for name, parent in tree(spans) if name == "classify cascade"]
    assert len(parents) >= 4
    assert set(parents) == {"mine"}


def test_spans_of_a_blocking_stream_end_when_their_answers_arrive(
    server: FakeTriton, install: Callable[..., InMemorySpanExporter]
) -> None:
    """However late the answers are read: here they wait for that of the first row."""
    exporter = install()

    def ended() -> int:
        return [span.name for span in exporter.get_finished_spans()].count("classify cascade")

    with CascadeClient(server.url) as client, ThreadPoolExecutor(1) as reader:
        answers = client.classify_stream(["hang", SURE, SURE], rows_per_request=1)
        read = reader.submit(list, answers)
        try:
            wait_until(lambda: ended() == 2, "two spans that ended", timeout_s=20)
        finally:
            server.release.set()
        assert len(read.result()) == 3


def test_an_error_ends_the_span_and_names_its_type_alone(
    server: FakeTriton, client: Driver, install: Callable[..., InMemorySpanExporter]
) -> None:
    exporter = install()
    server.fail(grpc.StatusCode.INTERNAL, "the text 'secret' was bad")
    with pytest.raises(ServerError):
        client.classify("secret")
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ServerError"
    assert not span.status.is_ok
    assert "secret" not in span.to_json()


def test_a_call_that_is_not_sampled_asks_for_no_timeline(
    server: FakeTriton, client: Driver, install: Callable[..., InMemorySpanExporter]
) -> None:
    exporter = install(sampler=ALWAYS_OFF)
    client.classify("a", traceparent=TRACEPARENT)
    assert not exporter.get_finished_spans()
    (request,) = server.requests
    assert "TIMELINE" not in request.outputs
    assert request.metadata["traceparent"].endswith("-00")


def test_a_cascade_of_an_earlier_release_gets_the_header_alone(
    server: FakeTriton, client: Driver, install: Callable[..., InMemorySpanExporter]
) -> None:
    exporter = install()
    server.timelines = False
    for _ in range(2):
        client.classify("a")
    assert len(server.requests) == 3  # it was told once
    assert all(request.metadata["traceparent"] for request in server.requests)
    assert [r.parameters.get("traceparent") for r in server.requests[1:]] == [None, None]
    assert [span.name for span in exporter.get_finished_spans()] == ["classify cascade"] * 2
    with pytest.raises(InvalidRequest, match="makes no timelines"):
        client.classify("a", explain=True)


def test_without_opentelemetry_the_traceparent_passes_on(
    server: FakeTriton, client: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tracing, "_has_opentelemetry", lambda: False)
    client.classify("a", traceparent=TRACEPARENT)
    client.classify("a")
    traced, plain = server.requests
    assert traced.metadata["traceparent"] == traced.parameters["traceparent"] == TRACEPARENT
    assert "TIMELINE" not in traced.outputs
    assert "traceparent" not in plain.metadata
    assert not plain.parameters


def test_if_it_is_not_set_up_no_call_is_traced(server: FakeTriton, client: Driver) -> None:
    client.classify("a")
    (request,) = server.requests
    assert "traceparent" not in request.metadata


@pytest.mark.parametrize(
    "value", ["", "x", TRACEPARENT.upper(), f"00-{'0' * 32}-{'cd' * 8}-01", f"{TRACEPARENT}-x", 3]
)
def test_a_traceparent_of_another_form_is_refused(client: Driver, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="give W3C's form"):
        client.classify("a", traceparent=value)


def timelines(*texts: str) -> list[Timeline]:
    return [timeline_from_json(timeline_of(expected(text))) for text in texts]


def test_rows_that_ran_together_are_one_piece() -> None:
    pieces = pieces_of(timelines(SURE, UNSURE, UNSURE))
    assert [(piece.name, piece.rows, piece.exits) for piece in pieces] == [
        ("tokenise", 3, 0),
        ("cascade_small", 3, 1),
        ("wait", 2, 0),
        ("cascade_large", 2, 2),
    ]
    assert "cascadebert.confidence" not in pieces[1].attributes
    (_, small) = pieces_of(timelines(SURE))
    assert small.attributes["cascadebert.confidence"] == expected(SURE).confidence


@pytest.mark.parametrize(
    ("sent_s", "answered_s", "expected_s"),
    [(99.0, 101.0, 100.0), (200.0, 200.1, 200.027), (99.99, 100.01, 99.99)],
)
def test_where_the_servers_time_is_placed(
    sent_s: float, answered_s: float, expected_s: float
) -> None:
    timeline = Timeline(100.0, None, 46.0, ())
    found = began_at_ns(timeline, int(1e9 * sent_s), int(1e9 * answered_s))
    assert found == pytest.approx(1e9 * expected_s, abs=1e3)


def test_the_command_sends_its_spans_to_the_collector_of_the_environment(
    server: FakeTriton, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", type(trace._TRACER_PROVIDER_SET_ONCE)())
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        assert main(["classify", "--url", server.url, UNSURE]) == 0
    assert {span.service for span in collector.spans} == {"cascadebert-classify"}
    (trace_id,) = {span.trace_id for span in collector.spans}
    assert collector.tree(trace_id).splitlines()[:2] == ["classify cascade", "  cascade"]


def test_without_the_package_the_variable_is_answered_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with spans_exported("x"):
        pass
    assert "pip install 'cascadebert[otel]'" in capsys.readouterr().err
