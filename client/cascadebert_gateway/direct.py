"""Calls of the endpoints that are asked most, without the framework.

The framework's routing, its request and its response cost as much as a third of the call to the
server. They still make the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from .deadline import within
from .errors import too_slow

# Takes a request, and returns the JSON of the answer.
Endpoint = Callable[["DirectRequest"], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class DirectRequest:
    """A request whose body was read as a whole.

    Attributes:
        headers: By their names in lower case.
        body: The body.
        receive: The next message of the connection.
    """

    headers: dict[str, str]
    body: bytes
    receive: Receive


async def body_of(receive: Receive, timeout_s: float) -> bytes:
    """Return the body of a request.

    Raises:
        ApiError: 408, it does not arrive in time.
        ClientDisconnect: The caller has hung up.
    """
    with within(timeout_s, too_slow(f"the body did not arrive within {timeout_s:g} s")):
        message = await receive()
        if not message.get("more_body") and message["type"] == "http.request":
            return message.get("body", b"")
        parts: list[bytes] = []
        while message["type"] == "http.request":
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)
            message = await receive()
        raise ClientDisconnect


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers of a request by their names in lower case; of equal names, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def send_json(send: Send, body: bytes) -> None:
    """Answer 200 with JSON."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
