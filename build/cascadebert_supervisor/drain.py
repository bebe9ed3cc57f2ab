"""Requests in flight are answered before a server stops.

A server that stops unloads all its models at the same time. It does not know that the requests of
a cascade still need the stages, so rows that wait for a later stage would fail (triton server issue
6287; seen with 2.51 if an answer takes longer than two seconds). So the cascades are unloaded
first: from then on they take no new requests, and each ends when it has answered those that it has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from typing import Any, cast

from .loopback import FAILURES, opened

_POLL_S = 0.05
_ASK_TIMEOUT_S = 5.0
# States of a version that still has, or may still get, requests.
_IN_USE = ("READY", "LOADING", "UNLOADING")
_LARGEST_ANSWER_BYTES = 2**22


def drain(
    http_port: int,
    cascades: Collection[str],
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Let the cascades of a running server answer what they have, and take nothing new.

    Args:
        http_port: The server's HTTP port on this machine.
        cascades: The names of the cascades.
        timeout_s: Seconds that this may take.
        headers: HTTP headers of the calls: the key of the restricted protocols.

    Returns:
        Why requests may still be in flight; "" if all of them are answered.
    """
    if not cascades:
        return ""
    deadline_s = time.monotonic() + timeout_s
    try:
        for name in cascades:
            _post(http_port, f"/v2/repository/models/{name}/unload", headers)
        while True:
            index = _post(http_port, "/v2/repository/index", headers)
            busy = cascades_in_use(index, cascades)
            if not busy:
                return ""
            if time.monotonic() >= deadline_s:
                return f"{', '.join(busy)} still answered requests after {timeout_s:g} s"
            time.sleep(_POLL_S)
    except FAILURES as exc:
        return f"the server cannot be asked to finish its requests ({type(exc).__name__}: {exc})"


def cascades_in_use(index: Any, cascades: Collection[str]) -> list[str]:
    """Return which cascades still have, or may still get, requests.

    Args:
        index: The server's repository index, as JSON: a list of objects with `name` and `state`.
        cascades: The names of the cascades.
    """
    entries = cast("list[dict[str, Any]]", index if isinstance(index, list) else [])
    in_use = {entry.get("name") for entry in entries if entry.get("state") in _IN_USE}
    return [name for name in cascades if name in in_use]


def _post(port: int, path: str, headers: Mapping[str, str] | None) -> Any:
    with opened(port, path, _ASK_TIMEOUT_S, b"{}", headers) as response:
        text = response.read(_LARGEST_ANSWER_BYTES)
    return json.loads(text) if text.strip() else None
