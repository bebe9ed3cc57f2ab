"""HTTP requests to a server on this machine."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager

HOST = "127.0.0.1"
# What a request to a server that is broken, hung or not there can raise.
FAILURES = (OSError, ValueError, http.client.HTTPException)


@contextmanager
def opened(
    port: int,
    path: str,
    timeout_s: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Generator[http.client.HTTPResponse, None, None]:
    """Send a GET, or a POST if there is a body, and yield the response."""
    # The proxy of the environment is for other machines.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        f"http://{HOST}:{port}{path}",
        data=body,
        headers={**({"Content-Type": "application/json"} if body else {}), **(headers or {})},
    )
    with opener.open(request, timeout=timeout_s) as response:
        yield response
