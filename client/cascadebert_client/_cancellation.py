"""Cancels calls in flight from another thread."""

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, cast

import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from ._channels import Channel
from ._pending import StartedCall
from ._servers import HangWatch, is_silent, no_sign_of_life
from .errors import RequestCancelled


def start(
    channel: Channel[tritonclient.grpc.InferenceServerClient],
    keywords: Mapping[str, Any],
    deliver: Callable[[Any, Exception | None], None],
) -> StartedCall:
    """Start an inference, and return what cancels it.

    Args:
        channel: The connection.
        keywords: The arguments of `infer`.
        deliver: Called with the answer and None, or with None and the failure; perhaps in one of
            gRPC's threads, so it must return soon.
    """
    with channel.starting:
        return cast("StartedCall", channel.client.async_infer(
            callback=deliver, **keywords
        ))  # fmt: skip


class Cancellation:
    """Cancels, from one thread, the calls that other threads wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._calls: set[StartedCall] = set()

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
        watch: HangWatch | None = None,
    ) -> Any:
        """Call `infer` so that `cancel` can end it. The blocking `infer` cannot be cancelled.

        Args:
            channel: The connection.
            keywords: The arguments of `infer`.
            watch: When to ask whether the server lives; None: wait for the answer.

        Raises:
            InferenceServerException: The call failed, or the server hangs.
        """
        answer: Future[Any] = Future()

        def deliver(result: Any, error: Exception | None) -> None:
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        call = start(channel, keywords, deliver)
        with self._lock:
            self._calls.add(call)
            cancelled = self._cancelled.is_set()
        if cancelled:
            call.cancel()
        try:
            while watch is not None:
                with contextlib.suppress(FutureTimeoutError):
                    return answer.result(watch.patience_s)
                if not answer.done() and not _lives(channel, keywords, watch):
                    call.cancel()
                    raise no_sign_of_life(watch)
            return answer.result()
        finally:
            with self._lock:
                self._calls.discard(call)


def _lives(
    channel: Channel[tritonclient.grpc.InferenceServerClient],
    keywords: Mapping[str, Any],
    watch: HangWatch,
) -> bool:
    try:
        channel.client.is_server_live(headers=keywords["headers"], client_timeout=watch.probe_s)
    except InferenceServerException as exc:
        return not is_silent(exc)
    return True  # or it says that it does not, but it says so
