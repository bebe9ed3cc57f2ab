"""The embedded server with the restricted protocols of the container."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager

from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_supervisor.flags import GRPC_KEY_HEADER, KEY_HEADER, RESTRICTED
from tests.support.serving import FREE_PORTS, Built

KEY = "a-key-for-tests-of-32-characters"
HTTP_KEY = (KEY_HEADER, KEY)
GRPC_KEY = (GRPC_KEY_HEADER, KEY)
PROTOCOLS = RESTRICTED.split(",")

_READY_TIMEOUT_S = 60.0


@contextmanager
def restricted_server(built: Built, *options: str) -> Generator[TritonServer, None, None]:
    """A server that keeps to itself what the container's does, and loads the cascade at its start.

    `serve_cascades` asks the server to load, which takes the protocol that is restricted here.
    """
    models = [*(stage.model for stage in built.policy.stages), built.name]
    flags = (
        *(f"--load-model={model}" for model in models),
        "--model-config-name=published",
        f"--grpc-restricted-protocol={RESTRICTED}:{KEY_HEADER}={KEY}",
        f"--http-restricted-api={RESTRICTED}:{KEY_HEADER}={KEY}",
    )
    with TritonServer(built.repository, ports=FREE_PORTS, options=(*flags, *options)) as server:
        _wait(f"http://127.0.0.1:{server.ports.http}/v2/models/{built.name}/ready")
        yield server


def _wait(url: str) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
