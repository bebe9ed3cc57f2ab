"""The protocols that the container keeps to itself: nothing without the key, everything with it."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2, service_pb2_grpc

from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient
from tests.support.checkpoints import TEXTS
from tests.support.restricted import GRPC_KEY, HTTP_KEY, KEY, PROTOCOLS, restricted_server
from tests.support.serving import Built

TIMEOUT_S = 60

pb: Any = service_pb2

# Protocol, method and message over gRPC; method, path and body over HTTP. What would change the
# server asks for things that are not there, so that with the key, too, it stays as it is.
CALLS: list[tuple[str, Message, str, str]] = [
    ("model-repository", pb.RepositoryIndexRequest(), "POST /v2/repository/index", "{}"),
    (
        "model-repository",
        pb.RepositoryModelLoadRequest(model_name="nothing"),
        "POST /v2/repository/models/nothing/load",
        "{}",
    ),
    (
        "model-repository",
        pb.RepositoryModelUnloadRequest(model_name="nothing"),
        "POST /v2/repository/models/nothing/unload",
        "{}",
    ),
    (
        "shared-memory",
        pb.SystemSharedMemoryStatusRequest(),
        "GET /v2/systemsharedmemory/status",
        "",
    ),
    (
        "shared-memory",
        pb.SystemSharedMemoryRegisterRequest(name="a", key="/nothing", byte_size=8),
        "POST /v2/systemsharedmemory/region/a/register",
        '{"key": "/nothing", "offset": 0, "byte_size": 8}',
    ),
    (
        "shared-memory",
        pb.SystemSharedMemoryUnregisterRequest(name="a"),
        "POST /v2/systemsharedmemory/region/a/unregister",
        "",
    ),
    ("shared-memory", pb.CudaSharedMemoryStatusRequest(), "GET /v2/cudasharedmemory/status", ""),
    (
        "shared-memory",
        pb.CudaSharedMemoryRegisterRequest(name="a", raw_handle=b"x", byte_size=8),
        "POST /v2/cudasharedmemory/region/a/register",
        '{"raw_handle": {"b64": "eA=="}, "device_id": 0, "byte_size": 8}',
    ),
    ("statistics", pb.ModelStatisticsRequest(name="tiny"), "GET /v2/models/tiny/stats", ""),
    ("statistics", pb.ModelStatisticsRequest(), "GET /v2/models/stats", ""),
    ("trace", pb.TraceSettingRequest(), "GET /v2/trace/setting", ""),
    ("trace", pb.TraceSettingRequest(), "POST /v2/trace/setting", "{}"),
    ("trace", pb.TraceSettingRequest(model_name="tiny"), "GET /v2/models/tiny/trace/setting", ""),
    ("logging", pb.LogSettingsRequest(), "GET /v2/logging", ""),
    ("logging", pb.LogSettingsRequest(), "POST /v2/logging", "{}"),
]
IDS = [f"{protocol} {path}" for protocol, _, path, _ in CALLS]
EACH_CALL = pytest.mark.parametrize(("protocol", "message", "path", "body"), CALLS, ids=IDS)
WRONG_KEYS = ["", "x", KEY[:-1], KEY + "x", KEY.upper(), f"{KEY},{KEY}"]


@pytest.fixture(scope="module")
def server(built: Built) -> Iterator[TritonServer]:
    with restricted_server(built) as running:
        yield running


def by_http(server: TritonServer, path: str, body: str, key: str | None) -> tuple[int, str]:
    """Status and text of the answer; the key, if any, in its header."""
    method, _, path = path.partition(" ")
    headers = {} if key is None else {HTTP_KEY[0]: key}
    connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=TIMEOUT_S)
    with closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


def by_grpc(server: TritonServer, message: Message, key: str | None) -> tuple[str, str]:
    """Status and details of the answer; the key, if any, in the metadata."""
    name = type(message).__name__.removesuffix("Request")
    metadata = [] if key is None else [(GRPC_KEY[0], key)]
    with grpc.insecure_channel(server.url) as channel:
        method: Callable[..., Message] = getattr(
            service_pb2_grpc.GRPCInferenceServiceStub(channel), name
        )
        try:
            method(message, timeout=TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as exc:
            assert isinstance(exc, grpc.Call)
            return exc.code().name, exc.details() or ""
    return "OK", ""


def test_every_restricted_protocol_is_tried() -> None:
    assert {protocol for protocol, *_ in CALLS} == set(PROTOCOLS)


@EACH_CALL
@pytest.mark.parametrize("key", [None, *WRONG_KEYS])
def test_without_the_key_it_is_refused(
    server: TritonServer, protocol: str, message: Message, path: str, body: str, key: str | None
) -> None:
    status, text = by_http(server, path, body, key)
    assert (status, "restricted" in text) == (403, True), text
    code, details = by_grpc(server, message, key)
    assert (code, "restricted" in details) == ("UNAVAILABLE", True), details
    assert KEY not in text + details


@EACH_CALL
def test_with_the_key_it_is_done(
    server: TritonServer, protocol: str, message: Message, path: str, body: str
) -> None:
    """Done, or refused for a reason of its own: there is no such model, region or GPU here.

    Servers from 26.05 on have no shared memory of clients unless told to, and answer 501.
    """
    status, text = by_http(server, path, body, KEY)
    code, details = by_grpc(server, message, KEY)
    assert "restricted" not in text + details
    if protocol == "shared-memory" and status == 501:
        assert code in {"UNIMPLEMENTED", "UNAVAILABLE", "INTERNAL"}
    elif "nothing" in path or path.endswith("/register"):
        assert status in {200, 400, 404, 500}
        assert status != 200 or path.endswith("/unload")
    else:
        assert (status, code) == (200, "OK"), f"{text} {details}"


def test_a_caller_needs_no_key(server: TritonServer, built: Built) -> None:
    with CascadeClient(server.url, built.name) as client:
        assert len(client.classify(TEXTS)) == len(TEXTS)  # reads the batch limit, too
        assert client.status().serving
    for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/tiny/config"):
        assert by_http(server, f"GET {path}", "", None)[0] == 200, path


def test_the_client_sends_the_key_as_a_header(server: TritonServer, built: Built) -> None:
    with CascadeClient(server.url, built.name) as client:
        without = client.status()
    with CascadeClient(server.url, built.name, headers=dict([GRPC_KEY])) as client:
        given = client.status()
    assert without.serving
    assert without.statistics == ()
    assert {found.name for found in given.statistics} >= {built.name}
