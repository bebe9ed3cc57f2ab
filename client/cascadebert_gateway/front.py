"""What stands before every route: limits, keys, counters, and answers for errors."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cascadebert_client import CascadeClientError

from .access import ApiKeys
from .direct import DirectRequest, Endpoint, headers_of, send_json
from .errors import RETRY_AFTER_S, ApiError, from_client_error
from .metrics import GatewayMetrics

_LOGGER = logging.getLogger(__name__)
# These need no key: they are for probes of an orchestrator, and for people before they have one.
OPEN = frozenset({"/", "/health", "/ready", "/docs", "/redoc", "/openapi.json"})
OPEN_FOLDERS = ("/static/", "/static-offline-docs/")
# They answer at once, even if the gateway is full.
_UNLIMITED = OPEN | {"/metrics", "/info"}
# A stream has no limit as a whole, but each of its lines has.
_STREAMS = frozenset({"/classify/stream"})


class Front:
    """An ASGI application around the routes.

    It is written without a framework's middleware classes, which cost as much as a route.
    """

    def __init__(
        self,
        app: ASGIApp,
        direct: Mapping[str, Endpoint],
        *,
        keys: ApiKeys,
        metrics: GatewayMetrics,
        max_body_bytes: int,
        max_requests: int,
    ):
        """Wrap an application.

        Args:
            app: The application.
            direct: By their paths, the endpoints that take POST and that are called without the
                application: its routing costs a third of the call to the server.
            keys: The keys that callers may have.
            metrics: The counters.
            max_body_bytes: The largest body of a request.
            max_requests: The most requests at the same time.
        """
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._max_requests = max_requests
        self._direct = direct
        self._in_flight = 0
        metrics.in_flight.set_function(lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        endpoint = self._direct.get(path) if scope["method"] == "POST" else None
        started_s = time.perf_counter()
        status = 500
        begun = False

        async def counted(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
            await send(message)

        limited = path not in _UNLIMITED
        self._in_flight += limited
        try:
            headers = headers_of(scope)
            if limited and self._in_flight > self._max_requests:
                raise ApiError(
                    503,
                    "overloaded",
                    f"{self._max_requests} requests are in flight, which is this gateway's limit: "
                    "try again",
                    headers={"Retry-After": RETRY_AFTER_S},
                )
            if path not in OPEN and not path.startswith(OPEN_FOLDERS):
                self._keys.require(headers)
            receive = receive if path in _STREAMS else self._bounded(headers, receive)
            if endpoint is None:
                await self._app(scope, receive, counted)
            else:
                await send_json(counted, await endpoint(DirectRequest(headers, receive)))
        except (ApiError, CascadeClientError) as exc:
            error = exc if isinstance(exc, ApiError) else from_client_error(exc)
            if not begun:
                await error.response()(scope, receive, counted)
        except ClientDisconnect:
            status = 499
        except Exception:
            _LOGGER.exception("a request to %s failed", path)
            if not begun:
                error = ApiError(500, "internal", "the gateway failed: its log says why")
                await error.response()(scope, receive, counted)
        finally:
            self._in_flight -= limited
            route = path if endpoint else getattr(scope.get("route"), "path", "other")
            self._metrics.count(route, status, time.perf_counter() - started_s)

    def _bounded(
        self, headers: Mapping[str, str], receive: Receive
    ) -> Callable[[], Awaitable[Message]]:
        """Refuse a body that is too large, by its declared length or while it arrives.

        Raises:
            ApiError: 413.
        """
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_body_bytes:
            raise self._too_large()
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_body_bytes:
                    raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            "too_large",
            f"the body has more than {self._max_body_bytes} bytes, which is this gateway's limit: "
            "send fewer texts, or use /classify/stream",
            headers={"Connection": "close"},
        )
