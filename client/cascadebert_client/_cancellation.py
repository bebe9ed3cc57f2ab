"""Cancels calls in flight from another thread."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol, cast

import tritonclient.grpc

from ._channels import Channel
from .errors import RequestCancelled


class _StartedCall(Protocol):
    def cancel(self) -> None: ...


class Cancellation:
    """Cancels, from one thread, the calls that other threads wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._calls: set[_StartedCall] = set()

    def cancel(self) -> None:
        """Cancel the calls in flight, and refuse new ones."""
        with self._lock:
            self._cancelled.set()
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def pause(self, delay_s: float) -> None:
        """Wait, in seconds.

        Raises:
            RequestCancelled: `cancel` was called.
        """
        if self._cancelled.wait(delay_s):
            raise RequestCancelled("the stream was left before this request was answered")

    def infer(
        self,
        channel: Channel[tritonclient.grpc.InferenceServerClient],
        keywords: Mapping[str, Any],
    ) -> Any:
        """Call `infer` so that `cancel` can end it. The blocking `infer` cannot be cancelled."""
        answer: Future[Any] = Future()

        def deliver(result: Any, error: Exception | None) -> None:
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        with channel.starting:
            call = cast("_StartedCall", channel.client.async_infer(callback=deliver, **keywords))
        with self._lock:
            self._calls.add(call)
            cancelled = self._cancelled.is_set()
        if cancelled:
            call.cancel()
        try:
            return answer.result()
        finally:
            with self._lock:
                self._calls.discard(call)
