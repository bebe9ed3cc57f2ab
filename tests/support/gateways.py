"""A gateway that listens on loopback, in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from cascadebert_gateway import GatewaySettings, create_app
from cascadebert_gateway.command import bound_listener


@contextmanager
def running_gateway(**settings: Any) -> Generator[str, None, None]:
    """Run a gateway with some settings, and give its address, such as `http://127.0.0.1:4711`."""
    listener = bound_listener("127.0.0.1", 0)
    config = uvicorn.Config(
        create_app(GatewaySettings(**settings)), log_level="warning", ws="none", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        # The socket listens already: calls wait until the server accepts them.
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
