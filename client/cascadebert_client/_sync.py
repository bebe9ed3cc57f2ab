"""The blocking client."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, overload

import tritonclient.grpc

from ._base import (
    DEFAULT_CONCURRENCY,
    DEFAULT_ROWS_PER_REQUEST,
    DEFAULT_STATUS_TIMEOUT_S,
    BaseClient,
    stream_parameters,
)
from ._cancellation import Cancellation, start
from ._channels import Channel
from ._deadline import Deadline
from ._pending import Answer, Pending, failed
from ._requests import Parameters, Thresholds, request_parameters
from ._rows import Chunker, Utf8Row, encode_inputs, fits_one_request, rows_from_inputs, split
from ._servers import balancing_arguments
from ._steps import AskAddresses, Call, Flow, Pause, Step
from ._types import Classification, ServerStatus
from .errors import FOREIGN_ERRORS
from .transport import channel_arguments

ResultT = TypeVar("ResultT")

# How long `close` waits for gRPC.
_CLOSE_S = 2.0


class CascadeClient(BaseClient[tritonclient.grpc.InferenceServerClient]):
    """Calls a served cascade and waits for its answers. Thread-safe.

    Make one client and keep it. It opens its connections once, on first use.

    Examples:
        >>> with CascadeClient("localhost:8001") as client:
        ...     client.classify("a gorgeous, witty film").label
        'positive'
    """

    def __enter__(self) -> "CascadeClient":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Calls in flight and later calls raise `RequestCancelled`."""
        self._closed = True
        # A channel waits for every call that was started. If a signal came while gRPC started one,
        # that call never ends (seen with gRPC 1.85): nothing here waits without a bound.
        closing = threading.Thread(
            target=self._close_channels, name="cascadebert-close", daemon=True
        )
        closing.start()
        closing.join(_CLOSE_S)

    def _close_channels(self) -> None:
        for pool in self._pools:
            for channel in pool.channels:
                channel.client.close()

    # A str is an iterable of str too; the first overload that fits decides.
    @overload
    def classify(  # pyright: ignore[reportOverlappingOverload]
        self,
        inputs: str | tuple[str, str],
        *,
        operating_point: str | None = None,
        threshold: Thresholds | None = None,
        stage: int | None = None,
        request_id: str | None = None,
        explain: bool = False,
        traceparent: str | None = None,
        timeout_s: float | None = None,
    ) -> Classification: ...

    @overload
    def classify(
        self,
        inputs: Iterable[str] | Iterable[tuple[str, str]],
        *,
        operating_point: str | None = None,
        threshold: Thresholds | None = None,
        stage: int | None = None,
        request_id: str | None = None,
        explain: bool = False,
        traceparent: str | None = None,
        timeout_s: float | None = None,
    ) -> list[Classification]: ...

    def classify(
        self,
        inputs: str | tuple[str, str] | Iterable[str] | Iterable[tuple[str, str]],
        *,
        operating_point: str | None = None,
        threshold: Thresholds | None = None,
        stage: int | None = None,
        request_id: str | None = None,
        explain: bool = False,
        traceparent: str | None = None,
        timeout_s: float | None = None,
    ) -> Classification | list[Classification]:
        """Classify one row, or many rows.

        More rows than the model's max_batch_size, or than 1 MiB of text, become several requests,
        with at most `max_concurrency` in flight. If one fails, the call fails.

        At most one of `operating_point`, `threshold` and `stage` may be given. With none of them
        the policy's default operating point applies.

        Args:
            inputs: A text or a (text, pair) tuple for one answer; or any iterable of either, also
                a numpy array of shape (n,), or (n, 2) for pairs, or a column of a data frame.
            operating_point: Name of a set of thresholds in the policy.
            threshold: Exit threshold of every stage but the last, in [0, 1], or a list with one for
                each of them. A row exits if its confidence is above it.
            stage: Position of the only stage that answers, from 0.
            request_id: The id that the server's log and trace have for the request, up to 200
                characters. Each request of a call has the same.
            explain: Whether each answer comes with its timeline: when each stage had the row, and
                what it said. The server makes it on request, since that costs time.
            traceparent: W3C's trace context of the caller, for the server's traces and its log. A
                current span of OpenTelemetry comes before it.
            timeout_s: Time limit of the whole call with its retries, in seconds; None for no limit.

        Returns:
            The answer, or a list of the answers in the order of the inputs.

        Raises:
            InvalidRequest: An input or an option is wrong. The message names the row.
            ModelNotFound: The server does not know the model or the version.
            DeadlineExceeded: There was no answer within `timeout_s`.
            ServerUnavailable: The server could not be reached or was not ready, after retries.
            RequestCancelled: The client was closed.
            ServerError: The server failed.
        """
        parameters = request_parameters(
            operating_point,
            threshold,
            stage,
            request_id,
            explain=explain,
            traceparent=traceparent,
        )
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
        threshold: Thresholds | None = None,
        stage: int | None = None,
        request_id: str | None = None,
        explain: bool = False,
        traceparent: str | None = None,
        timeout_s: float | None = None,
    ) -> Generator[Classification, None, None]:
        """Classify any number of rows. Rows are read as their answers are consumed.

        At most `rows_per_request * max_concurrency` rows are read ahead of their answers. Closing
        the generator, or leaving its loop and dropping it, cancels the requests in flight.

        Args:
            inputs: Any iterable of rows, as in `classify`. It is read in this thread.
            rows_per_request: Rows per request, but at most the model's max_batch_size.
            max_concurrency: Requests in flight.
            operating_point: As in `classify`.
            threshold: As in `classify`.
            stage: As in `classify`.
            request_id: As in `classify`.
            explain: As in `classify`.
            traceparent: As in `classify`.
            timeout_s: Time limit of each request with its retries, in seconds; None for no limit.

        Returns:
            A generator of the answers, in the order of the inputs. It raises an error, also one of
            the inputs, after the answers for the rows before it.

        Raises:
            InvalidRequest: An option is wrong. The generator raises the errors of `classify`.
        """
        # Checked now and not at the first row.
        rows = rows_from_inputs(inputs)
        parameters = stream_parameters(
            rows_per_request=rows_per_request,
            max_concurrency=max_concurrency,
            operating_point=operating_point,
            threshold=threshold,
            stage=stage,
            request_id=request_id,
            explain=explain,
            traceparent=traceparent,
            timeout_s=timeout_s,
        )

        def requests() -> Iterator[list[Utf8Row] | Exception]:
            limit = self._drive(
                self._flows.rows_per_request(rows_per_request, Deadline.after(timeout_s))
            )
            yield from _chunks(rows, limit)

        return self._in_order(
            requests(), parameters, lambda: Deadline.after(timeout_s), max_concurrency
        )

    def status(self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S) -> ServerStatus:
        """Return the status of the server and the cascade.

        An unreachable server or an unknown model is a status, not an error. Of several servers it
        is that of the first which serves, or else of the first; `statuses` has them all.

        Args:
            timeout_s: Time limit of all calls to a server together, in seconds; None for no limit.

        Raises:
            InvalidRequest: `timeout_s` is not a positive number.
        """
        found: list[ServerStatus] = []
        for server in range(len(self._pools)):
            found.append(self._status_of(server, timeout_s))
            if found[-1].serving:
                return found[-1]
        return found[0]

    def statuses(self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S) -> list[ServerStatus]:
        """Return the status of every server, in the order of `url`; see `status`."""
        return [self._status_of(server, timeout_s) for server in range(len(self._pools))]

    def _status_of(self, server: int, timeout_s: float | None) -> ServerStatus:
        return self._drive(self._flows.at(server).status(Deadline.after(timeout_s)))

    def cascades(self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S) -> tuple[str, ...]:
        """Return the names of the cascades on the server that are ready, sorted.

        The client's own model plays no part.

        Args:
            timeout_s: Time limit of all calls together, in seconds; None for no limit.

        Raises:
            AccessRestricted: The server does not list its models.
            ServerUnavailable: The server could not be reached, after retries.
        """
        return self._drive(self._flows.cascades(Deadline.after(timeout_s)))

    def model_parameters(
        self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S
    ) -> dict[str, str]:
        """Return the free parameters of the model's configuration.

        Args:
            timeout_s: Time limit with retries, in seconds; None for no limit.

        Raises:
            ModelNotFound: The server does not know the model or the version.
            AccessRestricted: The server does not show its configuration.
            ServerUnavailable: The server could not be reached or was not ready, after retries.
        """
        return self._drive(self._flows.model_parameters(Deadline.after(timeout_s)))

    def _classify_rows(
        self, rows: list[Utf8Row], parameters: Parameters, deadline: Deadline
    ) -> list[Classification]:
        if not rows:
            return []
        if len(rows) == 1:
            return self._drive(self._flows.classify(rows, parameters, deadline))
        limit = self._drive(self._flows.rows_per_request(len(rows), deadline))
        if fits_one_request(rows, limit):
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
        """Keep a window of requests in flight, and yield their answers in order."""
        cancellation = Cancellation()
        window: deque[Pending] = deque()
        more = True
        with ThreadPoolExecutor(max_concurrency, thread_name_prefix="cascadebert") as threads:
            try:
                while more or window:
                    full = not more or len(window) >= max_concurrency
                    # Yield finished answers before reading more rows: the source may be slow.
                    if window and (full or window[0].is_over()):
                        yield from window.popleft().answers()
                        continue
                    rows = next(requests, None)
                    if rows is None:
                        more = False
                    elif isinstance(rows, Exception):
                        # An error waits for its turn like an answer.
                        window.append(failed(rows))
                    else:
                        flow = self._flows.classify(rows, parameters, make_deadline())
                        traced = parameters.trace is not None
                        window.append(self._start(flow, cancellation, threads, traced=traced))
            finally:
                cancellation.cancel()
                for waiting in window:
                    waiting.cancel()

    def _start(
        self,
        flow: Flow[list[Classification]],
        cancellation: Cancellation,
        threads: ThreadPoolExecutor,
        *,
        traced: bool,
    ) -> Pending:
        """Start a request of a window.

        A request that is one call, as most are, needs no thread until it fails: its answer is read
        by the thread that wants it. A thread for each request doubles the CPU time of a call.
        """
        answer: Future[Answer] = Future()

        def in_thread(error: Exception | None = None) -> None:
            """Perform all steps, or all after a failure of the first."""
            try:
                answers = self._drive(flow, cancellation, error=error)
            except BaseException as exc:  # noqa: BLE001 - the thread that waits raises it
                answer.set_exception(exc)
            else:
                answer.set_result(lambda: answers)

        def arrived(result: Any, error: Exception | None) -> None:
            if error is None:
                answer.set_result(partial(self._drive, flow, cancellation, result))
                return
            try:
                threads.submit(in_thread, error)
            except RuntimeError:  # the stream was left meanwhile, and so were its threads
                answer.set_exception(error)

        # A span ends when its answer arrives, not when it is read.
        if traced or not self._flows.are_one_call:
            threads.submit(in_thread)
            return Pending(answer)
        try:
            step = next(flow)
            assert isinstance(step, Call)
            call = start(self._channel(step), _keywords(step), arrived)
        except FOREIGN_ERRORS as exc:
            threads.submit(in_thread, exc)
            return Pending(answer)
        except Exception as exc:  # noqa: BLE001 - it waits for its turn like an answer
            return failed(exc)
        return Pending(answer, call)

    def _connect(self, url: str) -> tritonclient.grpc.InferenceServerClient:
        return tritonclient.grpc.InferenceServerClient(
            url,
            creds=self._credentials,
            channel_args=[*channel_arguments(url), *balancing_arguments(url)],
        )

    def _drive(
        self,
        flow: Flow[ResultT],
        cancellation: Cancellation | None = None,
        outcome: Any = None,
        error: Exception | None = None,
    ) -> ResultT:
        """Perform the steps of a flow, and return its result.

        Args:
            flow: The flow, new or at a step that has been performed.
            cancellation: What may end its calls.
            outcome: The outcome of that step; None for a new flow.
            error: The failure of that step; None without one.
        """
        try:
            step = flow.send(outcome) if error is None else flow.throw(error)
            while True:
                try:
                    outcome = self._perform(step, cancellation)
                except FOREIGN_ERRORS as exc:
                    step = flow.throw(exc)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            return stop.value

    def _perform(self, step: Step, cancellation: Cancellation | None) -> Any:
        match step:
            case Pause(delay_s):
                if cancellation is not None:
                    cancellation.pause(delay_s)
                else:
                    time.sleep(delay_s)
                return None
            case AskAddresses():
                return self._reason_of_addresses(step)
            case Call(method):
                channel, keywords = self._channel(step), _keywords(step)
                if step.watch is not None:
                    return (cancellation or Cancellation()).infer(channel, keywords, step.watch)
                if cancellation is not None and method == "infer":
                    return cancellation.infer(channel, keywords)
                return getattr(channel.client, method)(**keywords)

    def _channel(self, call: Call) -> Channel[tritonclient.grpc.InferenceServerClient]:
        if self._closed:
            raise self._closed_error()
        return self._pools[call.server].pick()


def _keywords(call: Call) -> dict[str, Any]:
    return {**call.arguments, "client_timeout": call.timeout_s}


def _chunks(rows: Iterable[object], rows_per_request: int) -> Iterator[list[Utf8Row] | Exception]:
    """Gather rows into requests. A failure comes last, after the rows before it."""
    chunker = Chunker(rows_per_request)
    failure: Exception | None = None
    try:
        for row in rows:
            if request := chunker.add(row):
                yield request
    except Exception as exc:  # noqa: BLE001 - whatever the caller's iterable raises goes back to it
        failure = exc
    if rest := chunker.rest():
        yield rest
    if failure is not None:
        yield failure
