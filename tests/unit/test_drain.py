"""Cascades are unloaded before their server stops."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cascadebert_supervisor.drain import cascades_in_use, drain

KEY = {"cascadebert-key": "k" * 20}


class Index(HTTPServer):
    """A server whose cascades need some looks at the index until they are unloaded."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[str] = []
        self.looks_until_unloaded = 3


class Handler(BaseHTTPRequestHandler):
    server: Index  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        allowed = self.headers.get("cascadebert-key") == KEY["cascadebert-key"]
        self.server.calls.append(self.path)
        body = b""
        if self.path.endswith("/index"):
            self.server.looks_until_unloaded -= 1
            busy = self.server.looks_until_unloaded > 0
            body = json.dumps(index("UNLOADING" if busy else "UNAVAILABLE")).encode()
        self.send_response(200 if allowed else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def index(state: str) -> list[dict[str, str]]:
    return [
        {"name": "never-loaded"},
        {"name": "tiny", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
        {"name": "tiny", "version": "2", "state": state},
        {"name": "tiny_large", "version": "1", "state": "READY"},
    ]


@pytest.fixture
def server() -> Iterator[Index]:
    with Index() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("state", "expected"),
    [("READY", ["tiny"]), ("LOADING", ["tiny"]), ("UNLOADING", ["tiny"]), ("UNAVAILABLE", [])],
)
def test_a_cascade_is_in_use_until_all_versions_are_unloaded(
    state: str, expected: list[str]
) -> None:
    assert cascades_in_use(index(state), ["tiny", "absent"]) == expected


@pytest.mark.parametrize("index", [None, {}, []])
def test_a_server_without_models_has_nothing_in_use(index: object) -> None:
    assert cascades_in_use(index, ["tiny"]) == []


def test_it_waits_until_the_cascades_are_unloaded(server: Index) -> None:
    assert drain(server.server_port, ["tiny", "other"], 60, KEY) == ""
    assert server.calls == [
        "/v2/repository/models/tiny/unload",
        "/v2/repository/models/other/unload",
        *["/v2/repository/index"] * 3,
    ]


def test_it_ends_at_its_limit_and_names_the_cascade(server: Index) -> None:
    server.looks_until_unloaded = 10_000
    assert drain(server.server_port, ["tiny"], 0.2, KEY) == (
        "tiny still answered requests after 0.2 s"
    )


def test_a_refusal_and_a_dead_server_are_said(server: Index) -> None:
    assert "HTTP Error 403" in drain(server.server_port, ["tiny"], 60)
    with Index() as ended:
        port = ended.server_port
    assert "cannot be asked" in drain(port, ["tiny"], 60)


def test_without_cascades_nothing_waits(server: Index) -> None:
    assert drain(server.server_port, [], 60, KEY) == ""
    assert server.calls == []
