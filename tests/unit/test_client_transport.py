"""Which connections use a proxy of the environment."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from cascadebert_client import CascadeClient
from cascadebert_client.transport import (
    channel_arguments,
    host_of,
    is_loopback,
    opener_for,
    proxy_variable,
)
from tests.unit.fake_triton import FakeTriton


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("localhost:8001", "localhost"),
        ("127.0.0.1:8001", "127.0.0.1"),
        ("[::1]:8001", "::1"),
        ("dns:triton.example:8001", "triton.example"),
        ("dns:///triton.example:8001", "triton.example"),
        ("ipv4:10.0.0.7:8001", "10.0.0.7"),
        ("ipv6:[::1]:8001", "::1"),
        ("http://localhost:8002/metrics", "localhost"),
        ("http://[::1]:8002/metrics", "::1"),
        ("https://triton.example/metrics", "triton.example"),
    ],
)
def test_the_host_of_an_address(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    "url",
    ["localhost:1", "LOCALHOST:1", "127.9.9.9:1", "[::1]:1", "unix:/run/x", "ipv4:127.0.0.1:1"],
)
def test_loopback_never_uses_a_proxy(url: str) -> None:
    assert is_loopback(url)
    assert dict(channel_arguments(url))["grpc.enable_http_proxy"] == 0
    assert proxy_variable(url, {"http_proxy": "http://proxy:3128"}) is None


def test_elsewhere_the_variable_that_grpc_reads_is_told() -> None:
    url = "triton.example:8001"
    assert not is_loopback(url)
    assert "grpc.enable_http_proxy" not in dict(channel_arguments(url))
    assert proxy_variable(url, {}) is None
    assert proxy_variable(url, {"HTTP_PROXY": "http://p"}) is None, "gRPC does not read it"
    both = {"http_proxy": "http://p", "https_proxy": "http://q"}
    assert proxy_variable(url, both) == "https_proxy"
    assert proxy_variable(url, {**both, "no_proxy": "other.example, .example"}) is None
    assert proxy_variable(url, {**both, "no_proxy": "other.example"}) == "https_proxy"
    assert proxy_variable(url, {**both, "no_grpc_proxy": "x", "no_proxy": "example"}) is not None


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def page() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x 1\n")

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/metrics"
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("dead_proxy")
def test_calls_and_metrics_reach_loopback_although_a_proxy_is_set(page: str) -> None:
    with FakeTriton() as server, CascadeClient(f"localhost:{server.port}") as client:
        assert client.classify("good", timeout_s=20).label == "positive"
    with opener_for(page).open(page, timeout=20) as response:
        assert response.read() == b"x 1\n"
