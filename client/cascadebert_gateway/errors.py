"""Errors as callers see them: a status, one sentence, and where the fault is."""

from __future__ import annotations

import json
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


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: The HTTP status.
        kind: What went wrong, for programs: authentication, too_large, syntax, validation,
            not_found, method, overloaded, unavailable, timeout, backend.
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
    """Return the answer for an exception of the client."""
    nearest = next(each for each in type(error).__mro__ if each in _STATUSES)
    status, kind = _STATUSES[nearest]
    row = getattr(error, "row", None)
    return ApiError(
        status,
        kind,
        str(error),
        details={} if row is None else {"row": row},
        headers={"Retry-After": RETRY_AFTER_S} if status == 503 else None,
    )
