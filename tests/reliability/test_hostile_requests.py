"""Hostile requests to the real server: it lives, answers each, and others get their right answers.

`pytest -s tests/reliability/test_hostile_requests.py` prints how many were sent and how they were
answered; with CASCADEBERT_LONG=1 they are more than 50,000.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from tritonclient.grpc import service_pb2, service_pb2_grpc

from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient, CascadeClientError
from cascadebert_core.contract import MAX_TEXT_BYTES
from tests.support.checkpoints import TEXTS
from tests.support.hostile import (
    damaged,
    good_request,
    infer_requests,
    json_bodies,
    poisons,
    serialized,
)
from tests.support.restricted import GRPC_KEY, restricted_server
from tests.support.serving import Built
from tests.support.sizes import sized

pytestmark = pytest.mark.timeout(sized(300, 7200))

DEADLINE_S = 60.0  # of one request: what takes longer hangs
SERVICE = "/inference.GRPCInferenceService/"
pb: Any = service_pb2
METHODS = [m.name for m in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]
EXAMPLES = settings(
    max_examples=sized(150, 5_000),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# tritonserver's own sentences that blame itself (500) for a fault of the caller's. Our model's
# errors must not: they are INVALID_ARGUMENT (400).
TRITONS = re.compile(
    r"Unable to parse |failed to parse the request JSON buffer|failed to get request params"
    r"|attempt to access |attempt to get members|parameter key '"
)
# Statuses that are right only with such a reason.
REASONS = {
    "UNAVAILABLE": re.compile(r"timeout|deadline|restricted"),
    # gRPC itself, of bytes that are no message.
    "INTERNAL": re.compile(r"^$|[Dd]eserializ|[Pp]ars"),
}


class Hostilities:
    """The server under attack, and a tally of what became of the requests."""

    def __init__(self, server: TritonServer) -> None:
        self.server = server
        self.pid = server.pid
        self.stubs = self._children()
        self.tally: collections.Counter[str] = collections.Counter()
        self.channel = grpc.insecure_channel(server.url)
        self.stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def assert_alive(self) -> None:
        """The same processes, ready, and answering."""
        assert self._children() == self.stubs, "a model's process has died"
        connection = self._connect()
        with contextlib.closing(connection):
            connection.request("GET", "/v2/models/tiny/ready")
            assert connection.getresponse().status == 200
        self.stub.ModelInfer(good_request(), timeout=DEADLINE_S)

    def infer(self, request: Any, method: Callable[..., Any] | None = None) -> str:
        """Send a request over gRPC; the status of its answer, if it may be answered so."""
        try:
            (method or self.stub.ModelInfer)(request, timeout=DEADLINE_S)
        except grpc.RpcError as exc:
            call: Any = exc
            code, details = str(call.code().name), str(call.details())
        else:
            code, details = "OK", ""
        self.tally[f"gRPC {code}"] += 1
        fine = code in {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "ALREADY_EXISTS"}
        if not fine and code in REASONS:
            fine = REASONS[code].search(details) is not None
        assert fine, f"{code}: {details[:300]}"
        assert "Traceback" not in details
        return code

    def stream(self, data: bytes) -> str:
        """Send a message over the bidirectional method, and read until it ends."""

        def method(request: bytes, timeout: float) -> None:
            call: Any = self.channel.stream_stream(f"{SERVICE}ModelStreamInfer")
            collections.deque(call(iter([request]), timeout=timeout), maxlen=0)

        return self.infer(data, method)

    def post(self, body: bytes) -> tuple[int, str]:
        """Send a body to the cascade over HTTP; status and text of the answer."""
        return self.http("POST", body)

    def http(self, method: str, body: bytes) -> tuple[int, str]:
        """Send it by any method."""
        connection = self._connect()
        with contextlib.closing(connection):
            connection.request(method, "/v2/models/tiny/infer", body)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        self.tally[f"HTTP {response.status}"] += 1
        assert response.status < 500 or TRITONS.search(text), f"{response.status}: {text[:300]}"
        assert "Traceback" not in text
        return response.status, text

    def raw_http(self, data: bytes) -> None:
        """Send bytes to the HTTP port and no more; it answers, or closes the connection."""
        answer = b""
        address = ("127.0.0.1", self.server.ports.http)
        with socket.create_connection(address, DEADLINE_S) as connection:
            # It may have seen enough before all is sent.
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(data)
                with contextlib.suppress(OSError):  # it has closed its end already
                    connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65536):
                    answer += part
        status = answer[9:12].decode(errors="replace") or "closed"
        self.tally[f"raw HTTP {status}"] += 1
        if status == "500":
            assert TRITONS.search(answer.decode(errors="replace")), answer[-300:]

    def _connect(self) -> http.client.HTTPConnection:
        port = self.server.ports.http
        return http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)

    def _children(self) -> set[str]:
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        return {child for task in tasks for child in task.read_text().split()}


@pytest.fixture(scope="module")
def attacked(built: Built) -> Iterator[Hostilities]:
    """A server with the flags of the container."""
    with restricted_server(built) as server:
        hostilities = Hostilities(server)
        yield hostilities
        tally = dict(sorted(hostilities.tally.items()))
        print(f"\n{sum(tally.values())} hostile requests: {tally}")


@contextlib.contextmanager
def well_served(attacked: Hostilities, model: str) -> Generator[None, None, None]:
    """While the block runs, two callers beside it get the right answer to every request."""
    wrong: list[str] = []
    answered = [0, 0]
    over = threading.Event()
    with CascadeClient(attacked.server.url, model) as client:
        expected = client.classify(TEXTS, timeout_s=DEADLINE_S)

        def ask(caller: int) -> None:
            order = random.Random(caller)
            while not over.is_set():
                i = order.randrange(len(TEXTS))
                try:
                    answer = client.classify(TEXTS[i], timeout_s=DEADLINE_S)
                except CascadeClientError as exc:
                    wrong.append(f"{type(exc).__name__}: {exc}")
                    return
                answered[caller] += 1
                if (answer.label, answer.degraded) != (expected[i].label, False):
                    wrong.append(f"{TEXTS[i]!r}: {answer} in place of {expected[i]}")
                time.sleep(0.005)

        callers = [threading.Thread(target=ask, args=(caller,)) for caller in range(2)]
        for caller in callers:
            caller.start()
        try:
            yield
        finally:
            over.set()
            for caller in callers:
                caller.join()
    assert not wrong, f"{len(wrong)} wrong, the first: {wrong[0]}"
    assert all(answered)
    attacked.assert_alive()


@pytest.fixture
def beside(attacked: Hostilities, built: Built) -> Iterator[None]:
    with well_served(attacked, built.name):
        yield


@EXAMPLES
@given(message=infer_requests())
def test_odd_requests_over_grpc(attacked: Hostilities, beside: None, message: Any) -> None:
    attacked.infer(message)


@EXAMPLES
@given(body=json_bodies())
def test_odd_bodies_over_http(attacked: Hostilities, beside: None, body: bytes) -> None:
    attacked.post(body)


def in_threads(send: Callable[[random.Random], None], requests: int) -> None:
    """Call `send` so often from four threads, every time with a seed of its own."""
    errors: list[str] = []

    def run(thread: int) -> None:
        for seed in range(thread, requests, 4):
            try:
                send(random.Random(seed))
            except BaseException as exc:  # with the seed, to be repeated
                errors.append(f"seed {seed}: {type(exc).__name__}: {exc}")
                raise

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


def test_damaged_messages_over_grpc(attacked: Hostilities, beside: None) -> None:
    """Bytes that are, or nearly are, a ModelInferRequest, to every method there is."""
    whole = good_request()
    whole.id = "1"
    whole.parameters["threshold"].string_param = "0.5"
    whole.outputs.add(name="LABEL")
    message = whole.SerializeToString()
    assert {"ModelInfer", "ModelStreamInfer", "RepositoryModelLoad"} <= set(METHODS)

    def send(chance: random.Random) -> None:
        data = damaged(message, chance)
        while poisons(data):
            data = damaged(message, chance)
        method = "ModelInfer" if chance.random() < 0.7 else chance.choice(METHODS)
        if method == "ModelStreamInfer":
            attacked.stream(data)
        else:
            attacked.infer(data, attacked.channel.unary_unary(SERVICE + method))

    in_threads(send, sized(600, 30_000))


def http_message(body: bytes, **headers: str) -> bytes:
    """A whole request to the cascade, as bytes."""
    named = {"Host": "x", "Content-Length": str(len(body)), "Connection": "close"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"POST /v2/models/tiny/infer HTTP/1.1\r\n{lines}\r\n".encode() + body


def binary_message(size: object = 9, header: object = None) -> bytes:
    """A request with its tensor behind the JSON, whose sizes may be lies."""
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [1, 1]}
    described = {"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}
    head = json.dumps(described).encode()
    length = str(len(head) if header is None else header)
    body = head + serialized([b"hello"])
    return http_message(body, Inference_Header_Content_Length=length)


TENSOR = {"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": ["the film"]}
BODY = json.dumps({"inputs": [TENSOR], "parameters": {"threshold": "0.5"}}).encode()


def test_damaged_messages_over_http(attacked: Hostilities, beside: None) -> None:
    length = str(len(BODY))
    messages = [http_message(BODY), http_message(BODY, Inference_Header_Content_Length=length)]
    in_threads(
        lambda chance: attacked.raw_http(damaged(chance.choice(messages), chance)),
        sized(400, 15_000),
    )


# Not 4 to 8: see `poisons`.
LIES = [-1, 0, 1, 3, 10, 10**6, 2**31, 2**32 + 9, 2**63 - 1, 2**64, "x", "", "1e3", " 9", "0x9"]


def test_sizes_that_lie(attacked: Hostilities, beside: None) -> None:
    for lie in LIES:
        attacked.raw_http(binary_message(size=lie))
        attacked.raw_http(binary_message(header=lie))
        attacked.raw_http(http_message(BODY, Content_Length=str(lie)))
    for coding in ("gzip", "deflate", "br", "gzip, gzip", "x" * 5000):
        attacked.raw_http(http_message(BODY, Content_Encoding=coding))
    # A few chunks; of very many, see tests/support/hostile.py.
    chunked = http_message(b"", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
    for chunks in (b"0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n{}", b"-1\r\n", b"f" * 40):
        attacked.raw_http(chunked + chunks + b"\r\n")


def test_connections_that_break_off(attacked: Hostilities, beside: None) -> None:
    message = http_message(BODY)
    for end in range(0, len(message), 7):
        attacked.raw_http(message[:end])
    for junk in (b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 10_000):
        attacked.raw_http(junk)
        with socket.create_connection(("127.0.0.1", attacked.server.ports.grpc)) as connection:
            connection.sendall(junk)


def test_wrong_methods_are_refused(attacked: Hostilities, beside: None) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "FOO"):
        assert attacked.http(method, BODY)[0] == 405, method


CLIMBING = [
    "../../etc",
    "..",
    ".",
    "../tiny",
    "tiny/../tiny",
    "tiny/1/../../../etc",
    "/etc/passwd",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fetc",
    "..%252f..",
    "..\\..",
    "~",
    "a" * 3000,
    "tiny\n",
    "",
]


@pytest.mark.parametrize("name", CLIMBING, ids=range(len(CLIMBING)))
def test_names_do_not_climb_out_of_the_repository(attacked: Hostilities, name: str) -> None:
    """Names and versions of models over both protocols, and by somebody who has the key."""
    request = good_request()
    request.model_name = name
    assert attacked.infer(request) in {"NOT_FOUND", "INVALID_ARGUMENT"}
    request = good_request()
    request.model_version = name or "../1"
    assert attacked.infer(request) in {"NOT_FOUND", "INVALID_ARGUMENT"}
    for path in (f"/v2/models/{name}/infer", f"/v2/models/tiny/versions/{name or '..'}/infer"):
        attacked.raw_http(http_message(BODY).replace(b"/v2/models/tiny/infer", path.encode()))
    load = pb.RepositoryModelLoadRequest(model_name=name)
    with pytest.raises(grpc.RpcError) as caught:
        attacked.stub.RepositoryModelLoad(load, timeout=DEADLINE_S, metadata=[GRPC_KEY])
    assert "root:" not in str(caught.value)
    attacked.assert_alive()


def test_a_load_writes_no_file_outside(attacked: Hostilities, tmp_path: Path) -> None:
    """Who has the key may send a model's files; their names must not climb either."""
    outside = tmp_path / "outside"
    for climb in ("../" * 12 + str(outside).lstrip("/"), f"1/../../{outside}", str(outside)):
        load = pb.RepositoryModelLoadRequest(model_name="evil")
        load.parameters["config"].string_param = '{"backend": "python", "max_batch_size": 0}'
        load.parameters[f"file:{climb}"].bytes_param = b"hello"
        with pytest.raises(grpc.RpcError):
            attacked.stub.RepositoryModelLoad(load, timeout=DEADLINE_S, metadata=[GRPC_KEY])
    assert not outside.exists()
    attacked.assert_alive()


@pytest.mark.parametrize("unit", ["w", "the film ", ".", "e\u0301"], ids=range(4))
def test_texts_are_answered_up_to_the_limit(attacked: Hostilities, beside: None, unit: str) -> None:
    """Up to it they are truncated; beyond it they are refused, and cost nothing."""
    most = unit.encode() * (MAX_TEXT_BYTES // len(unit.encode()))
    request = good_request()
    request.raw_input_contents[0] = serialized([most])
    assert attacked.infer(request) == "OK"
    request.raw_input_contents[0] = serialized([most * 20])
    assert attacked.infer(request) == "INVALID_ARGUMENT"


def test_too_many_rows_are_refused(attacked: Hostilities, beside: None) -> None:
    for rows in (65, 1000, 100_000):
        request = good_request()
        request.inputs[0].shape[0] = rows
        request.raw_input_contents[0] = serialized([b"x"] * rows)
        assert attacked.infer(request) == "INVALID_ARGUMENT"


def test_bytes_that_are_not_utf_8_are_the_callers_fault(attacked: Hostilities) -> None:
    """The HTTP endpoint hands them on as they came."""
    tensor = b'{"name":"TEXT","datatype":"BYTES","shape":[1,1],"data":["%s"]}'
    for place in (b'"operating_point":"\xff"', b'"\xff":"x"'):
        status, text = attacked.post(
            b'{"inputs":[%s],"parameters":{%s}}' % (tensor % b"good", place)
        )
        assert status == 400, text
    status, text = attacked.post(b'{"inputs":[%s]}' % (tensor % b"\xff"))
    assert status == 400
    assert "not UTF-8" in text
    # The model has no use for the id, which is the caller's own.
    status, text = attacked.post(b'{"id":"\xff","inputs":[%s]}' % (tensor % b"good"))
    assert status == 200, text


@pytest.mark.parametrize("name", ["operating_point", "threshold", "stage", "k" * 20_000])
def test_a_long_parameter_gets_its_own_status(attacked: Hostilities, name: str) -> None:
    """A status travels as a header, and a receiver drops one of more than 16 KiB."""
    request = good_request()
    request.parameters[name].string_param = "9" * 20_000
    assert attacked.infer(request) == "INVALID_ARGUMENT"
