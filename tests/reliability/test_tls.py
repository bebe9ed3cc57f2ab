"""TLS and mutual TLS of `serve`, with certificates as docs/security.md makes them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest

import cascadebert_build
from cascadebert_build.cli import main
from cascadebert_build.server.port_holder import holder_of
from cascadebert_client import CascadeClient, RetryPolicy, ServerUnavailable
from cascadebert_supervisor.loopback import opened
from cascadebert_supervisor.stubs import stubs_of
from tests.support.certificates import Certificates, make_certificates
from tests.support.checkpoints import TEXTS
from tests.support.serving import Built
from tests.support.waiting import wait_until

CLI = [sys.executable, "-m", "cascadebert_build.cli"]
ONCE = RetryPolicy(attempts_without_deadline=1)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """`server`, `client` and a `stranger`, whom another authority has signed."""
    here = "IP:127.0.0.1"
    authorities = {"ca": {"server": here, "client": here}, "other": {"stranger": here}}
    return make_certificates(tmp_path_factory.mktemp("tls"), authorities)


@dataclass(frozen=True)
class TlsServer:
    """The ports of a server whose gRPC port speaks TLS alone."""

    http_port: int
    grpc_port: int

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"


@pytest.fixture(scope="module")
def tls(built: Built, certificates: Certificates) -> Iterator[TlsServer]:
    """Started from Python."""
    certificate, key = certificates.path("server.crt"), certificates.path("server.key")
    with cascadebert_build.serve(built.repository, tls_cert=certificate, tls_key=key) as server:
        yield TlsServer(server.ports.http, server.ports.grpc)


@pytest.fixture(scope="module")
def mutual_tls(built: Built, certificates: Certificates) -> Iterator[TlsServer]:
    """Started by the command, with the watchdog."""
    files = {"cert": "server.crt", "key": "server.key", "client-ca": "ca.crt"}
    flags = [
        *(f"--tls-{option}={certificates.path(file)}" for option, file in files.items()),
        *(f"--{port}-port=0" for port in ("http", "grpc", "metrics")),
    ]
    serve = subprocess.Popen(
        [*CLI, "serve", "--model-repository", str(built.repository), "--json", *flags],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert serve.stdout is not None
    try:
        ready = json.loads(serve.stdout.readline())
        assert ready["tls"] is True
        http_port, grpc_port = (int(ready[name].rpartition(":")[2]) for name in ("http", "grpc"))
        yield TlsServer(http_port, grpc_port)
    finally:
        serve.send_signal(signal.SIGINT)
        code = serve.wait(120)
        serve.stdout.close()
    assert code == 0


def of_client(
    certificates: Certificates, authority: str = "ca", name: str | None = None
) -> grpc.ChannelCredentials:
    """A client that trusts `authority`, and shows the certificate `name` if it has one."""
    own = (None, None)
    if name is not None:
        own = (certificates.read(f"{name}.key"), certificates.read(f"{name}.crt"))
    return grpc.ssl_channel_credentials(certificates.read(f"{authority}.crt"), *own)


def classified(
    server: TlsServer, model: str, credentials: grpc.ChannelCredentials | None
) -> list[str]:
    with CascadeClient(server.url, model, credentials=credentials, retry=ONCE) as client:
        return [answer.label for answer in client.classify(TEXTS[:20])]


def test_the_answers_over_tls_are_those_in_clear(
    tls: TlsServer, served: str, built: Built, certificates: Certificates
) -> None:
    with CascadeClient(served, built.name) as client:
        expected = [answer.label for answer in client.classify(TEXTS[:20])]
    assert classified(tls, built.name, of_client(certificates)) == expected


def test_a_client_in_clear_is_turned_away(tls: TlsServer, built: Built) -> None:
    with pytest.raises(ServerUnavailable):
        classified(tls, built.name, None)


def test_a_server_of_another_authority_is_not_trusted(
    tls: TlsServer, built: Built, certificates: Certificates
) -> None:
    with pytest.raises(ServerUnavailable):
        classified(tls, built.name, of_client(certificates, "other"))


def test_a_server_under_another_name_is_not_trusted(
    tls: TlsServer, built: Built, certificates: Certificates
) -> None:
    url = f"localhost:{tls.grpc_port}"  # the certificate names 127.0.0.1 alone
    client = CascadeClient(url, built.name, credentials=of_client(certificates), retry=ONCE)
    with client, pytest.raises(ServerUnavailable, match=r"(?i)verif|handshake|certificate"):
        client.classify("a film")


def test_mutual_tls_lets_its_own_clients_in(
    mutual_tls: TlsServer, tls: TlsServer, built: Built, certificates: Certificates
) -> None:
    own = of_client(certificates, "ca", "client")
    expected = classified(tls, built.name, of_client(certificates))
    assert classified(mutual_tls, built.name, own) == expected


@pytest.mark.parametrize("name", [None, "stranger"])
def test_mutual_tls_lets_nobody_else_in(
    mutual_tls: TlsServer, built: Built, certificates: Certificates, name: str | None
) -> None:
    with pytest.raises(ServerUnavailable):
        classified(mutual_tls, built.name, of_client(certificates, "ca", name))


def test_http_stays_in_clear(tls: TlsServer) -> None:
    """The server has TLS for gRPC alone, and so HTTP needs a proxy; see docs/security.md."""
    with opened(tls.http_port, "/v2/models/tiny/ready", 30) as response:
        assert response.status == 200


def test_the_commands_speak_tls(
    mutual_tls: TlsServer, built: Built, certificates: Certificates
) -> None:
    own = {"ca": "ca.crt", "cert": "client.crt", "key": "client.key"}

    def with_files(**files: str) -> subprocess.CompletedProcess[str]:
        flags = [
            part
            for name, file in files.items()
            for part in (f"--tls-{name}", certificates.path(file))
        ]
        return subprocess.run(
            [
                *(*CLI, "classify", TEXTS[0], "--json"),
                *("--url", mutual_tls.url, "--model", built.name, "--timeout-s", "5", *flags),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    answered = with_files(**own)
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["label"] in built.policy.labels
    assert with_files(ca="ca.crt").returncode == 1  # the server wants a certificate
    for files, message in (
        ({"ca": "ca.crt", "cert": "client.crt"}, "belong together"),
        ({"cert": "client.crt", "key": "client.key"}, "without --tls-ca"),
        ({"ca": "nothing.crt"}, "cannot be read"),
    ):
        refused = with_files(**files)
        assert (refused.returncode, message in refused.stderr) == (2, True), refused.stderr


def test_status_speaks_tls(mutual_tls: TlsServer, built: Built, certificates: Certificates) -> None:
    files = {"ca": "ca.crt", "cert": "client.crt", "key": "client.key"}
    flags = [f"--tls-{option}={certificates.path(file)}" for option, file in files.items()]
    done = subprocess.run(
        [*CLI, "status", "--url", mutual_tls.url, "--json", *flags],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["ready"] is True


def test_a_stage_that_dies_is_reloaded_behind_mutual_tls(
    mutual_tls: TlsServer, built: Built, certificates: Certificates
) -> None:
    """What `serve` itself asks of its server does not need a caller's certificate."""
    large = built.policy.stages[-1].model
    server = holder_of(mutual_tls.http_port)
    assert server is not None
    assert server.pid is not None
    server_pid = server.pid

    def stub() -> int | None:
        """The living process of the last stage; a dead one has no model."""
        return next((each.pid for each in stubs_of(server_pid) if each.model == large), None)

    before = stub()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: stub() not in (None, before), "a new stub of the last stage")
    credentials = of_client(certificates, "ca", "client")
    with CascadeClient(mutual_tls.url, built.name, credentials=credentials) as client:
        assert client.classify(TEXTS[0], stage=1, timeout_s=60).exit_stage == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"cert": "server.crt"}, "belong together"),
        ({"client-ca": "ca.crt"}, "needs TLS"),
        ({"cert": "server.crt", "key": "client.key"}, "is not the key of the certificate"),
        ({"cert": "absent.crt", "key": "server.key"}, "--tls-cert .*cannot be read"),
        (
            {"cert": "server.crt", "key": "server.key", "client-ca": "server.key"},
            "--tls-client-ca .*holds no certificate",
        ),
    ],
)
def test_serve_names_the_file_that_is_wrong(
    built: Built,
    certificates: Certificates,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    message: str,
) -> None:
    flags = [f"--tls-{option}={certificates.path(file)}" for option, file in files.items()]
    ports = [f"--{port}-port=0" for port in ("http", "grpc", "metrics")]
    code = main(["serve", "--model-repository", str(built.repository), *ports, *flags])
    assert code == 2
    assert re.search(message, capsys.readouterr().err)
