"""JSON over HTTP to a server on this machine, one request at a time."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any

from cascadebert_build.errors import CheckFailed
from cascadebert_build.server.ports import HOST


def post(port: int, path: str, body: bytes, timeout_s: float) -> tuple[int, str]:
    """POST a body to 127.0.0.1, and return the status and the text of the response.

    Raises:
        OSError: There is no response.
        http.client.HTTPException: The response is not HTTP.
    """
    with contextlib.closing(
        http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    ) as connection:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")


def ask(port: int, path: str, payload: Any, timeout_s: float = 60.0) -> Any:
    """POST a payload as JSON, and return the response's.

    Raises:
        CheckFailed: There is no answer, or it is an error or no JSON.
    """
    url = f"http://{HOST}:{port}{path}"
    try:
        status, text = post(port, path, json.dumps(payload).encode(), timeout_s)
        if status != http.HTTPStatus.OK:
            raise CheckFailed(f"{url} answered {status}: {text[:200]}")
        return json.loads(text)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise CheckFailed(f"{url} gave no answer: {exc!r}") from exc
