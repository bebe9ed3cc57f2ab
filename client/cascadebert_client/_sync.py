"""The blocking client."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar, cast, overload

import grpc
import tritonclient.grpc

from ._channels import DEFAULT_CHANNELS, Channel, ChannelPool, channel_arguments, require_address
from ._checks import require_positive
from ._deadline import Deadline, RetryPolicy
from ._flows import Call, CascadeFlows, Flow, Pause, Step
from ._requests import (
    Chunker,
    Parameters,
    Utf8Row,
    encode_inputs,
    request_parameters,
    require_iterable_of_rows,
    split,
)
from ._traffic import BY_REQUEST, traffic_from_shares
from ._types import Classification, ServerStatus
from .errors import FOREIGN_ERRORS, CascadeClientError, RequestCancelled, Target

ResultT = TypeVar("ResultT")

DEFAULT_CONCURRENCY = 8
DEFAULT_ROWS_PER_REQUEST = 16
DEFAULT_STATUS_TIMEOUT_S = 5.0


class CascadeClient:
    """Calls a served cascade, and waits for its answers. Thread-safe.

    Make one client and keep it: its connections are opened once, on first use.

    Example:
        >>> with CascadeClient("localhost:8001") as client:
        ...     client.classify("a gorgeous, witty film").label
        'positive'
    """

    def __init__(
        self,
        url: str,
        model: str = "cascade",
        model_version: str | int | None = None,
        *,
        channels: int = DEFAULT_CHANNELS,
        max_concurrency: int = DEFAULT_CONCURRENCY,
        max_batch_size: int | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        traffic: Mapping[str, float] | Mapping[int, float] | None = None,
        traffic_by: Literal["request", "text"] = BY_REQUEST,
    ):
        """Describe the connection; nothing is sent yet.

        Args:
            url: `host:port` of the server's gRPC endpoint.
            model: Name of the cascade on the server.
            model_version: Its version; None lets the server choose.
            channels: Connections to use in turn. One caps throughput at high concurrency.
            max_concurrency: Requests that one `classify` of a long list keeps in flight.
            max_batch_size: Rows that one request may carry; None reads it from the model's
                configuration, once, when a call first has several rows.
            retry: When an unavailable server is asked again.
            headers: gRPC metadata of every call, such as the key of a restricted protocol.
            credentials: TLS credentials (`grpc.ssl_channel_credentials(…)`); None sends in clear.
            traffic: Shares of the traffic for other versions, such as `{"2": 0.1}`: each from 0 to
                1, together at most 1. What they leave goes to `model_version`, or to the version
                that the server chooses, its newest. A version that is named must be loaded.
            traffic_by: "request" draws a version for every request at random. "text" chooses it by
                the text, so that equal rows get the answer of one version; the rows of a list are
                sent to their versions one request after the other. `Classification.policy` tells
                in both cases who has answered.

        Raises:
            InvalidRequest: `url` is not host:port, a count is less than 1, or the shares of
                `traffic` are none.
        """
        self._flows = make_flows(
            url,
            model,
            model_version,
            max_batch_size=max_batch_size,
            retry=retry,
            headers=headers,
            traffic=traffic,
            traffic_by=traffic_by,
        )
        self._max_concurrency = require_positive("max_concurrency", max_concurrency)
        self._closed = False
        self._pool = ChannelPool(
            lambda: tritonclient.grpc.InferenceServerClient(
                url, creds=credentials, channel_args=channel_arguments()
            ),
            require_positive("channels", channels),
        )

    def __enter__(self) -> "CascadeClient":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Calls in flight raise `RequestCancelled`, as do later ones."""
        self._closed = True
        for channel in self._pool.channels:
            channel.client.close()

    @overload
    def classify(
        self,
        inputs: str | tuple[str, str],
        *,
        operating_point: str | None = None,
        threshold: float | None = None,
        stage: int | None = None,
        timeout_s: float | None = None,
    ) -> Classification: ...

    @overload
    def classify(
        self,
        inputs: list[str] | list[tuple[str, str]],
        *,
        operating_point: str | None = None,
        threshold: float | None = None,
        stage: int | None = None,
        timeout_s: float | None = None,
    ) -> list[Classification]: ...

    def classify(
        self,
        inputs: str | tuple[str, str] | list[str] | list[tuple[str, str]],
        *,
        operating_point: str | None = None,
        threshold: float | None = None,
        stage: int | None = None,
        timeout_s: float | None = None,
    ) -> Classification | list[Classification]:
        """Classify one row, or a list of rows.

        A list longer than the model's max_batch_size goes out as several requests, at most
        `max_concurrency` of them at a time; if one fails, the call fails.

        Args:
            inputs: A text or a (text, pair) tuple, for one answer; a list of either, for a list.
            operating_point: Name of a set of thresholds in the policy.
            threshold: Exit threshold of every stage but the last, in [0, 1]. A row exits when
                its confidence is above it.
            stage: Position (0-based) of the stage that alone answers.
            timeout_s: Seconds that the whole call may take, retries included; None sets no limit.
                At most one of operating_point, threshold and stage may be given; with none the
                policy's default operating point holds.

        Returns:
            The answer, or the answers in the order of the inputs; none for an empty list.

        Raises:
            InvalidRequest: An input or option is wrong; the message names the row.
            ModelNotFound: The server does not know the model or version.
            DeadlineExceeded: No answer within `timeout_s`.
            ServerUnavailable: The server cannot be reached or is not ready, retries included.
            RequestCancelled: The client was closed.
            ServerError: The server failed.
        """
        parameters = request_parameters(operating_point, threshold, stage)
        deadline = Deadline.after(timeout_s)
        encoded = encode_inputs(inputs)
        answers = self._classify_rows(encoded.rows, parameters, deadline)
        return answers[0] if encoded.single else answers

    def classify_stream(
        self,
        inputs: Iterable[str] | Iterable[tuple[str, str]],
        *,
        rows_per_request: int = DEFAULT_ROWS_PER_REQUEST,
        max_concurrency: int = DEFAULT_CONCURRENCY,
        operating_point: str | None = None,
        threshold: float | None = None,
        stage: int | None = None,
        timeout_s: float | None = None,
    ) -> Generator[Classification, None, None]:
        """Classify any number of rows, reading them as the answers are taken.

        At most `rows_per_request * max_concurrency` rows have been read and not yet answered.
        Leaving the generator early (`close()`, or `break` and letting go of it) cancels what is
        in flight.

        Args:
            inputs: Texts, or (text, pair) tuples; any iterable, read in this thread.
            rows_per_request: Rows per request; no more than the model's max_batch_size are sent.
            max_concurrency: Requests in flight.
            operating_point: As in `classify`.
            threshold: As in `classify`.
            stage: As in `classify`.
            timeout_s: Seconds that each request may take, retries included; None sets no limit.

        Returns:
            The answers, in the order of the inputs. An error, of the inputs too, is raised in
            its place, after the answers for the rows before it.

        Raises:
            InvalidRequest: An option is wrong. What `classify` raises comes from the generator.
        """
        require_iterable_of_rows(inputs)
        parameters = request_parameters(operating_point, threshold, stage)
        Deadline.after(timeout_s)  # refuses a wrong value now rather than at the first row
        rows_per_request = require_positive("rows_per_request", rows_per_request)
        max_concurrency = require_positive("max_concurrency", max_concurrency)

        def requests() -> Iterator[list[Utf8Row] | Exception]:
            limit = self._drive(
                self._flows.rows_per_request(rows_per_request, Deadline.after(timeout_s))
            )
            yield from _chunks(inputs, limit)

        return self._in_order(
            requests(), parameters, lambda: Deadline.after(timeout_s), max_concurrency
        )

    def status(self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S) -> ServerStatus:
        """Ask how the server and the cascade are.

        An unreachable server or an unknown model is a status, not an error.

        Args:
            timeout_s: Seconds that all questions together may take; None sets no limit.

        Raises:
            InvalidRequest: `timeout_s` is not a positive number.
        """
        return self._drive(self._flows.status(Deadline.after(timeout_s)))

    def model_parameters(
        self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S
    ) -> dict[str, str]:
        """Return the free parameters of the model's configuration.

        Args:
            timeout_s: Seconds that it may take, retries included; None sets no limit.

        Raises:
            ModelNotFound: The server does not know the model or version.
            AccessRestricted: The server keeps its configuration to itself.
            ServerUnavailable: The server cannot be reached or is not ready, retries included.
        """
        return self._drive(self._flows.model_parameters(Deadline.after(timeout_s)))

    def _classify_rows(
        self, rows: list[Utf8Row], parameters: Parameters, deadline: Deadline
    ) -> list[Classification]:
        if not rows:
            return []
        limit = self._drive(self._flows.rows_per_request(len(rows), deadline))
        if len(rows) <= limit:
            return self._drive(self._flows.classify(rows, parameters, deadline))
        parts = split(rows, limit)
        return list(self._in_order(parts, parameters, lambda: deadline, self._max_concurrency))

    def _in_order(
        self,
        requests: Iterator[list[Utf8Row] | Exception],
        parameters: Parameters,
        make_deadline: Callable[[], Deadline],
        max_concurrency: int,
    ) -> Generator[Classification, None, None]:
        """Send requests from a window of threads, and yield their answers in order."""
        cancellation = _Cancellation()

        def classify(rows: list[Utf8Row]) -> list[Classification]:
            flow = self._flows.classify(rows, parameters, make_deadline())
            return self._drive(flow, cancellation)

        window: deque[Future[list[Classification]]] = deque()
        more = True
        with ThreadPoolExecutor(max_concurrency, thread_name_prefix="cascadebert") as threads:
            try:
                while more or window:
                    full = not more or len(window) >= max_concurrency
                    # Answers that are there go out before more rows are read: the source may
                    # be slow.
                    if window and (full or window[0].done()):
                        yield from window.popleft().result()
                        continue
                    rows = next(requests, None)
                    if rows is None:
                        more = False
                    elif isinstance(rows, Exception):
                        # It waits for its turn like an answer.
                        failed: Future[list[Classification]] = Future()
                        failed.set_exception(rows)
                        window.append(failed)
                    else:
                        window.append(threads.submit(classify, rows))
            finally:
                cancellation.cancel()
                for waiting in window:
                    waiting.cancel()

    def _drive(self, flow: Flow[ResultT], cancellation: "_Cancellation | None" = None) -> ResultT:
        """Perform the steps of a flow, and return its result."""
        try:
            step = next(flow)
            while True:
                try:
                    outcome = self._perform(step, cancellation)
                except FOREIGN_ERRORS as exc:
                    step = flow.throw(exc)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            return stop.value

    def _perform(self, step: Step, cancellation: "_Cancellation | None") -> Any:
        match step:
            case Pause(delay_s):
                if cancellation is not None:
                    cancellation.pause(delay_s)
                else:
                    time.sleep(delay_s)
                return None
            case Call(method, arguments, timeout_s):
                if self._closed:
                    raise client_closed(self._flows.target)
                channel = self._pool.pick()
                keywords = {**arguments, "client_timeout": timeout_s}
                if cancellation is not None and method == "infer":
                    return cancellation.infer(channel, keywords)
                return getattr(channel.client, method)(**keywords)


class _StartedCall(Protocol):
    def cancel(self) -> None: ...


class _Cancellation:
    """Cancels, from one thread, the calls that others wait for."""

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
        """Wait, or raise `RequestCancelled` as soon as cancelled."""
        if self._cancelled.wait(delay_s):
            raise _stream_left()

    def infer(
        self,
        channel: Channel[tritonclient.grpc.InferenceServerClient],
        keywords: Mapping[str, Any],
    ) -> Any:
        """Call `infer` in a way that `cancel` reaches. Blocking `infer` gives no handle."""
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


def make_flows(
    url: str,
    model: str,
    model_version: str | int | None,
    *,
    max_batch_size: int | None,
    retry: RetryPolicy | None,
    headers: Mapping[str, str] | None,
    traffic: Mapping[str, float] | Mapping[int, float] | None,
    traffic_by: str,
) -> CascadeFlows:
    """Return the conversations with a cascade, from what both clients are given.

    Raises:
        InvalidRequest: `url` is not host:port, `max_batch_size` is less than 1, or the shares of
            `traffic` are none.
    """
    version = "" if model_version is None else str(model_version)
    return CascadeFlows(
        Target(require_address(url), model, version),
        retry=retry if retry is not None else RetryPolicy(),
        max_batch_size=(
            None if max_batch_size is None else require_positive("max_batch_size", max_batch_size)
        ),
        headers=headers,
        traffic=traffic_from_shares(traffic, rest=version, by=traffic_by),
    )


def client_closed(target: Target) -> CascadeClientError:
    """Return the error of a call on a client that has been closed."""
    return RequestCancelled(
        f"the client of {target} is closed: call inside its `with` block, or make a new client",
        target=target,
    )


def _stream_left() -> CascadeClientError:
    return RequestCancelled("the stream was left before this request was answered")


def _chunks(inputs: Iterable[object], rows_per_request: int) -> Iterator[list[Utf8Row] | Exception]:
    """Gather rows into requests. What fails comes last, after the rows before it."""
    chunker = Chunker(rows_per_request)
    failure: Exception | None = None
    try:
        for row in inputs:
            if rows := chunker.add(row):
                yield rows
    except Exception as exc:  # noqa: BLE001 - whatever the caller's iterable raises goes back to it
        failure = exc
    if rest := chunker.rest():
        yield rest
    if failure is not None:
        yield failure
