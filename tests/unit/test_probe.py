"""What a probe of a server calls broken, and what only busy."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cascadebert_supervisor import probe as probe_module
from cascadebert_supervisor.probe import Probe, rows_of_stage
from cascadebert_supervisor.repository import ServedCascade

HOST = "127.0.0.1"
TINY = ServedCascade("tiny", ("tiny_small", "tiny_large"), pair=False)


class FakeTriton:
    """An HTTP server that answers the probe as a test wants, and counts rows of the last stage."""

    def __init__(self) -> None:
        self.status = 200
        self.body: object = {"outputs": [{"name": "LABEL", "data": ["positive"]}]}
        self.hangs = threading.Event()
        self.released = threading.Event()
        self.rows_per_look = 0
        self.looks = 0
        self.rows_at_look: dict[int, int] = {}
        self.rows = 5
        self.bodies: list[dict[str, object]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.looks += 1
                fake.rows = fake.rows_at_look.get(fake.looks, fake.rows + fake.rows_per_look)
                text = (
                    "# TYPE cascadebert_exited_rows_total counter\n"
                    f'cascadebert_exited_rows_total{{model="tiny",stage="1"}} {fake.rows}\n'
                    'cascadebert_exited_rows_total{model="tiny",stage="0"} 70\n'
                    'cascadebert_exited_rows_total{model="tiny2",stage="1"} 900\n'
                )
                self.reply(200, text.encode())

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                fake.bodies.append(json.loads(self.rfile.read(length)))
                if fake.hangs.is_set():
                    fake.released.wait(30)
                self.reply(fake.status, json.dumps(fake.body).encode())

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        self.port = int(self.server.server_address[1])

    def probe(self, timeout_s: float = 30.0) -> Probe:
        return Probe(self.port, self.port, timeout_s)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTriton]:
    monkeypatch.setattr(probe_module, "_LOOK_S", 0.02)
    fake = FakeTriton()
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.01,))
    thread.start()
    yield fake
    fake.released.set()
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


def test_a_probe_sends_one_row_through_every_stage(fake: FakeTriton) -> None:
    result = fake.probe().classify(TINY)
    assert (result.ok, result.detail) == (True, "")
    (body,) = fake.bodies
    assert body["parameters"] == {"threshold": "1"}
    assert [value["name"] for value in body["inputs"]] == ["TEXT"]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownArgumentType, reportIndexIssue]
    fake.probe().classify(replace(TINY, pair=True))
    assert [value["name"] for value in fake.bodies[1]["inputs"]] == ["TEXT", "TEXT_PAIR"]  # pyright: ignore[reportGeneralTypeIssues, reportIndexIssue]


def test_an_error_fails_the_probe_with_the_server_s_reason(fake: FakeTriton) -> None:
    fake.rows_per_look = 10  # other rows are answered, which does not excuse an error
    fake.status, fake.body = 500, {"error": "Stub process 'tiny_0_0' is not healthy."}
    result = fake.probe().classify(TINY)
    assert not result.ok
    assert result.detail == "HTTP 500: Stub process 'tiny_0_0' is not healthy."


def test_an_answer_without_a_label_fails_the_probe(fake: FakeTriton) -> None:
    for fake.body in ({}, [], {"outputs": []}, {"outputs": [{"name": "LABEL", "data": []}]}):
        assert fake.probe().classify(TINY).detail == "an answer without a label"


def test_no_server_fails_the_probe() -> None:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        probe = Probe(unused.getsockname()[1], unused.getsockname()[1], 5.0)
        assert not probe.ready()
        assert "no answer" in probe.classify(TINY).detail


def test_silence_is_a_failure_unless_other_rows_are_answered(fake: FakeTriton) -> None:
    fake.hangs.set()
    hung = fake.probe(timeout_s=0.1).classify(TINY)
    assert (hung.ok, hung.detail) == (False, "no answer within 0.1 s")
    fake.rows_per_look = 1
    busy = fake.probe(timeout_s=0.1).classify(TINY)
    assert busy.ok
    assert busy.detail.startswith("busy: no answer within 0.1 s")


# A rejected probe looks for the answers of others until its timeout.
PATIENCE_S = 0.3


def test_a_rejection_is_a_failure_unless_other_rows_are_answered(
    fake: FakeTriton,
) -> None:
    fake.status, fake.body = 503, {"error": "too many requests"}
    assert not fake.probe(PATIENCE_S).classify(TINY).ok
    fake.rows_per_look = 1
    assert fake.probe().classify(TINY).ok


def test_an_answer_without_the_last_stage_is_a_failure_unless_that_stage_is_busy(
    fake: FakeTriton,
) -> None:
    degraded = {"name": "DEGRADED", "data": [True]}
    fake.body = {"outputs": [{"name": "LABEL", "data": ["x"]}, degraded]}
    result = fake.probe(PATIENCE_S).classify(TINY)
    assert not result.ok
    assert "without its last stage" in result.detail
    fake.rows_per_look = 1
    assert fake.probe().classify(TINY).ok
    degraded["data"] = [False]
    fake.rows_per_look = 0
    assert fake.probe().classify(TINY).ok


def test_a_rejected_probe_looks_for_longer(fake: FakeTriton) -> None:
    """Counts reach the endpoint a moment later, and a call of a large stage takes time."""
    fake.status, fake.body = 503, {"error": "64 rows waiting"}
    fake.rows_at_look = {4: fake.rows + 1}
    assert fake.probe().classify(TINY).ok
    assert fake.looks == 4


def test_a_call_may_take_longer_than_a_probe(fake: FakeTriton) -> None:
    fake.status, fake.body = 503, {"error": "64 rows waiting"}
    probe = fake.probe(0.05)
    assert not probe.classify(TINY).ok
    fake.rows += 1  # a call ends between two probes
    assert probe.classify(TINY).ok
    assert not probe.classify(TINY).ok, "nothing was answered since"


def test_a_model_that_was_loaded_again_counts_from_zero(fake: FakeTriton) -> None:
    fake.status, fake.body = 503, {"error": "64 rows waiting"}
    fake.rows_at_look = {2: 0, 4: 1}
    assert fake.probe().classify(TINY).ok
    assert fake.looks == 4


def test_rows_are_counted_by_model_and_stage() -> None:
    text = 'x_total{model="a",stage="0"} 9\n' + "".join(
        f'cascadebert_exited_rows_total{{model="{model}",stage="{stage}"}} {rows}\n'
        for model, stage, rows in (("a", 0, 1), ("a", 1, 2), ("aa", 1, 4))
    )
    assert rows_of_stage(text, "a", 1) == 2
    assert rows_of_stage(text, "b", 0) == 0
