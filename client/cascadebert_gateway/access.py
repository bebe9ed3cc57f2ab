"""API keys."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cascadebert_client import InvalidRequest

from .errors import ApiError

KEYS_VARIABLE = "CASCADEBERT_GATEWAY_KEYS"
_KEY = re.compile(r"[\x21-\x7e]{16,}")


class ApiKeys:
    """The keys that callers may have, one of which a request must show."""

    def __init__(self, keys: Iterable[str]):
        """Keep digests: all comparisons then take the same time, whatever a key's length."""
        self._digests = [_digest(key) for key in keys]

    def require(self, headers: Mapping[str, str]) -> None:
        """Check `Authorization: Bearer KEY` or `X-API-Key: KEY`.

        Raises:
            ApiError: 401. The message is the same without a key and with a wrong one.
        """
        if not self._digests:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = headers.get("x-api-key", "")
        digest = _digest(given.strip())
        # All keys are compared, so that the time does not tell which one is close.
        found = [hmac.compare_digest(digest, each) for each in self._digests]
        if not any(found):
            raise ApiError(
                401,
                "authentication",
                "this gateway wants an API key: send Authorization: Bearer KEY, or X-API-Key: KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def keys_from(path: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Read API keys: from a file, one a line, or from the environment, separated by commas.

    Args:
        path: The file; empty lines and lines with `#` are ignored.
        environment: Where CASCADEBERT_GATEWAY_KEYS may be.

    Raises:
        InvalidRequest: The file cannot be read, has no key, or a key cannot be used.
    """
    if path is None:
        where = KEYS_VARIABLE
        lines: Sequence[str] = environment.get(KEYS_VARIABLE, "").split(",")
    else:
        where = f"the file {path}"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidRequest(f"{where} with API keys cannot be read: {exc}") from exc
    keys = tuple(k for line in lines if (k := line.strip()) and not k.startswith("#"))
    if path is not None and not keys:
        raise InvalidRequest(f"{where} has no API key: write one on each line")
    for number, key in enumerate(keys, start=1):
        if not _KEY.fullmatch(key):
            # The message goes to a terminal or a log, so it does not show the key.
            raise InvalidRequest(
                f"key {number} in {where} cannot be used: give 16 or more printable characters "
                "without spaces (openssl rand -hex 32)"
            )
    return keys
