"""The gateway's time limits, statuses of streams, and what it says of failures behind it."""

from __future__ import annotations

import asyncio
import json
import logging
import select
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from cascadebert_client import Classification
from cascadebert_client.cli import main
from cascadebert_gateway import GatewaySettings, create_app, errors
from cascadebert_gateway.errors import ApiError
from cascadebert_gateway.origins import is_origin
from cascadebert_gateway.stream import answer_lines, lines_of, row_of
from tests.support.gateways import running_gateway
from tests.support.waiting import wait_until
from tests.unit.fake_triton import LABELS, POLICY, FakeTriton, expected

HUGE = "9" * 5000


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    with FakeTriton(
        parameters={"policy": POLICY, "labels": json.dumps(LABELS)}, max_batch_size=64
    ) as running:
        yield running


@pytest.fixture
def gateway(server: FakeTriton) -> Iterator[Any]:
    with ExitStack() as stack:

        def start(**settings: Any) -> TestClient:
            settings.setdefault("url", server.url)
            app = create_app(GatewaySettings(**settings))
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


def stream_errors(client: TestClient) -> dict[str, float]:
    """The counted errors of streams by their kind."""
    start = "cascadebert_gateway_stream_errors_total{"
    lines = [each for each in client.get("/metrics").text.splitlines() if each.startswith(start)]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (HUGE, 400),
        (f'{{"text": "a", "more": {HUGE}}}', 400),
        ("nonsense", 400),
        ('"no end', 400),
        ("3", 422),
        ('"' + "a" * 9000 + '"', 413),
    ],
)
def test_an_error_of_a_stream_has_its_status_until_there_is_an_answer(
    gateway: Any, line: str, status: int
) -> None:
    client = gateway(max_body_bytes=6000)
    first = client.post("/classify/stream", content=line)
    found = first.json()
    assert (first.status_code, found["line"], found["answered"]) == (status, 1, 0)
    assert "at at" not in found["error"]
    assert stream_errors(client) == {}, "it is counted by its status"
    later = client.post("/classify/stream", content=f'"a"\n{line}')
    answer, error = map(json.loads, later.text.splitlines())
    assert (later.status_code, error["line"], error["answered"]) == (200, 2, 1)
    assert "label" in answer
    assert stream_errors(client) == {error["error_type"]: 1.0}


def test_a_stream_without_a_server_and_one_without_rows(gateway: Any, server: FakeTriton) -> None:
    empty = gateway().post("/classify/stream", content="\n\n")
    assert (empty.status_code, empty.text) == (200, "")
    dead = gateway(url="127.0.0.1:1").post("/classify/stream", content='"a"')
    assert (dead.status_code, dead.json()["error_type"]) == (503, "unavailable")
    assert int(dead.headers["Retry-After"]) >= 1
    client = gateway()
    client.post("/classify/stream", content='"a"')
    server.fail(grpc.StatusCode.INTERNAL, "boom", times=10)  # after its task is known
    failed = client.post("/classify/stream", content='"a"')
    assert (failed.status_code, failed.json()["answered"]) == (502, 0)


def test_a_number_with_too_many_digits_is_no_row() -> None:
    with pytest.raises(ApiError, match="line 7: a number has too many digits") as caught:
        row_of(HUGE.encode(), 7)
    assert caught.value.status == 400


def test_any_other_failure_is_the_last_line_of_a_stream() -> None:
    told: list[str] = []

    async def answers() -> AsyncGenerator[Classification, None]:
        yield Classification("a", (1.0,), 1.0, 0, False, POLICY)
        raise ZeroDivisionError

    async def collected() -> list[bytes]:
        return [each async for each in answer_lines(answers(), lambda _: "{}", told.append)]

    answer, last = map(json.loads, asyncio.run(collected()))
    assert answer == {}
    assert (last["error_type"], last["answered"]) == ("internal", 1)
    assert told == ["internal"]


async def parts_of(*chunks: bytes, then_hangs: bool = False) -> AsyncGenerator[bytes, None]:
    for chunk in chunks:
        yield chunk
    if then_hangs:
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ((b"a\nb\n",), [b"a", b"b"]),
        ((b"a", b"", b"b\n", b"\n", b"c"), [b"ab", b"", b"c"]),
        ((b"a\nb", b"c\nd", b"\n"), [b"a", b"bc", b"d"]),
        ((), []),
    ],
)
def test_lines_of_chunks(chunks: tuple[bytes, ...], lines: list[bytes]) -> None:
    async def collected() -> list[bytes]:
        return [each async for each in lines_of(parts_of(*chunks), 10, 60)]

    assert asyncio.run(collected()) == lines


def test_a_line_that_does_not_arrive() -> None:
    found: list[bytes] = []

    async def collect() -> None:
        async for line in lines_of(parts_of(b"a\nb", then_hangs=True), 10, 0.05):
            found.append(line)  # noqa: PERF401 - what came before the error is kept

    with pytest.raises(ApiError, match="line 2 did not arrive") as caught:
        asyncio.run(collect())
    assert (caught.value.status, found) == (408, [b"a"])


def test_a_body_that_does_not_arrive_holds_no_place(server: FakeTriton) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n"
    with running_gateway(url=server.url, timeout_s=2.0, max_requests=1) as address:
        host, port = address.removeprefix("http://").split(":")
        with (
            socket.create_connection((host, int(port)), timeout=30) as half,
            socket.create_connection((host, int(port)), timeout=30) as other,
            socket.create_connection((host, int(port)), timeout=30) as stream,
        ):
            half.sendall(head % b"/classify" + b'{"text": ')
            other.sendall(head.replace(b"50", b"13") % b"/classify" + b'{"text": "a"}')
            assert other.recv(100).startswith(b"HTTP/1.1 200")
            stream.sendall(head % b"/classify/stream" + b'"a')
            assert half.recv(100).startswith(b"HTTP/1.1 408")
            assert stream.recv(100).startswith(b"HTTP/1.1 408")


_STREAM_HEAD = b"POST /classify/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk_of(line: bytes) -> bytes:
    """A line as a chunk of HTTP."""
    return b"%x\r\n%s\n\r\n" % (len(line) + 1, line)


def test_a_row_of_a_stream_is_answered_while_the_next_has_not_come(server: FakeTriton) -> None:
    with running_gateway(url=server.url, timeout_s=30) as address:
        host, port = address.removeprefix("http://").split(":")
        with (
            socket.create_connection((host, int(port)), timeout=30) as caller,
            caller.makefile("rb") as received,
        ):
            caller.sendall(_STREAM_HEAD)
            for text in ("a", "b", "c"):
                caller.sendall(chunk_of(json.dumps(text).encode()))
                while not (line := received.readline()).startswith(b"{"):
                    assert line, "the gateway closed the stream"
                assert json.loads(line)["confidence"] == expected(text).confidence


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("first", [b"", b'"a"'])
def test_a_caller_of_a_stream_who_hangs_up_cancels_its_requests(
    server: FakeTriton, capsys: pytest.CaptureFixture[str], first: bytes, whole: bool
) -> None:
    with running_gateway(url=server.url, timeout_s=30) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as caller:
            caller.sendall(_STREAM_HEAD + chunk_of(first))
            if first:
                assert caller.recv(100)
            caller.sendall(chunk_of(b'"hang"') + whole * b"0\r\n\r\n")
            assert server.hanging.acquire(timeout=20)
        assert server.wait_until_given_up(1)
        wait_until(lambda: b'status="499"' in urlopen(f"{address}/metrics").read())
    assert capsys.readouterr().err == ""


def test_bodies_that_still_arrive_have_a_limit_together(server: FakeTriton) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    limits = {"timeout_s": 20, "max_requests": 1, "max_body_bytes": 1000}
    with running_gateway(url=server.url, **limits) as address, ExitStack() as stack:
        host, port = address.removeprefix("http://").split(":")
        halves: list[socket.socket] = []
        for _ in range(2):
            half = socket.create_connection((host, int(port)), timeout=30)
            halves.append(stack.enter_context(half))
            half.sendall(head + b" " * 600)
        # Which of both was one too many is for the event loop to say.
        ready, _, _ = select.select(halves, [], [], 30)
        assert ready[0].recv(100).startswith(b"HTTP/1.1 503")
        (other,) = (half for half in halves if half is not ready[0])
        other.sendall(b'{"text": "a"}'.rjust(400))
        assert other.recv(100).startswith(b"HTTP/1.1 200")


def test_the_task_is_asked_before_rows_are_sent(gateway: Any, server: FakeTriton) -> None:
    server.parameters["task"] = "multi_label"
    server.restricted = True  # its configuration cannot be read
    client = gateway()
    for path, content in (("/classify", '{"text": "a"}'), ("/classify/stream", '"a"')):
        refused = client.post(path, content=content)
        assert (refused.status_code, refused.json()["error_type"]) == (503, "unavailable")
        assert "Retry-After" in refused.headers
    assert server.requests == []
    server.restricted = False
    (answer,) = gateway().post("/classify", json={"text": "good"}).json()["answers"]
    assert answer["label"] == ["positive"], "a set of labels"


def test_the_task_is_asked_within_the_callers_time(gateway: Any, server: FakeTriton) -> None:
    server.frozen = True
    late = gateway().post("/classify", json={"text": "a", "timeout_s": 0.2})
    assert (late.status_code, late.json()["error_type"]) == (504, "timeout")
    server.frozen = False


def test_one_server_that_serves_makes_it_ready(gateway: Any, server: FakeTriton) -> None:
    client = gateway(url=f"127.0.0.1:1,{server.url}")
    assert client.get("/ready").status_code == 200
    assert client.get("/info").json()["ready"] is True


def test_a_server_that_hangs_holds_up_no_other(gateway: Any, server: FakeTriton) -> None:
    with FakeTriton(frozen=True) as hanging:
        client = gateway(url=f"{hanging.url},{server.url}")
        # Less than the 5 s that a server has for its status.
        options = {"timeout_s": 3.0, "stage": 0}
        assert client.post("/classify", json={"text": "a", **options}).status_code == 200
        assert client.get("/ready").status_code == 200
        hanging.frozen = False


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is logged, without the limit of one line a second."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Kept()
    logging.getLogger().addHandler(handler)
    errors._logged_s.clear()  # pyright: ignore[reportPrivateUsage]
    yield lines
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.INTERNAL, "boom"),
        (grpc.StatusCode.UNIMPLEMENTED, "no such call"),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' is not found"),
    ],
)
def test_callers_read_no_address_and_the_log_has_it(
    gateway: Any, server: FakeTriton, logged: list[str], code: grpc.StatusCode, message: str
) -> None:
    server.fail(code, message, times=10)
    failed = gateway().post("/classify", json={"text": "a"})
    assert failed.status_code in (502, 503)
    assert server.url not in failed.text
    assert any(server.url in line and message in line for line in logged)


def test_a_refusal_of_the_server_names_what_is_wrong_and_no_address(
    gateway: Any, server: FakeTriton
) -> None:
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "unknown operating point 'x'")
    refused = gateway().post("/classify", json={"text": "a"})
    assert refused.json()["error"] == "the cascade refuses the request: unknown operating point 'x'"


def test_a_dead_server_is_named_in_the_log_alone(gateway: Any, logged: list[str]) -> None:
    dead = gateway(url="127.0.0.1:1")
    info = dead.get("/info")
    assert info.json()["problem"] == "no server answers: the gateway's log says why"
    for response in (info, dead.get("/ready"), dead.post("/classify", json={"text": "a"})):
        assert "127.0.0.1" not in response.text
    assert any("127.0.0.1:1" in line for line in logged)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--drain-s", "-3"], "--drain-s is -3"),
        (["--timeout-s", "inf"], "--timeout-s is inf"),
        (["--timeout-s", "nan"], "--timeout-s is nan"),
        (["--cors-origin", "notanorigin"], "'notanorigin' is no origin"),
        (["--cors-origin", "https://example.com/"], "is no origin"),
    ],
)
def test_flags_that_cannot_be_meant(
    flags: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gateway", "--model", "cascade", "--port", "0", *flags]) != 0
    assert part in capsys.readouterr().err


def test_origins() -> None:
    for value in ("https://example.com", "http://localhost:3000", "http://[::1]:80", "*"):
        assert is_origin(value)
    for value in ("example.com", "https://", "https://a/b", "null", "", "ftp://a", "https://A.com"):
        assert not is_origin(value)


@pytest.mark.parametrize(
    ("origin", "kind", "status"),
    [
        (None, "text/plain", 200),
        ("http://testserver", "text/plain", 200),
        ("https://example.com", "application/x-www-form-urlencoded", 200),  # --cors-origin
        ("https://evil.example", "application/json; charset=utf-8", 200),  # a browser asks before
        ("https://evil.example", "text/plain", 415),
        ("https://evil.example", "", 415),
        ("null", "text/plain", 415),
        ("https://[", "text/plain", 415),
    ],
)
def test_a_page_of_another_origin_sends_nothing_unasked(
    gateway: Any, server: FakeTriton, origin: str | None, kind: str, status: int
) -> None:
    client = gateway(cors_origins=("https://example.com",))
    headers = {"Content-Type": kind} | ({} if origin is None else {"Origin": origin})
    for path, content in (
        ("/classify", '{"text": "a"}'),
        ("/predict", '{"inputs": "a"}'),
        ("/classify/stream", '"a"'),
    ):
        assert client.post(path, content=content, headers=headers).status_code == status, path
    assert len(server.requests) == (3 if status == 200 else 0)


def test_headers_of_answers_and_head(gateway: Any) -> None:
    client = gateway()
    for path in ("/", "/docs", "/redoc"):
        assert "frame-ancestors 'none'" in client.get(path).headers["content-security-policy"]
    for response in (
        client.get("/static/style.css"),
        client.post("/classify", json={"text": "a"}),
        client.post("/classify/stream", content='"a"'),
        client.post("/classify", content="nonsense"),
    ):
        assert response.headers.get_list("x-content-type-options") == ["nosniff"]
    for path in ("/", "/health", "/ready"):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
    assert client.head("/info").status_code == 405


@pytest.mark.parametrize("path", ["/classify", "/classify/stream"])
def test_a_wrong_request_id_is_not_shown(gateway: Any, path: str) -> None:
    for value in ("s3cret" * 99, "s3cret\x85", ""):
        headers = [(b"X-Request-Id", value.encode("latin-1"))]
        refused = gateway().post(path, content='{"text": "a"}', headers=headers)
        assert (refused.status_code, refused.json()["field"]) == (422, "X-Request-Id")
        assert "s3cret" not in refused.text


def test_a_call_is_a_server_span_above_the_clients(
    gateway: Any, server: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    client = gateway()
    headers = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    assert client.post("/classify?a=s3cret", json={"text": "b"}, headers=headers).is_success
    spans = {span.name: span for span in exporter.get_finished_spans()}
    own, below = spans["POST /classify"], spans["classify cascade"]
    assert own.kind is trace.SpanKind.SERVER
    assert own.parent is not None
    assert own.parent.span_id == int("cd" * 8, 16)
    assert below.parent is not None
    assert own.context is not None
    assert below.parent.span_id == own.context.span_id
    assert dict(own.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/classify",
        "http.response.status_code": 200,
    }
    exporter.clear()
    server.fail(grpc.StatusCode.INTERNAL, "boom", times=10)
    client.post("/predict", json={"inputs": "b"}, headers={"traceparent": "nonsense"})
    failed = next(each for each in exporter.get_finished_spans() if each.name == "POST /predict")
    assert (failed.parent, failed.status.status_code) == (None, trace.StatusCode.ERROR)
    assert (failed.attributes or {})["http.response.status_code"] == 502
