"""What stands before every route: limits, keys, counters, and answers for errors."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cascadebert_client import CascadeClientError

from .access import ApiKeys
from .direct import DirectRequest, Endpoint, body_of, headers_of, send_json
from .errors import RETRY_AFTER_S, ApiError, from_client_error
from .metrics import GatewayMetrics
from .origins import require_asked_before
from .spans import server_span

_LOGGER = logging.getLogger(__name__)
# These need no key: they are for probes of an orchestrator, and for people before they have one.
OPEN = frozenset({"/", "/health", "/ready", "/docs", "/redoc", "/openapi.json"})
OPEN_FOLDERS = ("/static/", "/static-offline-docs/")
# They answer at once, even if the gateway is full.
_UNLIMITED = OPEN | {"/metrics", "/info"}
# A stream has no limit as a whole, but each of its lines has.
_STREAMS = frozenset({"/classify/stream"})
# Probes and load balancers ask with HEAD, too.
_ALSO_HEAD = frozenset({"/", "/health", "/ready"})
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_NO_FRAMES = (b"content-security-policy", b"frame-ancestors 'none'")
# Pages whose own policy the framework does not set.
_FRAMEWORK_PAGES = frozenset({"/docs", "/redoc"})


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
        timeout_s: float,
        origins: Sequence[str] = (),
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
            timeout_s: Seconds in which a body must arrive.
            origins: Origins of web pages that may call.
        """
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._max_requests = max_requests
        self._timeout_s = timeout_s
        self._origins = origins
        self._direct = direct
        self._in_flight = 0
        self._held_bytes = 0
        metrics.in_flight.set_function(lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        headers = headers_of(scope)
        endpoint = self._direct.get(path) if method == "POST" else None
        if endpoint is None:  # the framework makes spans of its own
            await self._answer(scope, receive, send, headers, None)
            return
        with server_span(method, path, headers) as outcome:
            outcome.status = await self._answer(scope, receive, send, headers, endpoint)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[str, str],
        endpoint: Endpoint | None,
    ) -> int:
        """Answer a request, and return the status."""
        path, method = scope["path"], scope["method"]
        without_body = method == "HEAD" and path in _ALSO_HEAD
        if without_body:
            scope = {**scope, "method": "GET"}
        started_s = time.perf_counter()
        status = 500
        begun = False

        async def counted(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [*message.get("headers", ()), *_more_headers(path)]
            elif without_body:
                message = {**message, "body": b""}
            await send(message)

        slots = 0
        try:
            self._admit(path, method, headers)
            bounded = nullcontext(receive) if path in _STREAMS else self._bounded(headers, receive)
            with bounded as take:
                if endpoint is None:
                    slots = int(path not in _UNLIMITED)
                    self._in_flight += slots
                    await self._app(scope, take, counted)
                else:
                    body = await body_of(take, self._timeout_s)
                    # A body that does not arrive takes no place, so there may be none now.
                    self._require_room()
                    slots = 1
                    self._in_flight += slots
                    request = DirectRequest(headers, body, take)
                    await send_json(counted, await endpoint(request))
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
            self._in_flight -= slots
            route = path if endpoint else getattr(scope.get("route"), "path", "other")
            self._metrics.count(route, status, time.perf_counter() - started_s)
        return status

    def _admit(self, path: str, method: str, headers: Mapping[str, str]) -> None:
        """Refuse a request by its headers.

        Raises:
            ApiError: 401, 415 or 503.
        """
        if path not in _UNLIMITED:
            self._require_room()
        if path not in OPEN and not path.startswith(OPEN_FOLDERS):
            self._keys.require(headers)
        if method == "POST":
            require_asked_before(headers, self._origins)

    def _require_room(self) -> None:
        """Refuse a request if there are too many.

        Raises:
            ApiError: 503.
        """
        if self._in_flight >= self._max_requests:
            raise self._full(
                f"{self._max_requests} requests are in flight, which is this gateway's limit"
            )

    def _full(self, why: str) -> ApiError:
        headers = {"Retry-After": RETRY_AFTER_S}
        return ApiError(503, "overloaded", f"{why}: try again", headers=headers)

    @contextmanager
    def _bounded(
        self, headers: Mapping[str, str], receive: Receive
    ) -> Generator[Callable[[], Awaitable[Message]], None, None]:
        """Refuse a body that is too large, by its declared length or while it arrives.

        All bodies together have a limit too: those that still arrive take no place.

        Raises:
            ApiError: 413, or 503 if there is no memory for more bodies.
        """
        declared = headers.get("content-length", "")
        # Python reads no integer of more than 4,300 digits.
        if declared.isdecimal() and int(declared[:100]) > self._max_body_bytes:
            raise self._too_large()
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                received += size
                self._held_bytes += size
                if received > self._max_body_bytes:
                    raise self._too_large()
                if self._held_bytes > self._max_requests * self._max_body_bytes:
                    raise self._full("the bodies of all requests together are too large")
            return message

        try:
            yield bounded
        finally:
            self._held_bytes -= received

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            "too_large",
            f"the body has more than {self._max_body_bytes} bytes, which is this gateway's limit: "
            "send fewer texts, or use /classify/stream",
            headers={"Connection": "close"},
        )


def _more_headers(path: str) -> tuple[tuple[bytes, bytes], ...]:
    return (_NO_SNIFFING, _NO_FRAMES) if path in _FRAMEWORK_PAGES else (_NO_SNIFFING,)
