"""Connections that do not come about: each fault has its own sentence and remedy."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import http.server
import io
import pickle
import socket
import threading
from collections.abc import Iterator

import grpc
import pytest

from cascadebert_client import (
    AsyncCascadeClient,
    CascadeClient,
    CascadeClientError,
    InvalidRequest,
    RetryPolicy,
    ServerUnavailable,
)
from cascadebert_client._addresses import addresses_of
from cascadebert_client._faults import CLOSED, PROTOCOL, REFUSED, UNRESOLVED, fault_of
from cascadebert_client._metrics_text import fetch_metrics
from cascadebert_client.cli import main
from cascadebert_client.cli.exit_codes import DONE, FAILED, WRONG_USE
from cascadebert_client.cli.retries import RetryNotes
from tests.support.certificates import Certificates, make_certificates
from tests.unit.fake_triton import QUICK, FakeTriton

HERE = "DNS:localhost,IP:127.0.0.1"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authorities = {
        "ca": {"server": HERE, "client": HERE, "elsewhere": "DNS:elsewhere.example"},
        "other": {"stranger": HERE},
    }
    return make_certificates(tmp_path_factory.mktemp("tls"), authorities)


def of_server(
    certificates: Certificates, name: str = "server", *, mutual: bool = False
) -> grpc.ServerCredentials:
    pair = (certificates.read(f"{name}.key"), certificates.read(f"{name}.crt"))
    authority = certificates.read("ca.crt") if mutual else None
    return grpc.ssl_server_credentials([pair], authority, mutual)


def of_client(
    certificates: Certificates, authority: str = "ca", key: str = "", certificate: str = ""
) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        certificates.read(f"{authority}.crt"),
        certificates.read(f"{key}.key") if key else None,
        certificates.read(f"{certificate}.crt") if certificate else None,
    )


def failure(
    url: str, credentials: grpc.ChannelCredentials | None = None, timeout_s: float | None = 20.0
) -> ServerUnavailable:
    with (
        CascadeClient(url, credentials=credentials, retry=QUICK) as client,
        pytest.raises(ServerUnavailable) as caught,
    ):
        client.classify("good", timeout_s=timeout_s)
    return caught.value


def test_five_faults_of_tls_have_five_remedies(certificates: Certificates) -> None:
    with (
        FakeTriton(credentials=of_server(certificates)) as tls,
        FakeTriton(credentials=of_server(certificates, "elsewhere")) as elsewhere,
        FakeTriton() as plain,
    ):
        faults = {
            "does not speak TLS": failure(plain.url, of_client(certificates)),
            "not of an authority": failure(tls.url, of_client(certificates, "other")),
            "not for the host '127.0.0.1'": failure(elsewhere.url, of_client(certificates)),
            "TLS files of this client": failure(
                tls.url, of_client(certificates, "ca", "server", "client")
            ),
            "does it speak TLS? Give --tls-ca": failure(tls.url, timeout_s=None),
        }
        with CascadeClient(tls.url, credentials=of_client(certificates)) as client:
            assert client.classify("good").label == "positive"
    for clause, error in faults.items():
        assert clause in str(error)
    remedies = {str(error).rpartition(": ")[2] for error in faults.values()}
    assert len(remedies) == len(faults)
    kinds = [error.fault for error in faults.values()]
    assert kinds == [PROTOCOL] * 4 + [CLOSED], "the last may also be a server that just stops"
    assert "tried" not in str(faults["does not speak TLS"]), "a further attempt could not help"


def test_a_server_that_wants_the_callers_certificate(certificates: Certificates) -> None:
    with FakeTriton(credentials=of_server(certificates, mutual=True)) as server:
        for own in (("", ""), ("stranger", "stranger")):
            error = failure(server.url, of_client(certificates, "ca", *own), timeout_s=None)
            assert "--tls-cert" in str(error)
        mine = of_client(certificates, "ca", "client", "client")
        with CascadeClient(server.url, credentials=mine) as client:
            assert client.classify("good").label == "positive"


@pytest.fixture
def http_port() -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_ports_that_are_taken_for_each_other(http_port: int) -> None:
    error = failure(f"127.0.0.1:{http_port}")
    assert error.fault == PROTOCOL
    assert "HTTP/1" in str(error)
    with FakeTriton() as server, pytest.raises(ServerUnavailable) as caught:
        fetch_metrics(f"http://{server.url}/metrics", 20)
    assert "does not speak HTTP" in str(caught.value)
    assert str(caught.value).isprintable(), "no raw bytes on a terminal"


@pytest.fixture
def closing_http_port() -> Iterator[int]:
    """An HTTP port like that of Triton: it closes at gRPC's first bytes, without a word."""

    def answer(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed
                return
            with connection, contextlib.suppress(OSError):
                if connection.recv(4096).startswith(b"GET /v2/health/live "):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_http_port_that_hangs_up_is_recognised(closing_http_port: int, host: str) -> None:
    error = failure(f"{host}:{closing_http_port}")
    assert error.fault == PROTOCOL
    assert "speaks HTTP/1, and not gRPC" in str(error)
    assert "8001" in str(error)


@pytest.mark.parametrize("command", [["classify", "x"], ["status"]])
def test_without_a_connection_no_model_is_named(
    closing_http_port: int, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--url", f"localhost:{closing_http_port}"]) == 1
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert f"the server at localhost:{closing_http_port} cannot be reached" in said
    assert "speaks HTTP/1, and not gRPC" in said
    assert "model 'cascade'" not in said


def test_a_host_without_an_address() -> None:
    error = failure("no-such-host.invalid:8001", timeout_s=None)
    assert error.fault == UNRESOLVED
    assert "'no-such-host.invalid'" in str(error)


def test_the_address_that_spoke_is_reported_and_not_the_last_one(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of two addresses: on one a server that speaks TLS, on the other nothing listens."""
    with FakeTriton(credentials=of_server(certificates)) as tls:
        url = f"127.0.0.2:{tls.port}"
        credentials = of_client(certificates, "other")
        assert failure(url, credentials, timeout_s=None).fault == REFUSED
        both = [f"ipv4:127.0.0.1:{tls.port}", f"ipv4:{url}"]
        monkeypatch.setattr("cascadebert_client._addresses.addresses_of", lambda _: both)
        error = failure(url, credentials, timeout_s=None)
    assert error.fault == PROTOCOL
    assert "not of an authority" in str(error)
    assert f"127.0.0.1:{tls.port}" in str(error)
    monkeypatch.undo()
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 8001)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fd00::7", 8001, 0, 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert addresses_of("both.example:8001") == ["ipv4:10.0.0.7:8001", "ipv6:[fd00::7]:8001"]
    assert addresses_of("unix:/run/socket") == []


def test_the_variable_of_a_proxy_is_named(monkeypatch: pytest.MonkeyPatch, http_port: int) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{http_port}")
    for name in ("grpc_proxy", "https_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    error = failure("triton.example:8001")
    assert "http_proxy" in str(error)
    assert "no_proxy" in str(error)
    assert "secret" not in str(error)


def test_old_and_new_messages_of_grpc() -> None:
    older = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:8001: Failed to "
        "connect to remote host: Connection refused"
    )
    fault = fault_of(older, "localhost:8001", tls=False)
    assert fault is not None
    assert (fault.kind, fault.what) == (REFUSED, "Connection refused by [::1]:8001")
    unresolved = fault_of("DNS resolution failed for x:1: C-ares status", "x:1", tls=False)
    assert unresolved is not None
    assert unresolved.kind == UNRESOLVED
    assert fault_of("Socket closed", "x:1", tls=False) is None, "in the middle of a call"
    assert fault_of("Server exiting", "x:1", tls=False) is None


# Retries.


def free_url() -> str:
    with FakeTriton() as gone:
        return gone.url


def test_without_a_server_a_client_that_does_not_wait_fails_at_once() -> None:
    impatient = RetryPolicy(wait_for_server=False)
    with CascadeClient(free_url(), retry=impatient) as client:
        with pytest.raises(ServerUnavailable) as caught:
            client.classify("good", timeout_s=1e6)  # it would wait for this long
        assert caught.value.fault == REFUSED


def test_a_server_that_answered_once_is_waited_for_even_so() -> None:
    impatient = RetryPolicy(first_delay_s=0.001, max_delay_s=0.01, wait_for_server=False)
    notes: list[tuple[CascadeClientError, float]] = []
    back = threading.Event()

    def on_retry(error: CascadeClientError, delay_s: float) -> None:
        notes.append((error, delay_s))
        back.set()

    with FakeTriton() as first:
        client = CascadeClient(first.url, retry=impatient, on_retry=on_retry)
        assert client.classify("good").label == "positive"
    port = first.port
    answers: list[str] = []
    caller = threading.Thread(
        target=lambda: answers.append(client.classify("good", timeout_s=60).label)
    )
    caller.start()
    assert back.wait(30)
    with FakeTriton(port=port):
        caller.join()
        assert answers == ["positive"]
    client.close()
    error, delay_s = notes[0]
    assert isinstance(error, ServerUnavailable)
    assert 0 < delay_s <= 0.01


# Clients where they do not belong.


def test_an_async_client_in_a_second_loop() -> None:
    with FakeTriton() as server:
        client = AsyncCascadeClient(server.url)

        async def label() -> str:
            return (await client.classify("good")).label

        assert asyncio.run(label()) == "positive"
        with pytest.raises(InvalidRequest, match="event loop"):
            asyncio.run(label())
        asyncio.run(client.close())  # must not fail either


@pytest.mark.parametrize("kind", [CascadeClient, AsyncCascadeClient])
def test_a_client_is_not_pickled(kind: type[CascadeClient] | type[AsyncCascadeClient]) -> None:
    client = kind("localhost:8001")
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=f"{kind.__name__} cannot be pickled.*each process"):
            copied(client)


# The commands.


def test_a_command_without_a_server_fails_at_once_and_waits_if_told_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = free_url()
    # The default time limit is 30 s, and with --wait all of it would be used.
    assert main(["classify", "good", "--url", url]) == FAILED
    said = capsys.readouterr().err
    assert "Connection refused" in said
    assert "tried" not in said
    with FakeTriton() as server:
        port = server.port
    codes: list[int] = []
    waiting = threading.Thread(
        target=lambda: codes.append(
            main(["classify", "good", "--url", f"127.0.0.1:{port}", "--wait", "--timeout-s", "60"])
        )
    )
    waiting.start()
    with FakeTriton(port=port):
        waiting.join()
    assert codes == [DONE]


def test_retries_are_shown_but_not_each_of_them() -> None:
    now_s, stream = 0.0, io.StringIO()
    notes = RetryNotes(stream, clock=lambda: now_s)
    error = ServerUnavailable("it is full")
    for _ in range(3):
        notes(error, 0.4)
    now_s = 60.0
    notes(error, 2.0)
    lines = stream.getvalue().splitlines()
    assert [("0.4 s" in line, "2.0 s" in line) for line in lines] == [(True, False), (False, True)]
    assert all("it is full" in line for line in lines)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("ca.crt", "server.key", "client.crt"), "not the key of the certificate"),
        (("ca.crt", "client.crt", "client.key"), "--tls-cert"),
        (("ca.key", "", ""), "--tls-ca"),
    ],
)
def test_tls_files_that_do_not_fit_are_named_before_a_call(
    certificates: Certificates,
    files: tuple[str, str, str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = [
        part
        for option, name in zip(("--tls-ca", "--tls-key", "--tls-cert"), files, strict=True)
        for part in (option, certificates.path(name))
        if name
    ]
    assert main(["status", "--url", "127.0.0.1:1", *flags]) == WRONG_USE
    assert said in capsys.readouterr().err


def test_wait_asks_for_the_only_cascade_once_the_server_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without --model the server is asked for its cascades, and it is not there yet."""
    with FakeTriton() as server:
        port = server.port
    refused = threading.Event()
    monkeypatch.setattr(
        "cascadebert_client.cli.server_arguments.notes_on_terminal",
        lambda: lambda *_: refused.set(),
    )
    codes: list[int] = []
    command = ["classify", "good", "--url", f"127.0.0.1:{port}", "--wait", "--timeout-s", "60"]
    waiting = threading.Thread(target=lambda: codes.append(main(command)))
    waiting.start()
    assert refused.wait(30)
    with FakeTriton(model="another", port=port):
        waiting.join()
    assert codes == [DONE]


@pytest.mark.parametrize("headers", [{"x-key": "sécret"}, {"x key": "a"}, {"x-key": "a\nb"}])
def test_headers_that_cannot_be_sent_are_refused_and_not_shown(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="header") as caught:
        CascadeClient("127.0.0.1:1", headers=headers)
    assert "sécret" not in str(caught.value)
    with pytest.raises(InvalidRequest):
        AsyncCascadeClient("127.0.0.1:1", headers=headers)
