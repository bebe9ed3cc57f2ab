"""Errors as callers see them: a status, one sentence, and where the fault is."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from cascadebert_client import (
    AccessRestricted,
    CascadeClientError,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    RequestCancelled,
    ServerError,
    ServerUnavailable,
)

_LOGGER = logging.getLogger(__name__)
# Seconds after which a caller should try again.
RETRY_AFTER_S = "1"

# The nearest class of an exception decides: the status, and the kind in the answer.
_STATUSES: dict[type[CascadeClientError], tuple[int, str]] = {
    InvalidRequest: (422, "validation"),
    ModelNotFound: (503, "unavailable"),
    ServerUnavailable: (503, "unavailable"),
    RequestCancelled: (503, "unavailable"),
    DeadlineExceeded: (504, "timeout"),
    AccessRestricted: (502, "backend"),
    ServerError: (502, "backend"),
    CascadeClientError: (502, "backend"),
}
# What callers read of a failure behind the gateway. The exception itself names addresses.
_SENTENCES = {
    502: "the server failed: the gateway's log says why",
    503: "the cascade cannot answer now, or its queue is full: try again later",
    504: "there was no answer in time: send less at once, or give a longer timeout_s",
}
# A failure of one kind is logged at most this often: a server that is down fails every request.
_LOGGED_EVERY_S = 1.0
_logged_s: dict[str, float] = {}


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: The HTTP status.
        kind: What went wrong, for programs: authentication, too_large, syntax, validation,
            not_found, method, origin, overloaded, unavailable, timeout, backend, internal.
        message: One sentence for people. It never holds a text of the request.
        details: More fields of the answer, such as `field`, `position` or `row`.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the answer's JSON; `error` and `error_type` are those of TEI's answers, too."""
        fields = {"error": self.message, "error_type": self.kind, **self.details}
        return json.dumps(fields).encode()

    def response(self) -> Response:
        """Return the whole answer."""
        return Response(
            self.body(), self.status, media_type="application/json", headers=self.headers
        )


def from_client_error(error: CascadeClientError) -> ApiError:
    """Return the answer for an exception of the client. What it says of the servers is logged."""
    nearest = next(each for each in type(error).__mro__ if each in _STATUSES)
    status, kind = _STATUSES[nearest]
    row = getattr(error, "row", None)
    if status in _SENTENCES:
        log_failure(nearest.__name__, str(error))
        message = _SENTENCES[status]
    else:
        message = _without_address(error)
    return ApiError(
        status,
        kind,
        message,
        details={} if row is None else {"row": row},
        headers={"Retry-After": RETRY_AFTER_S} if status == 503 else None,
    )


def log_failure(kind: str, message: str) -> None:
    """Log a failure of a server, at most once a second for each kind."""
    now_s = time.monotonic()
    if now_s - _logged_s.get(kind, -_LOGGED_EVERY_S) >= _LOGGED_EVERY_S:
        _logged_s[kind] = now_s
        _LOGGER.warning("%s: %s", kind, message)


def _without_address(error: CascadeClientError) -> str:
    message = str(error)
    if error.target is None:
        return message
    message = message.replace(str(error.target), "the cascade")
    return message.replace(error.target.url, "the server")


def too_slow(message: str, **details: Any) -> ApiError:
    """Return the answer for a body that does not arrive."""
    return ApiError(408, "timeout", message, details=details, headers={"Connection": "close"})
