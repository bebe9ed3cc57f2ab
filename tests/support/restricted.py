"""The embedded server with the restricted protocols of the container."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager

from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_supervisor.flags import GRPC_KEY_HEADER, KEY_HEADER, RESTRICTED
from tests.support.serving import FREE_PORTS, Built
from tests.support.waiting import wait_until

KEY = "a-key-for-tests-of-32-characters"
HTTP_KEY = (KEY_HEADER, KEY)
GRPC_KEY = (GRPC_KEY_HEADER, KEY)
PROTOCOLS = RESTRICTED.split(",")

_READY_TIMEOUT_S = 60.0


@contextmanager
def restricted_server(built: Built, *options: str) -> Generator[TritonServer, None, None]:
    """Run a server with the container's restricted protocols; it loads the cascade at its start.

    `serve_cascades` cannot ask it to load a model: that protocol is restricted.
    """
    models = [*(stage.model for stage in built.policy.stages), built.name]
    flags = (
        *(f"--load-model={model}" for model in models),
        "--model-config-name=published",
        f"--grpc-restricted-protocol={RESTRICTED}:{KEY_HEADER}={KEY}",
        f"--http-restricted-api={RESTRICTED}:{KEY_HEADER}={KEY}",
    )
    with TritonServer(built.repository, ports=FREE_PORTS, options=(*flags, *options)) as server:
        url = f"http://127.0.0.1:{server.ports.http}/v2/models/{built.name}/ready"
        wait_until(lambda: _answers(url), server.log_excerpt, timeout_s=_READY_TIMEOUT_S)
        yield server


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.URLError:
        return False
