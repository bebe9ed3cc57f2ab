"""The calls, retries and status questions of a client, without the I/O.

A flow is a generator that yields steps, receives their outcomes, and returns the result. The
blocking and the asyncio client each have a small driver that performs the steps, so the flows are
written once and only the await differs. (httpx drives its authentication this way.)
"""

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar, cast

from cascadebert_core.contract import TASK, TEXT
from cascadebert_core.task import SINGLE_LABEL

from ._deadline import Deadline, RetryPolicy
from ._faults import CLOSED, PROTOCOL, REFUSED, UNRESOLVED, fault_of
from ._label_order import LabelOrders, labels_from_parameters
from ._operating_points import points_from_parameters
from ._requests import Parameters, Tensors, infer_arguments, parse_response
from ._rows import Utf8Row
from ._servers import SHORT_CALL_S, HangWatch, Servers, is_full, stopped_by_server
from ._service_messages import (
    ModelConfigResponse,
    ModelCounters,
    ModelMetadata,
    RepositoryIndex,
    ServerMetadata,
    StatisticsResponse,
)
from ._traffic import Traffic
from ._types import Classification, ModelStatistics, ModelStatus, ServerStatus
from ._verdicts import verdicts_from_parameters
from .errors import (
    FOREIGN_ERRORS,
    AccessRestricted,
    CascadeClientError,
    DeadlineExceeded,
    ModelNotFound,
    ServerUnavailable,
    Target,
    not_a_cascade,
    translated,
    unreachable,
)

ResultT = TypeVar("ResultT")

OnRetry: TypeAlias = Callable[[CascadeClientError, float], object]

# The limit of a server that does not show its own: no request can have more rows.
_UNKNOWN_LIMIT = 2**31 - 1

# The order of the labels must come within these seconds: an answer waits for it.
_ORDER_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Call:
    """Call the server.

    Attributes:
        method: The method of tritonclient's client.
        arguments: Its keyword arguments, without the deadline.
        timeout_s: The gRPC deadline in seconds; None for no deadline.
        server: The position of the server.
        watch: When to ask whether the server lives; None: wait for the answer.
    """

    method: str
    arguments: Mapping[str, Any]
    timeout_s: float | None
    server: int = 0
    watch: HangWatch | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt.

    Attributes:
        delay_s: The pause in seconds.
    """

    delay_s: float


@dataclass(frozen=True, slots=True)
class AskAddresses:
    """Call each address of the host; see `reason_of_another_address`, which gives the outcome.

    Attributes:
        url: `host:port`.
    """

    url: str


Step: TypeAlias = Call | Pause | AskAddresses
Flow: TypeAlias = Generator[Step, Any, ResultT]


class CascadeFlows:
    """The flows of one cascade."""

    def __init__(
        self,
        target: Target,
        *,
        retry: RetryPolicy,
        max_batch_size: int | None = None,
        headers: Mapping[str, str] | None = None,
        traffic: Traffic | None = None,
        on_retry: OnRetry | None = None,
        servers: Servers | None = None,
    ):
        """Describe the cascade.

        Args:
            target: The cascade's server, model and version.
            retry: When to try again if the server is unavailable.
            max_batch_size: Rows in one request at most; None asks the server, once.
            headers: gRPC metadata for every call.
            traffic: The versions that requests go to; None for the target's version.
            on_retry: Called before each pause with the error and the seconds of the pause.
            servers: The servers that share the calls; None for the target's alone.
        """
        self.target = target
        self._servers = servers if servers is not None else Servers([target.url])
        self._server = 0  # that of a call which no other may take
        self._traffic = traffic if traffic is not None else Traffic(target.model_version)
        self._retry = retry
        self._on_retry = on_retry
        self._answered = False  # whether the server has answered a call
        self._max_batch_size = max_batch_size
        self._orders = LabelOrders()
        # gRPC metadata keys are lower case.
        self._headers = {name.lower(): value for name, value in (headers or {}).items()} or None

    def at(self, server: int) -> "CascadeFlows":
        """Return the flows of one server alone, for its status."""
        pinned = copy.copy(self)
        pinned.target = replace(self.target, url=self._servers.urls[server])
        pinned._server = server
        return pinned

    def classify(
        self, rows: Sequence[Utf8Row], parameters: Parameters, deadline: Deadline
    ) -> Flow[list[Classification]]:
        """Classify the rows of one request.

        Args:
            rows: 1 to max_batch_size validated rows.
            parameters: The request parameters.
            deadline: The deadline of the call.
        """
        answers: dict[int, Classification] = {}
        # In sequence: more than one part is rare, and a stream has other requests in flight.
        for part in self._traffic.parts(rows):
            target = replace(self.target, model_version=part.version)
            found = yield from self._classify_at(
                target, [rows[index] for index in part.indices], parameters, deadline
            )
            answers.update(zip(part.indices, found, strict=True))
        return [answers[index] for index in range(len(rows))]

    def _classify_at(
        self,
        target: Target,
        rows: Sequence[Utf8Row],
        parameters: Parameters,
        deadline: Deadline,
    ) -> Flow[list[Classification]]:
        response = yield from self._with_retries(
            "infer",
            deadline,
            target,
            lambda remaining_s: infer_arguments(rows, parameters, target, remaining_s),
        )
        tensors = cast("Tensors", response)
        answers = parse_response(tensors, len(rows), target, self._orders.order_of)
        if self._orders.should_ask(answers[0].policy):
            yield from self._learn_order(target, deadline)
            answers = parse_response(tensors, len(rows), target, self._orders.order_of)
        return answers

    def _learn_order(self, target: Target, deadline: Deadline) -> Flow[None]:
        """Ask for the order of the labels, once: the answer is there, so no failure matters."""
        remaining_s = deadline.remaining_s()
        timeout_s = _ORDER_TIMEOUT_S if remaining_s is None else min(remaining_s, _ORDER_TIMEOUT_S)
        if timeout_s <= 0:
            return
        try:
            call = self._call("get_model_config", timeout_s, **self._model())
            response = yield replace(call, server=self._servers.last())
        except FOREIGN_ERRORS as exc:
            error = translated(exc, target)
            if error is None:
                raise
            if isinstance(error, AccessRestricted):
                self._orders.forbid()
        else:
            self._orders.learn(_strings(cast("ModelConfigResponse", response)))

    def rows_per_request(self, wanted: int, deadline: Deadline) -> Flow[int]:
        """Return the rows that one request may have, at most `wanted`.

        For a single row the server is not asked.
        """
        if wanted <= 1:
            return 1
        if self._max_batch_size is None:
            try:
                response = yield from self._model_config(deadline)
            except AccessRestricted:
                # A hardened server does not show its configuration. Then requests are sent as they
                # are, and the server refuses one that is too large.
                self._max_batch_size = _UNKNOWN_LIMIT
                self._orders.forbid()
                return wanted
            # 0 means that the model takes no batches: send one row at a time.
            self._max_batch_size = max(1, int(response.config.max_batch_size))
        return min(wanted, self._max_batch_size)

    def cascades(self, deadline: Deadline) -> Flow[tuple[str, ...]]:
        """Return the names of the cascades that are ready."""
        method = "get_model_repository_index"
        index = cast(
            "RepositoryIndex",
            (yield from self._with_retries(method, deadline, self.target, lambda _: {})),
        )
        found: list[str] = []
        for name in sorted({each.name for each in index.models if each.state == "READY"}):
            try:
                metadata = yield from self._metadata_of(name, deadline)
            except (ModelNotFound, ServerUnavailable):  # it may have been unloaded since
                continue
            if any(tensor.name == TEXT for tensor in metadata.inputs):
                found.append(name)
        return tuple(found)

    def _metadata_of(self, model: str, deadline: Deadline) -> Flow[ModelMetadata]:
        # With retries: each connection finds out for itself that a server is back.
        target = replace(self.target, model=model, model_version="")
        arguments = {"model_name": model, "model_version": ""}
        response = yield from self._with_retries(
            "get_model_metadata", deadline, target, lambda _: arguments
        )
        return cast("ModelMetadata", response)

    def model_parameters(self, deadline: Deadline) -> Flow[dict[str, str]]:
        """Return the free parameters of the model's configuration."""
        return _strings((yield from self._model_config(deadline)))

    def _model_config(self, deadline: Deadline) -> Flow[ModelConfigResponse]:
        response = yield from self._with_retries(
            "get_model_config", deadline, self.target, lambda _: self._model()
        )
        config = cast("ModelConfigResponse", response)
        self._orders.learn(_strings(config))
        return config

    def status(self, deadline: Deadline) -> Flow[ServerStatus]:
        """Return the status of the server and the cascade, without retries."""
        problems: list[str] = []
        live = yield from self._ask("is_server_live", deadline, problems)
        if not live:
            problem = problems[0] if problems else f"{self.target.url} reports that it is not live"
            model = ModelStatus(self.target.model, ready=False)
            return ServerStatus(self.target.url, False, False, None, None, model, (), problem)
        ready = bool((yield from self._ask("is_server_ready", deadline, problems)))
        if not ready and not problems:
            problems.append(f"{self.target.url} is live but not ready: see the server's log")
        metadata = cast(
            "ServerMetadata | None",
            (yield from self._ask("get_server_metadata", deadline, problems)),
        )
        model = yield from self._model_status(deadline)
        statistics = yield from self._statistics(deadline)
        return ServerStatus(
            url=self.target.url,
            live=True,
            ready=ready,
            name=metadata.name if metadata is not None else None,
            version=metadata.version if metadata is not None else None,
            model=model,
            statistics=statistics,
            problem=problems[0] if problems else None,
        )

    def _model_status(self, deadline: Deadline) -> Flow[ModelStatus]:
        problems: list[str] = []
        ready = bool((yield from self._ask("is_model_ready", deadline, problems, **self._model())))
        metadata = cast(
            "ModelMetadata | None",
            (yield from self._ask("get_model_metadata", deadline, problems, **self._model())),
        )
        response = cast(
            "ModelConfigResponse | None",
            (yield from self._ask("get_model_config", deadline, problems, **self._model())),
        )
        if not ready and not problems:
            problems.append(f"{self.target} is loaded but not ready: see the server's log")
        if metadata is not None and all(tensor.name != TEXT for tensor in metadata.inputs):
            ready = False
            problems.append(not_a_cascade(self.target))
        parameters = {} if response is None else _strings(response)
        points = points_from_parameters(parameters)
        return ModelStatus(
            name=self.target.model,
            ready=ready,
            versions=tuple(metadata.versions) if metadata is not None else (),
            max_batch_size=int(response.config.max_batch_size) if response is not None else None,
            problem=problems[0] if problems else None,
            operating_points=points,
            verdicts=verdicts_from_parameters(parameters, points),
            task=parameters.get(TASK, SINGLE_LABEL),
            labels=labels_from_parameters(parameters),
            instances=None if response is None else _instances(response),
        )

    def _statistics(self, deadline: Deadline) -> Flow[tuple[ModelStatistics, ...]]:
        # Without a name the server returns all models. A stage's name is the cascade's, "_" and the
        # member's.
        response = cast(
            "StatisticsResponse | None",
            (yield from self._ask("get_inference_statistics", deadline, [])),
        )
        if response is None:
            return ()
        stage_prefix = f"{self.target.model}_"
        return tuple(
            _model_statistics(counters)
            for counters in sorted(response.model_stats, key=lambda each: each.name)
            if counters.name == self.target.model or counters.name.startswith(stage_prefix)
        )

    def _ask(
        self, method: str, deadline: Deadline, problems: list[str], **arguments: Any
    ) -> Flow[Any | None]:
        """Return a reply, or add the reason to `problems` and return None."""
        try:
            return (yield self._call(method, deadline.require_time(self.target), **arguments))
        except FOREIGN_ERRORS as exc:
            error = translated(exc, self.target, timeout_s=deadline.timeout_s)
            if error is None:
                raise
            if isinstance(error, ServerUnavailable):
                error = yield from self._of_all_addresses(error, self.target)
            problems.append(str(error))
            return None

    def _with_retries(
        self,
        method: str,
        deadline: Deadline,
        target: Target,
        make_arguments: Callable[[float | None], Mapping[str, Any]],
    ) -> Flow[Any]:
        """Call until there is a reply or no time for another attempt.

        Args:
            method: The method of tritonclient's client.
            deadline: The deadline of all attempts together.
            target: The model, for messages.
            make_arguments: Makes an attempt's arguments from the seconds that remain.
        """
        if len(self._servers) > 1:
            return (yield from self._over_servers(method, deadline, target, make_arguments))
        attempts = 0
        while True:
            remaining_s = deadline.require_time(target)
            call = self._call(method, remaining_s, **make_arguments(remaining_s))
            attempts += 1
            try:
                reply = yield call
            except FOREIGN_ERRORS as exc:
                error = translated(exc, target, timeout_s=deadline.timeout_s, attempts=attempts)
                if error is None or error is exc:
                    raise
                delay_s = None
                if isinstance(error, ServerUnavailable):
                    delay_s = self._delay_s(error, attempts, deadline)
                    if delay_s is None or (attempts == 1 and not self._answered):
                        error = yield from self._of_all_addresses(error, target, attempts)
                        delay_s = None if error.fault == PROTOCOL else delay_s
                if delay_s is None:
                    raise error from exc
                if self._on_retry is not None:
                    self._on_retry(error, delay_s)
            else:
                self._answered = True
                return reply
            yield Pause(delay_s)

    def _delay_s(self, error: ServerUnavailable, attempts: int, deadline: Deadline) -> float | None:
        """Return the pause before another attempt, or None if it could not help."""
        if error.fault == PROTOCOL:
            return None
        absent = error.fault in (REFUSED, UNRESOLVED, CLOSED) and not self._answered
        if absent and not self._retry.wait_for_server:
            return None
        return self._retry.delay_s(attempts, deadline.remaining_s())

    def _of_all_addresses(
        self, error: ServerUnavailable, target: Target, attempts: int = 1
    ) -> Flow[ServerUnavailable]:
        """Return the error of the address that spoke, if another one refused the connection."""
        if error.fault != REFUSED:
            return error
        reason = yield AskAddresses(target.url)
        fault = fault_of(reason or "", target.url, tls=target.tls)
        return error if fault is None else unreachable(fault, target, attempts)

    def _over_servers(
        self,
        method: str,
        deadline: Deadline,
        target: Target,
        make_arguments: Callable[[float | None], Mapping[str, Any]],
    ) -> Flow[Any]:
        """Call the servers in turn until one answers; there is a pause after each round of them."""
        attempts = 0
        while True:
            index = yield from self._server_in_turn(deadline)
            at = replace(target, url=self._servers.urls[index])
            remaining_s = deadline.require_time(at)
            call = self._call(method, remaining_s, **make_arguments(remaining_s))
            if method == "infer":
                call = replace(call, server=index, watch=HangWatch.within(remaining_s))
            else:  # short: another server can answer it too
                call = replace(call, server=index, timeout_s=_shorter(remaining_s, SHORT_CALL_S))
            attempts += 1
            try:
                reply = yield call
            except FOREIGN_ERRORS as exc:
                error = translated(exc, at, timeout_s=deadline.timeout_s, attempts=attempts)
                if error is None or error is exc:
                    raise
                if stopped_by_server(exc):
                    self._servers.failed(index)
                elif not self._may_move(index, error, call, deadline):
                    raise error from exc
                rounds, within_round = divmod(attempts, len(self._servers))
                delay_s = 0.0 if within_round else self._delay_of_round(error, rounds, deadline)
                if delay_s is None:
                    raise error from exc
                if self._on_retry is not None:
                    self._on_retry(error, delay_s)
            else:
                self._answered = True
                self._servers.answered(index)
                return reply
            if delay_s:
                yield Pause(delay_s)

    def _delay_of_round(
        self, error: CascadeClientError, rounds: int, deadline: Deadline
    ) -> float | None:
        """Return the pause before the servers are asked again, or None if it could not help."""
        if isinstance(error, ServerUnavailable):
            return self._delay_s(error, rounds, deadline)
        if isinstance(error, DeadlineExceeded):  # of a short call
            return self._retry.delay_s(rounds, deadline.remaining_s())
        return None

    def _may_move(
        self, index: int, error: CascadeClientError, call: Call, deadline: Deadline
    ) -> bool:
        """Note a failure of a server, and return whether another one may answer the call."""
        if isinstance(error, DeadlineExceeded):
            self._servers.doubted(index)
            return call.watch is None and deadline.remaining_s() != 0
        if isinstance(error, ServerUnavailable):
            # A full queue is no fault: the others are asked, and this one stays.
            if not is_full(str(error)):
                self._servers.failed(index)
            return True
        # A server that has just started may not have loaded the model yet.
        return isinstance(error, ModelNotFound)

    def _server_in_turn(self, deadline: Deadline) -> Flow[int]:
        """Return the server for the next call. One that was left out must be ready again."""
        for _ in range(len(self._servers)):
            pick = self._servers.pick()
            if not pick.on_trial:
                return pick.index
            at = replace(self.target, url=self._servers.urls[pick.index])
            remaining_s = deadline.require_time(at)
            timeout_s = HangWatch.within(remaining_s).probe_s
            call = self._call("is_model_ready", timeout_s, **self._model())
            try:
                ready = bool((yield replace(call, server=pick.index)))
            except FOREIGN_ERRORS as exc:
                error = translated(exc, at)
                if error is None:
                    raise
                # It has answered, though not to this caller.
                ready = isinstance(error, AccessRestricted)
            if ready:
                self._servers.answered(pick.index)
                return pick.index
            self._servers.failed(pick.index)
        return self._servers.pick().index

    def _call(self, method: str, timeout_s: float | None, **arguments: Any) -> Call:
        return Call(method, {**arguments, "headers": self._headers}, timeout_s, self._server)

    def _model(self) -> dict[str, str]:
        return {"model_name": self.target.model, "model_version": self.target.model_version}


def _shorter(remaining_s: float | None, limit_s: float) -> float:
    return limit_s if remaining_s is None else min(remaining_s, limit_s)


def _strings(response: ModelConfigResponse) -> dict[str, str]:
    parameters = response.config.parameters
    return {name: value.string_value for name, value in parameters.items()}


def _instances(response: ModelConfigResponse) -> int | None:
    # Other servers may leave it out; Triton fills it in.
    return sum(int(group.count) for group in response.config.instance_group) or None


def _model_statistics(counters: ModelCounters) -> ModelStatistics:
    success = counters.inference_stats.success
    return ModelStatistics(
        name=counters.name,
        version=counters.version,
        inference_count=int(counters.inference_count),
        execution_count=int(counters.execution_count),
        failure_count=int(counters.inference_stats.fail.count),
        mean_ms=success.ns / success.count / 1e6 if success.count else None,
    )
