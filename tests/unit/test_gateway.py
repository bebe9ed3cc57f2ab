"""The gateway over a real gRPC server: JSON in, JSON out, and what is refused."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from starlette.testclient import TestClient

from cascadebert_client import InvalidRequest
from cascadebert_gateway import GatewaySettings, create_app
from cascadebert_gateway.access import keys_from
from tests.support.gateways import running_gateway
from tests.unit.fake_triton import LABELS, POLICY, FakeTriton, expected

KEY = "a-key-of-sixteen-and-more"


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    parameters = {
        "policy": POLICY,
        "labels": json.dumps(LABELS),
        "operating_points": json.dumps({"fast": {"thresholds": [0.7], "default": True}}),
    }
    with FakeTriton(parameters=parameters, max_batch_size=64) as running:
        yield running


@pytest.fixture
def gateway(server: FakeTriton) -> Iterator[Any]:
    """Starts a gateway over the server with some settings, and returns a client of it."""
    with ExitStack() as stack:

        def start(**settings: Any) -> TestClient:
            settings.setdefault("url", server.url)
            app = create_app(GatewaySettings(**settings))
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


def answer_of(text: str, pair: str | None = None) -> dict[str, Any]:
    rule = expected(text, pair)
    return {"label": rule.label, "exit_stage": rule.exit_stage, "confidence": rule.confidence}


def check(found: dict[str, Any], text: str, pair: str | None = None) -> None:
    assert answer_of(text, pair).items() <= found.items()
    assert list(found["probabilities"]) == list(LABELS)
    assert (found["degraded"], found["policy"]) == (False, POLICY)


def test_a_text_a_list_and_pairs(gateway: Any, server: FakeTriton) -> None:
    client = gateway()
    (one,) = client.post("/classify", json={"text": "good"}).json()["answers"]
    check(one, "good")
    texts = [f"text {i}" for i in range(100)]
    answers = client.post("/classify", json={"text": texts}).json()["answers"]
    assert len(answers) == 100
    for text, found in zip(texts, answers, strict=True):
        check(found, text)
    pairs = client.post("/classify", json={"text": ["a", "b"], "text_pair": ["c", "d"]}).json()
    for (text, pair), found in zip(["ac", "bd"], pairs["answers"], strict=True):
        check(found, text, pair)
    assert client.post("/classify", json={"text": []}).json() == {"answers": []}
    assert client.post("/classify", content='{"text": "good"}').status_code == 200, "curl's default"


def test_options_reach_the_server(gateway: Any, server: FakeTriton) -> None:
    client = gateway(timeout_s=50)
    client.post("/classify", json={"text": "a", "operating_point": "fast", "timeout_s": 9})
    client.post("/classify", json={"text": "a", "threshold": 0.75, "timeout_s": 900})
    client.post("/classify", json={"text": "a", "threshold": [0.9, 0.8]})
    client.post("/classify", json={"text": "a", "stage": 1}, headers={"X-Request-Id": "order-66"})
    fast, one, several, stage = server.requests[-4:]
    assert fast.parameters["operating_point"] == "fast"
    assert fast.deadline_s is not None
    assert fast.deadline_s < 10
    assert one.parameters["threshold"] == "0.75"
    assert one.deadline_s is not None
    assert one.deadline_s < 51, "no caller gets more than the gateway allows"
    assert several.parameters["threshold"] == "0.9,0.8"
    assert (stage.parameters["stage"], stage.id) == (1, "order-66")


def test_the_form_of_text_embeddings_inference(gateway: Any) -> None:
    client = gateway()
    ranked = client.post("/predict", json={"inputs": "good", "truncate": True}).json()
    assert ranked[0]["label"] == expected("good").label
    assert [each["score"] for each in ranked] == sorted(
        (each["score"] for each in ranked), reverse=True
    )
    pair = client.post("/predict", json={"inputs": ["a", "b"]}).json()
    assert pair[0]["label"] == expected("a", "b").label
    batch = client.post("/predict", json={"inputs": [["good"], ["bad"]]}).json()
    assert [each[0]["label"] for each in batch] == [expected(t).label for t in ("good", "bad")]


@pytest.mark.parametrize(
    ("body", "status", "kind", "part"),
    [
        ('{"text": ', 400, "syntax", "at byte"),
        ('{"text": "\\ud800"}', 400, "syntax", "hex escape"),
        ("[" * 100_000, 400, "syntax", "at byte"),
        (b'{"text": "\xff"}', 400, "syntax", "at byte"),
        ("", 400, "syntax", "at byte 0"),
        ("[]", 422, "validation", "the body: "),
        ('{"txt": "a"}', 422, "validation", "txt: there is no such field, but text, "),
        ("{}", 422, "validation", "text: "),
        ('{"text": 3}', 422, "validation", "text: give a text, or a list"),
        ('{"text": ["a", 3]}', 422, "validation", "text: give a text, or a list"),
        ('{"text": "a", "threshold": "x"}', 422, "validation", "threshold: give a number"),
        ('{"text": "a", "threshold": 1e999}', 422, "validation", "threshold"),
        ('{"text": "a", "stage": -1}', 422, "validation", "stage: "),
        ('{"text": "a", "timeout_s": 0}', 422, "validation", "timeout_s: "),
        ('{"text": ["a"], "text_pair": "b"}', 422, "validation", "text_pair: a single text"),
        ('{"text": "a", "stage": 0, "threshold": 0.5}', 422, "validation", "threshold"),
    ],
)
def test_bad_requests(
    gateway: Any, server: FakeTriton, body: str, status: int, kind: str, part: str
) -> None:
    response = gateway().post("/classify", content=body)
    found = response.json()
    assert (response.status_code, found["error_type"]) == (status, kind), found
    assert part in found["error"]
    assert server.requests == []
    if status == 400:
        assert 0 <= found["position"] <= len(body)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"inputs": ["a", "b", "c"]}, "3 texts"),
        ({"inputs": []}, "an empty list"),
        ({"inputs": [["a"], []]}, "0 texts"),
        ({"inputs": "a", "raw_scores": True}, "raw_scores"),
        ({"inputs": "a", "truncation_direction": "Left"}, "truncation_direction"),
        ({"inputs": {"text": "a"}}, "inputs: give a text"),
    ],
)
def test_what_a_cascade_cannot_do_for_callers_of_tei(
    gateway: Any, body: dict[str, Any], part: str
) -> None:
    response = gateway().post("/predict", json=body)
    assert response.status_code == 422
    assert part in response.json()["error"]


def test_limits(gateway: Any, server: FakeTriton) -> None:
    client = gateway(max_body_bytes=1000, max_rows=3)
    large = client.post("/classify", json={"text": "a" * 1000})
    assert (large.status_code, large.json()["error_type"]) == (413, "too_large")
    chunked = client.post("/classify", content=iter([b'{"text": "', *[b"a" * 100] * 20, b'"}']))
    assert chunked.status_code == 413
    many = client.post("/classify", json={"text": list("abcd")})
    assert (many.status_code, many.json()["error"][:7]) == (422, "4 texts")
    assert server.requests == []
    assert client.post("/classify", json={"text": list("abc")}).status_code == 200


def test_a_full_gateway_says_when_to_come_back(gateway: Any, server: FakeTriton) -> None:
    from concurrent.futures import ThreadPoolExecutor

    client = gateway(max_requests=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, "/classify", json={"text": "hang"})
        server.hanging.acquire()
        refused = client.post("/classify", json={"text": "a"})
        assert (refused.status_code, refused.json()["error_type"]) == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/ready").status_code == 200, "it is full and not broken"
        server.release.set()
        assert waiting.result().status_code == 200


def test_keys(gateway: Any) -> None:
    client = gateway(keys=("another-key-of-sixteen", KEY))
    refused = [
        client.post("/classify", json={"text": "a"}, headers=headers)
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Bearer {KEY}x"},
            {"Authorization": f"Basic {KEY}"},
            {"X-API-Key": KEY[:-1]},
        )
    ]
    assert {response.status_code for response in refused} == {401}
    assert len({response.text for response in refused}) == 1, "no hint what is wrong"
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
        assert client.post("/classify", json={"text": "a"}, headers=headers).status_code == 200
    for path in ("/info", "/metrics", "/nothing"):
        assert client.get(path).status_code == 401
    for path in ("/", "/health", "/ready", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("code", "message", "status", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "unknown operating point", 422, "validation"),
        (grpc.StatusCode.UNAVAILABLE, "request timeout expired", 504, "timeout"),
        (grpc.StatusCode.INTERNAL, "boom", 502, "backend"),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' is not found", 503, "unavail"),
    ],
)
def test_errors_of_the_server(
    gateway: Any, server: FakeTriton, code: grpc.StatusCode, message: str, status: int, kind: str
) -> None:
    server.fail(code, message, times=10)
    response = gateway().post("/classify", json={"text": "a"})
    assert response.status_code == status
    assert response.json()["error_type"].startswith(kind)
    assert ("Retry-After" in response.headers) == (status == 503)


def test_a_server_that_stays_full(gateway: Any, server: FakeTriton) -> None:
    server.fail(grpc.StatusCode.UNAVAILABLE, "stage 1 has 1024 rows waiting", times=100_000)
    response = gateway().post("/classify", json={"text": "a", "timeout_s": 0.3})
    assert (response.status_code, response.json()["error_type"]) in (
        (503, "unavailable"),
        (504, "timeout"),
    )


def test_a_deadline_and_a_dead_server(gateway: Any, server: FakeTriton) -> None:
    client = gateway()
    late = client.post("/classify", json={"text": "hang", "timeout_s": 0.2})
    assert (late.status_code, late.json()["error_type"]) == (504, "timeout")
    dead = gateway(url="127.0.0.1:1")
    refused = dead.post("/classify", json={"text": "a"})
    assert (refused.status_code, refused.json()["error_type"]) == (503, "unavailable")
    assert "Retry-After" in refused.headers
    assert dead.get("/health").status_code == 200
    unready = dead.get("/ready")
    assert unready.status_code == 503
    assert "127.0.0.1" not in unready.text, "it needs no key, so it names no address"


def test_a_caller_that_hangs_up_cancels_its_request(server: FakeTriton) -> None:
    with running_gateway(url=server.url) as address:
        host, port = address.removeprefix("http://").split(":")
        body = b'{"text": "hang"}'
        with socket.create_connection((host, int(port))) as caller:
            head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            caller.sendall(head.encode() + body)
            server.hanging.acquire()
        assert server.wait_until_given_up(1)


def test_a_text_is_in_no_log_and_in_no_error(
    gateway: Any, server: FakeTriton, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "s3cret words of a caller"
    logged: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(self.format(record))

    handler = Kept()
    logging.getLogger().addHandler(handler)
    try:
        client = gateway(max_rows=2)
        server.mangle = lambda *_: 1 / 0  # the server's own code breaks
        answers = [
            client.post("/classify", json={"text": secret}),
            client.post("/classify", json={"text": [secret] * 3}),
            client.post("/classify", json={"text": secret, "threshold": secret}),
            client.post("/classify", content=f'{{"text": "{secret}'),
            client.post("/predict", json={"inputs": [secret, secret, secret]}),
            client.post("/classify/stream", content=f'{{"text": 3, "{secret[:3]}": 1}}'),
            client.post("/classify/stream", content=f"{secret}"),
        ]
    finally:
        logging.getLogger().removeHandler(handler)
    assert all("error" in answer.text for answer in answers)
    out, err = capfd.readouterr()
    for text in (*logged, out, err, *(answer.text for answer in answers)):
        assert secret not in text


def test_a_stream(gateway: Any) -> None:
    client = gateway()
    rows = ['"good one"', '{"text": "b"}', "", '{"text": "c", "text_pair": null}']
    response = client.post("/classify/stream", content="\n".join(rows))
    assert response.headers["content-type"].startswith("application/x-ndjson")
    answers = [json.loads(line) for line in response.text.splitlines()]
    for text, found in zip(["good one", "b", "c"], answers, strict=True):
        check(found, text)
    many = "".join(f"{json.dumps(f'text {i}')}\n" for i in range(500))
    lines = client.post("/classify/stream", content=many).text.splitlines()
    assert len(lines) == 500
    check(json.loads(lines[-1]), "text 499")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("nonsense", "syntax"),
        ("3", "validation"),
        ('{"text": 3}', "validation"),
        ('{"text": "a", "more": 1}', "validation"),
        ('"' + "a" * 2000 + '"', "too_large"),
    ],
)
def test_a_wrong_line_of_a_stream_comes_after_all_answers_before_it(
    gateway: Any, line: str, kind: str
) -> None:
    client = gateway(max_body_bytes=1000)
    rows = [json.dumps(f"row {i}") for i in range(40)]
    response = client.post("/classify/stream", content="\n".join([*rows, line, '"after"']))
    *answers, error = map(json.loads, response.text.splitlines())
    assert len(answers) == 40
    assert (error["error_type"], error["line"], error["answered"]) == (kind, 41, 40)


def test_parameters_of_a_stream(gateway: Any, server: FakeTriton) -> None:
    client = gateway()
    client.post("/classify/stream?threshold=0.75", content='"a"')
    assert server.requests[-1].parameters["threshold"] == "0.75"
    wrong = client.post("/classify/stream?nothing=1", content='"a"')
    assert (wrong.status_code, wrong.json()["field"]) == (422, "nothing")


def test_what_it_says_of_the_cascade(gateway: Any) -> None:
    client = gateway(keys=(KEY,))
    info = client.get("/info", headers={"X-API-Key": KEY}).json()
    assert (info["model"], info["labels"], info["ready"]) == ("cascade", list(LABELS), True)
    assert info["operating_points"][0]["name"] == "fast"
    assert KEY not in json.dumps(info)


def test_metrics_count_requests_and_rows(gateway: Any) -> None:
    client = gateway()
    client.post("/classify", json={"text": ["a", "b", "c"]})
    client.post("/classify", content="nonsense")
    client.get("/a/path/that/anyone/may/choose")
    page = client.get("/metrics").text
    assert 'cascadebert_gateway_requests_total{route="/classify",status="200"} 1.0' in page
    assert 'cascadebert_gateway_requests_total{route="/classify",status="400"} 1.0' in page
    assert "anyone" not in page, "paths of callers would be series without end"
    rows = [line for line in page.splitlines() if line.startswith("cascadebert_gateway_rows_total")]
    assert sum(float(line.rpartition(" ")[2]) for line in rows) == 3


def test_its_pages_need_no_other_host(gateway: Any) -> None:
    import re

    client = gateway()
    for path in ("/", "/docs", "/redoc"):
        page = client.get(path)
        assert page.status_code == 200
        links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page.text)
        assert links
        for link in links:
            assert not link.startswith(("http", "//")), link
            if link.startswith("/"):
                assert client.get(link).status_code == 200, link


def test_its_openapi_document_names_the_requests(gateway: Any) -> None:
    document = gateway().get("/openapi.json").json()
    schema = document["paths"]["/classify"]["post"]["requestBody"]["content"]["application/json"]
    assert {"text", "text_pair", "operating_point"} <= set(schema["schema"]["properties"])
    assert "/predict" in document["paths"]


def test_other_origins_only_if_they_are_named(gateway: Any) -> None:
    headers = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    closed = gateway().options("/classify", headers=headers)
    assert "access-control-allow-origin" not in closed.headers
    opened = gateway(cors_origins=("https://example.com",)).options("/classify", headers=headers)
    assert opened.headers["access-control-allow-origin"] == "https://example.com"


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# team a\n{KEY}\n\nanother-key-of-sixteen\n")
    assert keys_from(path, {}) == (KEY, "another-key-of-sixteen")
    assert keys_from(None, {"CASCADEBERT_GATEWAY_KEYS": f"{KEY}, another-key-of-sixteen"}) == (
        KEY,
        "another-key-of-sixteen",
    )
    assert keys_from(None, {}) == ()


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "short\n", "with a space in it, long\n"]
)
def test_key_files_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        keys_from(path, {})
    assert "keys" in str(caught.value)
    assert "short" not in str(caught.value)


def test_explain_tells_how_an_answer_came_about(gateway: Any) -> None:
    client = gateway()
    texts = [f"text {i}" for i in range(8)]
    plain = client.post("/classify", json={"text": texts}).json()["answers"]
    assert not any("timeline" in found for found in plain)
    answers = client.post("/classify", json={"text": texts, "explain": True}).json()["answers"]
    for found, without in zip(answers, plain, strict=True):
        timeline = found.pop("timeline")
        assert found == without
        assert len(timeline["stages"]) == found["exit_stage"] + 1
        assert timeline["stages"][0]["probabilities"] == dict.fromkeys(LABELS, 0.5)
    lines = client.post("/classify/stream?explain=true", content='"good"').text.splitlines()
    assert "timeline" in json.loads(lines[0])


def test_the_callers_trace_goes_on_to_the_server(gateway: Any, server: FakeTriton) -> None:
    client = gateway()
    traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    for headers in ({"traceparent": traceparent}, {"traceparent": "nonsense"}):
        assert client.post("/classify", json={"text": "a"}, headers=headers).status_code == 200
        client.post("/classify/stream", content='"good"', headers=headers)
    classified, streamed, *others = server.requests
    assert classified.parameters["traceparent"] == streamed.metadata["traceparent"] == traceparent
    assert not any("traceparent" in request.metadata for request in others)
