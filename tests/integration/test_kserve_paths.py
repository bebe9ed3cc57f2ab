"""Client, gateway and curl behind the hosts and paths that KServe gives an InferenceService.

HAProxy stands for KServe's gateway. It sends a host to a port of the predictor, HTTP/2 included,
and cuts the prefix of path-based routing.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient, CascadeClientError, RetryPolicy
from cascadebert_gateway import GatewaySettings, create_app
from tests.support.checkpoints import TEXTS
from tests.support.haproxy import NO_HAPROXY, free_port, haproxy, has_haproxy
from tests.support.serving import Built

CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s

frontend gateway
    bind 127.0.0.1:{port}
    # Path-based routing: /serving/NAMESPACE/NAME
    http-request replace-path /serving/default/sst2(/.*) \\1
    use_backend h2c if {{ req.hdr(host) -m beg sst2-grpc-default. }}
    use_backend http if {{ req.hdr(host) -m beg sst2-default. }}
    default_backend none

backend none
    http-request return status 404

backend h2c
    server predictor {grpc} proto h2

backend http
    server predictor 127.0.0.1:{http}
"""


@pytest.fixture(scope="module")
def port(running: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the gateway; names under .localhost are loopback."""
    if not has_haproxy():
        pytest.skip(NO_HAPROXY)
    port = free_port()
    config = CONFIG.format(port=port, grpc=running.url, http=running.ports.http)
    with haproxy(config, tmp_path_factory.mktemp("kserve"), port):
        yield port


def test_the_client_needs_no_change_but_the_address(port: int, served: str, built: Built) -> None:
    with CascadeClient(served, built.name) as direct:
        expected = direct.classify(TEXTS[:20], timeout_s=60)
    with CascadeClient(f"sst2-grpc-default.localhost:{port}", built.name) as client:
        assert client.classify(TEXTS[:20], timeout_s=60) == expected
        assert list(client.classify_stream(TEXTS[:20], rows_per_request=3)) == expected
        assert client.status().model.labels


def test_nor_does_the_gateway(port: int, built: Built) -> None:
    settings = GatewaySettings(url=f"sst2-grpc-default.localhost:{port}", model=built.name)
    with TestClient(create_app(settings)) as gateway:
        assert gateway.get("/ready").status_code == 200
        (answer,) = gateway.post("/classify", json={"text": TEXTS[0]}).json()["answers"]
    assert answer["label"] in built.policy.labels


@pytest.mark.parametrize("prefix", ["", "/serving/default/sst2"])
def test_nor_does_http(port: int, built: Built, prefix: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{prefix}/v2/models/{built.name}/generate",
        json.dumps({"TEXT": TEXTS[0]}).encode(),
        {"Host": "sst2-default.example.com"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        assert json.load(response)["LABEL"] in built.policy.labels


def test_another_host_is_refused_in_one_sentence(port: int, built: Built) -> None:
    once = RetryPolicy(attempts_without_deadline=1)
    with (
        CascadeClient(f"other-default.localhost:{port}", built.name, retry=once) as client,
        pytest.raises(CascadeClientError) as caught,
    ):
        client.classify(TEXTS[0])
    assert "status: 404" in str(caught.value)
