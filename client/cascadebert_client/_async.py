"""The client for asyncio. It shares all but the awaiting with the blocking client."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar, overload

import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from ._base import (
    DEFAULT_CONCURRENCY,
    DEFAULT_ROWS_PER_REQUEST,
    DEFAULT_STATUS_TIMEOUT_S,
    BaseClient,
    stream_parameters,
)
from ._deadline import Deadline
from ._gathering import Gathering
from ._requests import Parameters, Thresholds, request_parameters
from ._rows import Utf8Row, encode_inputs, fits_one_request, rows_from_inputs
from ._servers import HangWatch, balancing_arguments, is_silent, no_sign_of_life
from ._steps import AskAddresses, Call, Flow, Pause, Step
from ._types import Classification, ServerStatus
from .errors import FOREIGN_ERRORS, InvalidRequest
from .transport import channel_arguments

ResultT = TypeVar("ResultT")


class AsyncCascadeClient(BaseClient[tritonclient.grpc.aio.InferenceServerClient]):
    """Calls a served cascade from asyncio.

    A client belongs to the event loop of its first call, and refuses calls in another. Cancelling a
    task cancels its request. Arguments, answers and errors are those of `CascadeClient`.

    Examples:
        >>> async with AsyncCascadeClient("localhost:8001") as client:
        ...     (await client.classify("a gorgeous, witty film")).label
        'positive'
    """

    _loop: asyncio.AbstractEventLoop | None = None  # that of the first call

    async def __aenter__(self) -> "AsyncCascadeClient":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Calls in flight and later calls raise `RequestCancelled`."""
        self._closed = True
        if self._loop not in (None, asyncio.get_running_loop()):
            return
        for pool in self._pools:
            for channel in pool.channels:
                await channel.client.close()

    # A str is an iterable of str too; the first overload that fits decides.
    @overload
    async def classify(
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
    async def classify(
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

    async def classify(
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
        """Classify one row, or a list of rows; see `CascadeClient.classify`."""
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
        threshold: Thresholds | None = None,
        stage: int | None = None,
        request_id: str | None = None,
        explain: bool = False,
        traceparent: str | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Classification, None]:
        """Classify any number of rows. Rows are read as their answers are consumed.

        It differs from `CascadeClient.classify_stream` in three ways. `inputs` may be asynchronous.
        Then a row waits for the rows after it only while `max_concurrency` requests have answers
        outstanding. Synchronous `inputs` are read in the event loop and must not block. Both are
        read in a task of their own, at most `rows_per_request * max_concurrency` rows ahead of the
        answers.

        To leave early, use `contextlib.aclosing`: it cancels the requests in flight, and closes
        `inputs` if it is an asynchronous generator. Do so before you close `inputs` yourself.
        """
        # Checked now and not at the first row.
        rows = inputs if isinstance(inputs, AsyncIterable) else rows_from_inputs(inputs)
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

        return self._in_order(
            rows,
            rows_per_request,
            parameters,
            lambda: Deadline.after(timeout_s),
            max_concurrency,
        )

    async def status(self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S) -> ServerStatus:
        """Return the status of the server and the cascade; see `CascadeClient.status`.

        All servers are asked at once, so one that hangs does not hold up the others.
        """
        asked = [
            asyncio.create_task(self._status_of(server, timeout_s))
            for server in range(len(self._pools))
        ]
        try:
            for answer in asyncio.as_completed(asked):
                if (status := await answer).serving:
                    return status
            return await asked[0]
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def statuses(
        self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S
    ) -> list[ServerStatus]:
        """Return the status of every server, in the order of `url`; see `status`."""
        servers = range(len(self._pools))
        return await asyncio.gather(*(self._status_of(server, timeout_s) for server in servers))

    async def _status_of(self, server: int, timeout_s: float | None) -> ServerStatus:
        return await self._drive(self._flows.at(server).status(Deadline.after(timeout_s)))

    async def cascades(
        self, *, timeout_s: float | None = DEFAULT_STATUS_TIMEOUT_S
    ) -> tuple[str, ...]:
        """Return the names of the cascades on the server that are ready, sorted.

        The client's own model plays no part.

        Args:
            timeout_s: Time limit of all calls together, in seconds; None for no limit.

        Raises:
            AccessRestricted: The server does not list its models.
            ServerUnavailable: The server could not be reached.
        """
        return await self._drive(self._flows.cascades(Deadline.after(timeout_s)))

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
        if len(rows) == 1:
            return await self._drive(self._flows.classify(rows, parameters, deadline))
        limit = await self._drive(self._flows.rows_per_request(len(rows), deadline))
        if fits_one_request(rows, limit):
            return await self._drive(self._flows.classify(rows, parameters, deadline))
        answers = self._in_order(
            rows, limit, parameters, lambda: deadline, self._max_concurrency, validated=True
        )
        async with aclosing(answers):
            return [answer async for answer in answers]

    async def _in_order(
        self,
        rows: Iterable[Any] | AsyncIterable[Any],
        rows_per_request: int,
        parameters: Parameters,
        make_deadline: Callable[[], Deadline],
        max_concurrency: int,
        *,
        validated: bool = False,
    ) -> AsyncGenerator[Classification, None]:
        """Send requests from a window of tasks, and yield their answers in order."""
        limit = await self._drive(self._flows.rows_per_request(rows_per_request, make_deadline()))
        window: deque[asyncio.Task[list[Classification]]] = deque()
        gathering = Gathering(
            rows,
            rows_per_request=limit,
            max_rows=limit * max_concurrency,
            validated=validated,
        )
        changed = gathering.changed
        try:
            while True:
                if len(window) < max_concurrency and (request := gathering.take()):
                    flow = self._flows.classify(request, parameters, make_deadline())
                    window.append(asyncio.create_task(self._drive(flow)))
                    window[-1].add_done_callback(lambda _: changed.set())
                    # Let it start now: while answers are ready, nothing else yields.
                    await asyncio.sleep(0)
                elif window and window[0].done():
                    answers = window.popleft().result()
                    for answer in answers:
                        yield answer
                    gathering.answered(len(answers))
                elif window or not gathering.is_over:
                    changed.clear()
                    await changed.wait()
                else:
                    gathering.raise_failure()
                    return
        finally:
            # All is cancelled before the first wait, which a second cancellation would end.
            gathering.stop()
            for waiting in window:
                waiting.cancel()
            await asyncio.gather(*window, return_exceptions=True)
            await gathering.end()

    def _require_loop(self) -> None:
        """Refuse a call in another event loop: gRPC binds connections to that of the first call.

        Raises:
            InvalidRequest: This is another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise InvalidRequest(
                f"this client of {self._flows.target} was used in another event loop, to which its "
                "connections belong: make a client in each loop (each asyncio.run has its own)",
                target=self._flows.target,
            )

    def _connect(self, url: str) -> tritonclient.grpc.aio.InferenceServerClient:
        return tritonclient.grpc.aio.InferenceServerClient(
            url,
            creds=self._credentials,
            channel_args=[*channel_arguments(url), *balancing_arguments(url)],
        )

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
            case AskAddresses():
                return await asyncio.to_thread(self._reason_of_addresses, step)
            case Call(method, arguments, timeout_s):
                if self._closed:
                    raise self._closed_error()
                self._require_loop()
                client = self._pools[step.server].pick().client
                call = getattr(client, method)(**arguments, client_timeout=timeout_s)
                try:
                    return await (
                        call
                        if step.watch is None
                        else _watched(call, client, arguments, step.watch)
                    )
                except asyncio.CancelledError as exc:
                    # A closed channel cancels the tasks that await its calls. They must see
                    # the closed client instead.
                    if self._closed and not _being_cancelled():
                        raise self._closed_error() from exc
                    raise


async def _watched(
    call: Coroutine[Any, Any, Any],
    client: tritonclient.grpc.aio.InferenceServerClient,
    arguments: Mapping[str, Any],
    watch: HangWatch,
) -> Any:
    """Await a call, and meanwhile ask its server from time to time whether it lives.

    Raises:
        InferenceServerException: The call failed, or the server hangs.
    """
    task = asyncio.ensure_future(call)
    try:
        while not (await asyncio.wait({task}, timeout=watch.patience_s))[0]:
            try:
                await client.is_server_live(
                    headers=arguments["headers"], client_timeout=watch.probe_s
                )
            except InferenceServerException as exc:
                if is_silent(exc) and not task.done():
                    raise no_sign_of_life(watch) from exc
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _being_cancelled() -> bool:
    """Return whether the current task was cancelled. Python < 3.11 cannot tell: assume yes."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0
