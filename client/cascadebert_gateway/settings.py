"""What a gateway is told at its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_MAX_BODY_BYTES = 8 * 2**20
DEFAULT_MAX_ROWS = 1024
DEFAULT_MAX_REQUESTS = 256
DEFAULT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The settings of a gateway.

    Attributes:
        url: `host:port` of Triton's gRPC endpoint; several with commas between them.
        model: The cascade's name on the server.
        model_version: Its version; None lets the server choose.
        keys: API keys of callers; none means that everyone may call.
        max_body_bytes: The largest body of a request. Of a stream, the longest line.
        max_rows: The most texts of one request; streams have no limit.
        max_requests: The most requests at the same time; more are refused with 503.
        timeout_s: Seconds that a request gets, and the most that a caller may ask for. A body
            must arrive in the same time, and so must each line of a stream.
        cors_origins: Origins of web pages that may call; none switches CORS off.
        client: More arguments of `AsyncCascadeClient`, such as `headers` and `credentials`.
    """

    url: str = "localhost:8001"
    model: str = "cascade"
    model_version: str | None = None
    keys: tuple[str, ...] = ()
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    max_rows: int = DEFAULT_MAX_ROWS
    max_requests: int = DEFAULT_MAX_REQUESTS
    timeout_s: float = DEFAULT_TIMEOUT_S
    cors_origins: tuple[str, ...] = ()
    client: Mapping[str, Any] = field(default_factory=dict[str, Any])
