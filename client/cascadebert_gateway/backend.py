"""The cascade behind the gateway."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.types import Receive

from cascadebert_client import (
    AsyncCascadeClient,
    CascadeClientError,
    Classification,
    RetryPolicy,
    ServerStatus,
    ServerUnavailable,
)
from cascadebert_client._tracing import is_traceparent

from .deadline import within
from .direct import DirectRequest
from .errors import ApiError, from_client_error, log_failure
from .messages import Options
from .settings import GatewaySettings

# What the server said of itself holds this long.
_STATUS_S = 2.0
_STATUS_TIMEOUT_S = 5.0
# Faster calls end before anyone could have hung up.
_WATCHED_AFTER_S = 0.05
# As the core and the client have them.
_MULTI_LABEL = "multi_label"
_LONGEST_ID = 200


class Backend:
    """The asyncio client, with the gateway's limits."""

    def __init__(self, settings: GatewaySettings):
        """Describe the connection. Nothing is sent before the first request."""
        self._settings = settings
        self.client = AsyncCascadeClient(
            settings.url,
            settings.model,
            settings.model_version,
            # If no server listens, callers are told at once and come back.
            retry=RetryPolicy(wait_for_server=False),
            **settings.client,
        )
        self._status: ServerStatus | None = None
        self._status_until_s = 0.0
        self._asking: asyncio.Task[ServerStatus] | None = None
        self._multi_label: bool | None = None

    async def classify(
        self, rows: Sequence[Any], options: Options, request: DirectRequest
    ) -> list[Classification]:
        """Classify rows. If the caller hangs up, the request to the server is cancelled.

        Raises:
            ApiError: There are too many rows.
            CascadeClientError: The client's own errors.
        """
        self._require_few(rows)
        return await self._classify(rows, options, request, self.timeout_s(options))

    async def classify_as_task(
        self, rows: Sequence[Any], options: Options, request: DirectRequest
    ) -> tuple[list[Classification], bool]:
        """Classify rows, and return whether their answers are sets of labels, too.

        That is asked first, and within the same time: an answer that is there is never lost.

        Raises:
            ApiError: There are too many rows, or the cascade's configuration cannot be read.
            CascadeClientError: The client's own errors.
        """
        self._require_few(rows)
        until_s = time.monotonic() + self.timeout_s(options)
        multi_label = await self.multi_label(options)
        left_s = max(0.001, until_s - time.monotonic())
        return await self._classify(rows, options, request, left_s), multi_label

    def _require_few(self, rows: Sequence[Any]) -> None:
        if len(rows) > self._settings.max_rows:
            raise ApiError(
                422,
                "validation",
                f"{len(rows)} texts are more than {self._settings.max_rows}, which is this "
                "gateway's limit: send fewer, or use /classify/stream",
            )

    async def _classify(
        self, rows: Sequence[Any], options: Options, request: DirectRequest, timeout_s: float
    ) -> list[Classification]:
        watch = _Watch(request.receive)
        try:
            return await self.client.classify(
                list(rows),
                timeout_s=timeout_s,
                request_id=request_id_of(request),
                traceparent=traceparent_of(request),
                **options.arguments(),
            )
        finally:
            watch.end()

    def timeout_s(self, options: Options) -> float:
        """Return the time limit of a request: what its caller asks for, within the gateway's."""
        if options.timeout_s is None:
            return self._settings.timeout_s
        return min(options.timeout_s, self._settings.timeout_s)

    async def multi_label(self, options: Options) -> bool:
        """Return whether an answer is a set of labels. Asked once, since it never changes.

        Raises:
            ApiError: 503, the configuration that says it cannot be read; 504, not in time.
        """
        if self._multi_label is None:
            late = ApiError(504, "timeout", "the cascade did not say in time what its task is")
            with within(self.timeout_s(options), late):
                status = await self.status()
            model = status.model
            if model.max_batch_size is None:  # its configuration was not read
                problem = status.problem or model.problem or "no configuration"
                raise from_client_error(ServerUnavailable(problem))
            self._multi_label = model.task == _MULTI_LABEL
        return self._multi_label

    async def status(self) -> ServerStatus:
        """Return the status of the first server that serves; asked at most every two seconds.

        Callers share a question. A caller whose time is over ends its own wait alone, and the next
        one finds the answer.
        """
        if self._status is not None and time.monotonic() < self._status_until_s:
            return self._status
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_status())
        return await asyncio.shield(self._asking)

    async def _ask_status(self) -> ServerStatus:
        status = await self.client.status(timeout_s=_STATUS_TIMEOUT_S)
        self._status, self._status_until_s = status, time.monotonic() + _STATUS_S
        if not status.serving:
            problem = status.problem or status.model.problem
            log_failure("status", problem or "no server serves the cascade")
        return status

    async def info(self) -> dict[str, Any]:
        """Return what a caller may know of the cascade."""
        status = await self.status()
        model = status.model
        return {
            "model": model.name,
            "versions": list(model.versions),
            "ready": status.serving,
            "problem": _problem_of(status),
            "task": model.task,
            "pair": model.pair,
            "labels": list(model.labels),
            "operating_points": [asdict(point) for point in model.operating_points],
            "cost_curve": None if model.cost_curve is None else asdict(model.cost_curve),
            "max_rows": self._settings.max_rows,
            "max_body_bytes": self._settings.max_body_bytes,
            "timeout_s": self._settings.timeout_s,
            "needs_key": bool(self._settings.keys),
        }

    async def ready(self) -> ApiError | None:
        """Return that the cascade cannot answer, or None if it can.

        Why not is in the log.
        """
        try:
            if (await self.status()).serving:
                return None
        except CascadeClientError:
            pass
        return ApiError(
            503, "unavailable", "the cascade cannot answer now: the gateway's log says why"
        )


def _problem_of(status: ServerStatus) -> str | None:
    """Say what is wrong, without the servers' addresses."""
    if not status.live:
        return "no server answers: the gateway's log says why"
    if status.problem is not None or not status.ready:
        return "the server is not ready: the gateway's log says why"
    if status.model.problem is not None or not status.model.ready:
        return "the cascade is not ready on the server: the gateway's log says why"
    return None


def request_id_of(request: Request | DirectRequest) -> str | None:
    """Return the caller's id of a request.

    Raises:
        ApiError: 422. The message does not show it: it may be anything.
    """
    value = request.headers.get("x-request-id")
    if value is None or (0 < len(value) <= _LONGEST_ID and value.isprintable()):
        return value
    raise ApiError(
        422,
        "validation",
        f"X-Request-Id: give 1 to {_LONGEST_ID} characters that can be printed",
        details={"field": "X-Request-Id"},
    )


def traceparent_of(request: Request | DirectRequest) -> str | None:
    """Return the caller's trace context. W3C's rule: what is wrong is ignored."""
    value = request.headers.get("traceparent")
    return value if value is not None and is_traceparent(value) else None


class _Watch:
    """Cancels the current task if the caller's connection is gone. The body has been read.

    Only a call that takes a while is watched: a task for each request costs as much as its JSON.
    """

    __slots__ = ("_gone", "_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive):
        self._receive = receive
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False
        self._timer = asyncio.get_running_loop().call_later(_WATCHED_AFTER_S, self._begin)

    def _begin(self) -> None:
        self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """Watch no more.

        Raises:
            ApiError: The caller has hung up.
        """
        self._timer.cancel()
        if self._watcher is None:
            return
        self._watcher.cancel()
        if self._gone:
            if sys.version_info >= (3, 11) and self._task is not None:
                self._task.uncancel()
            raise ApiError(499, "cancelled", "the caller hung up") from None
