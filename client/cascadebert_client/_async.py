"""The client for asyncio. All but the awaiting is shared with the blocking client."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

import grpc
import tritonclient.grpc.aio

from ._channels import DEFAULT_CHANNELS, ChannelPool, channel_arguments
from ._checks import require_positive
from ._deadline import Deadline, RetryPolicy
from ._flows import Call, Flow, Pause, Step
from ._requests import (
    Chunker,
    Parameters,
    Utf8Row,
    encode_inputs,
    request_parameters,
    require_iterable_of_rows,
    split,
)
from ._sync import (
    DEFAULT_CONCURRENCY,
    DEFAULT_ROWS_PER_REQUEST,
    DEFAULT_STATUS_TIMEOUT_S,
    client_closed,
    make_flows,
)
from ._traffic import BY_REQUEST
from ._types import Classification, ServerStatus
from .errors import FOREIGN_ERRORS

ResultT = TypeVar("ResultT")


class AsyncCascadeClient:
    """Calls a served cascade from asyncio.

    A client belongs to the event loop of its first call. Cancelling a task cancels its request.

    Example:
        >>> async with AsyncCascadeClient("localhost:8001") as client:
        ...     (await client.classify("a gorgeous, witty film")).label
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
        """Describe the connection; nothing is sent yet. The arguments are `CascadeClient`'s.

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
        self._channels = require_positive("channels", channels)
        self._credentials = credentials
        self._closed = False
        # gRPC binds a channel to the running loop, and here there may be none yet.
        self._pool: ChannelPool[tritonclient.grpc.aio.InferenceServerClient] | None = None

    async def __aenter__(self) -> "AsyncCascadeClient":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Calls in flight raise `RequestCancelled`, as do later ones."""
        self._closed = True
        if self._pool is not None:
            for channel in self._pool.channels:
                await channel.client.close()

    @overload
    async def classify(
        self,
        inputs: str | tuple[str, str],
        *,
        operating_point: str | None = None,
        threshold: float | None = None,
        stage: int | None = None,
        timeout_s: float | None = None,
    ) -> Classification: ...

    @overload
    async def classify(
        self,
        inputs: list[str] | list[tuple[str, str]],
        *,
        operating_point: str | None = None,
        threshold: float | None = None,
        stage: int | None = None,
        timeout_s: float | None = None,
    ) -> list[Classification]: ...

    async def classify(
        self,
        inputs: str | tuple[str, str] | list[str] | list[tuple[str, str]],
        *,
        operating_point: str | None = None,
        threshold: float | None = None,
        stage: int | None = None,
        timeout_s: float | None = None,
    ) -> Classification | list[Classification]:
        """Classify one row, or a list of rows: arguments, answers and errors of `CascadeClient`."""
        parameters = request_parameters(operating_point, threshold, stage)
        deadline = Deadline.after(timeout_s)
        encoded = encode_inputs(inputs)
        answers = await self._classify_rows(encoded.rows, parameters, deadline)
        return answers[0] if encoded.single else answers

    def classify_stream(
        self,
        inputs: Iterable[str]
        | Iterable[tuple[str, str]]
        | AsyncIterable[str]
        | AsyncIterable[tuple[str, str]],
        *,
        rows_per_request: int = DEFAULT_ROWS_PER_REQUEST,
        max_concurrency: int = DEFAULT_CONCURRENCY,
        operating_point: str | None = None,
        threshold: float | None = None,
        stage: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Classification, None]:
        """Classify any number of rows, reading them as the answers are taken.

        As `CascadeClient.classify_stream`, with two differences: `inputs` may be asynchronous,
        and a synchronous one is read in the event loop, so it must not block. To leave early
        and have the requests in flight cancelled at once, use `contextlib.aclosing`.
        """
        require_iterable_of_rows(inputs)
        parameters = request_parameters(operating_point, threshold, stage)
        Deadline.after(timeout_s)  # refuses a wrong value now rather than at the first row
        rows_per_request = require_positive("rows_per_request", rows_per_request)
        max_concurrency = require_positive("max_concurrency", max_concurrency)

        async def requests() -> AsyncGenerator[list[Utf8Row] | Exception, None]:
            limit = await self._drive(
                self._flows.rows_per_request(rows_per_request, Deadline.after(timeout_s))
            )
            async with aclosing(_chunks(inputs, limit)) as chunks:
                async for rows in chunks:
                    yield rows

        return self._in_order(
            requests(), parameters, lambda: Deadline.after(timeout_s), max_concurrency
        )

    async def status(self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S) -> ServerStatus:
        """Ask how the server and the cascade are, as `CascadeClient.status` does."""
        return await self._drive(self._flows.status(Deadline.after(timeout_s)))

    async def model_parameters(
        self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S
    ) -> dict[str, str]:
        """Return the model's free parameters; see `CascadeClient.model_parameters`."""
        return await self._drive(self._flows.model_parameters(Deadline.after(timeout_s)))

    async def _classify_rows(
        self, rows: list[Utf8Row], parameters: Parameters, deadline: Deadline
    ) -> list[Classification]:
        if not rows:
            return []
        limit = await self._drive(self._flows.rows_per_request(len(rows), deadline))
        if len(rows) <= limit:
            return await self._drive(self._flows.classify(rows, parameters, deadline))
        parts = _as_async(split(rows, limit))
        answers = self._in_order(parts, parameters, lambda: deadline, self._max_concurrency)
        async with aclosing(answers):
            return [answer async for answer in answers]

    async def _in_order(
        self,
        requests: AsyncGenerator[list[Utf8Row] | Exception, None],
        parameters: Parameters,
        make_deadline: Callable[[], Deadline],
        max_concurrency: int,
    ) -> AsyncGenerator[Classification, None]:
        """Send requests from a window of tasks, and yield their answers in order."""
        window: deque[asyncio.Future[list[Classification]]] = deque()
        more = True
        try:
            while more or window:
                full = not more or len(window) >= max_concurrency
                # Answers that are there go out before more rows are read: the source may be slow.
                if window and (full or window[0].done()):
                    answers = await window[0]
                    window.popleft()
                    for answer in answers:
                        yield answer
                    continue
                rows = await anext(requests, None)
                if rows is None:
                    more = False
                elif isinstance(rows, Exception):
                    # It waits for its turn like an answer.
                    failed = asyncio.get_running_loop().create_future()
                    failed.set_exception(rows)
                    window.append(failed)
                else:
                    flow = self._flows.classify(rows, parameters, make_deadline())
                    window.append(asyncio.create_task(self._drive(flow)))
                    # Lets the request go out now; answers that are there would not yield to it.
                    await asyncio.sleep(0)
        finally:
            for waiting in window:
                waiting.cancel()
            await asyncio.gather(*window, return_exceptions=True)
            # Left to the garbage collector, it would be closed in a task of its own.
            await requests.aclose()

    async def _drive(self, flow: Flow[ResultT]) -> ResultT:
        """Perform the steps of a flow, and return its result."""
        try:
            step = next(flow)
            while True:
                try:
                    outcome = await self._perform(step)
                except FOREIGN_ERRORS as exc:
                    step = flow.throw(exc)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            return stop.value

    async def _perform(self, step: Step) -> Any:
        match step:
            case Pause(delay_s):
                await asyncio.sleep(delay_s)
                return None
            case Call(method, arguments, timeout_s):
                if self._closed:
                    raise client_closed(self._flows.target)
                client = self._connected().pick().client
                try:
                    return await getattr(client, method)(**arguments, client_timeout=timeout_s)
                except asyncio.CancelledError as exc:
                    # Closing a channel looks, to those who await its calls, as if they
                    # themselves had been cancelled.
                    if self._closed and not _being_cancelled():
                        raise client_closed(self._flows.target) from exc
                    raise

    def _connected(self) -> ChannelPool[tritonclient.grpc.aio.InferenceServerClient]:
        if self._pool is None:
            self._pool = ChannelPool(
                lambda: tritonclient.grpc.aio.InferenceServerClient(
                    self._flows.target.url,
                    creds=self._credentials,
                    channel_args=channel_arguments(),
                ),
                self._channels,
            )
        return self._pool


def _being_cancelled() -> bool:
    """Tell whether the current task was asked to end; where Python < 3.11 cannot say, it was."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0


async def _as_async(
    items: Iterable[ResultT] | AsyncIterable[ResultT],
) -> AsyncGenerator[ResultT, None]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _chunks(
    inputs: Iterable[object] | AsyncIterable[object], rows_per_request: int
) -> AsyncGenerator[list[Utf8Row] | Exception, None]:
    """Gather rows into requests. What fails comes last, after the rows before it."""
    chunker = Chunker(rows_per_request)
    failure: Exception | None = None
    try:
        async with aclosing(_as_async(inputs)) as source:
            async for row in source:
                if rows := chunker.add(row):
                    yield rows
    except Exception as exc:  # noqa: BLE001 - whatever the caller's iterable raises goes back to it
        failure = exc
    if rest := chunker.rest():
        yield rest
    if failure is not None:
        yield failure
