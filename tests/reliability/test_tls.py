"""TLS and mutual TLS of the server itself, with certificates as docs/security.md makes them."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from cascadebert_build.server.ports import resolve_ports
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient, RetryPolicy, ServerUnavailable
from tests.support.certificates import Certificates, make_certificates
from tests.support.checkpoints import TEXTS
from tests.support.serving import FREE_PORTS, Built
from tests.support.waiting import wait_until

READY_TIMEOUT_S = 60.0
ROOT = Path(__file__).parents[2]
ONCE = RetryPolicy(attempts_without_deadline=1)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """`server`, `client` and a `stranger`, whom another authority has signed."""
    here = "IP:127.0.0.1"
    authorities = {"ca": {"server": here, "client": here}, "other": {"stranger": here}}
    return make_certificates(tmp_path_factory.mktemp("tls"), authorities)


class TlsServer(TritonServer):
    """Asked over HTTP whether it is ready: its gRPC port speaks TLS alone."""

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.http}/v2/health/ready", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"


@contextmanager
def tls_server(
    built: Built, certificates: Certificates, *options: str
) -> Generator[TlsServer, None, None]:
    models = [*(stage.model for stage in built.policy.stages), built.name]
    flags = (
        *(f"--load-model={model}" for model in models),
        f"--grpc-server-cert={certificates.path('server.crt')}",
        f"--grpc-server-key={certificates.path('server.key')}",
        f"--grpc-root-cert={certificates.path('ca.crt')}",
        *options,
    )
    server = TlsServer(built.repository, ports=FREE_PORTS, options=flags)
    with server:
        wait_until(server._is_ready, server.log_excerpt, timeout_s=READY_TIMEOUT_S)
        yield server


@pytest.fixture(scope="module")
def tls(built: Built, certificates: Certificates) -> Iterator[TlsServer]:
    with tls_server(built, certificates, "--grpc-use-ssl=true") as server:
        yield server


@pytest.fixture(scope="module")
def mutual_tls(built: Built, certificates: Certificates) -> Iterator[TlsServer]:
    with tls_server(built, certificates, "--grpc-use-ssl-mutual=true") as server:
        yield server


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
    url = f"localhost:{tls.ports.grpc}"  # the certificate names 127.0.0.1 alone
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
    with urllib.request.urlopen(f"{tls.http}/v2/models/tiny/ready", timeout=30) as response:
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
                *(sys.executable, "-m", "cascadebert_build.cli", "classify", TEXTS[0], "--json"),
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


def test_the_recipe_of_security_md_runs(built: Built, certificates: Certificates) -> None:
    """The commands of the page, with this cascade's name and free ports."""
    (recipe,) = [
        block
        for block in (ROOT / "docs" / "security.md").read_text().split("```")
        if block.startswith("console") and "tritonserver --backend" in block
    ]
    lines = [line[2:] for line in recipe.splitlines() if line.startswith(("$ ", "> "))]
    ports = resolve_ports(FREE_PORTS)
    command = (
        "\n".join(lines)
        .replace("=sst2", f"={built.name}")
        .replace("=model_repository", f"={built.repository}")
        .replace("/tmp/backends", certificates.path("backends"))
        .replace("$(python ", f"$({sys.executable} ")
        .replace("tritonserver --backend", "exec tritonserver --backend")
    )
    flags = f"--http-port={ports.http} --grpc-port={ports.grpc} --metrics-port={ports.metrics}"
    log_path = certificates.folder / "recipe.log"
    with log_path.open("w") as log:
        server = subprocess.Popen(
            ["bash", "-c", f"{command} {flags}"],
            cwd=certificates.folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    url = f"127.0.0.1:{ports.grpc}"
    try:
        with CascadeClient(url, built.name, credentials=of_client(certificates)) as client:
            wait_until(
                lambda: client.status().serving, lambda: log_path.read_text()[-2000:],
                timeout_s=READY_TIMEOUT_S,
            )  # fmt: skip
            assert client.classify(TEXTS[0]).label in built.policy.labels
    finally:
        server.terminate()
        server.wait(60)
