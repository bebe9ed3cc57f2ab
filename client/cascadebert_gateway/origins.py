"""Requests of web pages that are not the gateway's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from .errors import ApiError

# A browser asks before a page of another origin may send these, and the gateway then refuses.
_ASKED_BEFORE = frozenset({"application/json", "application/x-ndjson"})
_ORIGIN = re.compile(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


def is_origin(value: str) -> bool:
    """Return whether `--cors-origin` takes a value: as a browser writes it, or `*` for all."""
    return value == "*" or _ORIGIN.fullmatch(value) is not None


def require_asked_before(headers: Mapping[str, str], allowed: Sequence[str]) -> None:
    """Refuse what a page of another origin can send without being asked for leave.

    A form or a `fetch` with `text/plain` reaches the gateway although the page may not read the
    answer. Callers that are no pages send no `Origin`.

    Args:
        headers: By their names in lower case, of a request that may have a body.
        allowed: Origins that may call.

    Raises:
        ApiError: 415.
    """
    origin = headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    if _host_of(origin) == headers.get("host", "").lower():
        return
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _ASKED_BEFORE:
        raise ApiError(
            415,
            "origin",
            "a page of another origin must send Content-Type: application/json, and may call only "
            "if --cors-origin names it",
        )


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
