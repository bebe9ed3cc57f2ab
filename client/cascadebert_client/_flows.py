"""The calls, retries and status questions of a client, without the I/O: see `_steps`."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from cascadebert_core.contract import TASK, TEXT, TEXT_PAIR
from cascadebert_core.task import SINGLE_LABEL

from ._addresses import LONGEST_S
from ._attempts import Attempts, MakeArguments, OnRetry
from ._cost_curve import cost_curve_from_parameters
from ._deadline import Deadline, RetryPolicy
from ._failover import Failover
from ._faults import CLOSED, PROTOCOL, REFUSED, fault_of, is_hang_up
from ._label_order import LabelOrders, labels_from_parameters
from ._operating_points import points_from_parameters
from ._requests import (
    Parameters,
    Tensors,
    infer_arguments,
    parse_response,
    traced_parameters,
)
from ._rows import Utf8Row
from ._servers import Servers
from ._service_messages import (
    ModelConfigResponse,
    ModelCounters,
    ModelMetadata,
    RepositoryIndex,
    ServerMetadata,
    StatisticsResponse,
)
from ._steps import AskAddresses, Call, Flow, Pause
from ._tracing import Span
from ._traffic import Traffic
from ._types import Classification, ModelStatistics, ModelStatus, ServerStatus
from .errors import (
    FOREIGN_ERRORS,
    AccessRestricted,
    InvalidRequest,
    ModelNotFound,
    ServerUnavailable,
    Target,
    knows_no_traces,
    not_a_cascade,
    translated,
    unreachable,
)
from .verdicts import verdicts_from_parameters

# The limit of a server that does not show its own: no request can have more rows.
_UNKNOWN_LIMIT = 2**31 - 1

# The order of the labels must come within these seconds: an answer waits for it.
_ORDER_TIMEOUT_S = 2.0


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
        self._max_batch_size = max_batch_size
        self._orders = LabelOrders()
        self._tells_of_traces = True  # until a cascade of an earlier release refuses it
        # gRPC metadata keys are lower case.
        self._headers = {name.lower(): value for name, value in (headers or {}).items()} or None
        self._attempts = Attempts(retry, on_retry)
        self._failover = Failover(target, self._servers, self._attempts, self._headers)

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
        parts = self._traffic.parts(rows)
        if len(parts) == 1:  # most calls: nothing is divided and put together again
            target = self._at_version(parts[0].version)
            return (yield from self._classify_at(target, rows, parameters, deadline))
        answers: dict[int, Classification] = {}
        # In sequence: more than one part is rare, and a stream has other requests in flight.
        for part in parts:
            part_rows = [rows[index] for index in part.indices]
            found = yield from self._classify_at(
                self._at_version(part.version), part_rows, parameters, deadline
            )
            answers.update(zip(part.indices, found, strict=True))
        return [answers[index] for index in range(len(rows))]

    @property
    def are_one_call(self) -> bool:
        """Whether `classify` takes one call without a watch, unless it fails."""
        return len(self._servers) == 1 and not self._traffic.by_text

    def _at_version(self, version: str) -> Target:
        same = version == self.target.model_version
        return self.target if same else replace(self.target, model_version=version)

    def _classify_at(
        self,
        target: Target,
        rows: Sequence[Utf8Row],
        parameters: Parameters,
        deadline: Deadline,
    ) -> Flow[list[Classification]]:
        if parameters.trace is None:
            return (yield from self._ask_cascade(target, rows, parameters, deadline))
        span = parameters.trace.begin(target, len(rows), parameters.route)
        try:
            answers = yield from self._ask_in_trace(target, rows, parameters, deadline, span)
        except BaseException as exc:
            span.failed(exc)
            raise
        span.answered(answers)
        if parameters.explain:
            return answers
        return [replace(answer, timeline=None) for answer in answers]

    def _ask_in_trace(
        self,
        target: Target,
        rows: Sequence[Utf8Row],
        parameters: Parameters,
        deadline: Deadline,
        span: Span,
    ) -> Flow[list[Classification]]:
        """Classify the rows of a request, and tell the cascade of the trace if it can be told."""
        headers = self._headers or {}
        if self._tells_of_traces:
            told = traced_parameters(parameters, span, headers, told=True)
            try:
                return (yield from self._ask_cascade(target, rows, told, deadline))
            except InvalidRequest as exc:
                if parameters.explain or not knows_no_traces(exc):
                    raise
                self._tells_of_traces = False
        untold = traced_parameters(parameters, span, headers, told=False)
        return (yield from self._ask_cascade(target, rows, untold, deadline))

    def _ask_cascade(
        self,
        target: Target,
        rows: Sequence[Utf8Row],
        parameters: Parameters,
        deadline: Deadline,
    ) -> Flow[list[Classification]]:
        response, server = yield from self._reply_and_server(
            "infer",
            deadline,
            target,
            lambda remaining_s: infer_arguments(rows, parameters, target, remaining_s),
        )
        tensors = cast("Tensors", response)
        answers = self._parsed(tensors, len(rows), target, parameters)
        if self._orders.should_ask(answers[0].policy):
            told = yield from self._learn_order(target, deadline, server)
            self._orders.asked(answers[0].policy, told=told)
            answers = self._parsed(tensors, len(rows), target, parameters)
        return answers

    def _parsed(
        self, response: Tensors, n_rows: int, target: Target, parameters: Parameters
    ) -> list[Classification]:
        order_of = self._orders.order_of
        return parse_response(response, n_rows, target, order_of, explained=parameters.explain)

    def _learn_order(self, target: Target, deadline: Deadline, server: int) -> Flow[bool]:
        """Ask the server that answered for the order of the labels; return whether it told.

        The answer is there, so no failure matters.
        """
        remaining_s = deadline.remaining_s()
        timeout_s = _ORDER_TIMEOUT_S if remaining_s is None else min(remaining_s, _ORDER_TIMEOUT_S)
        if timeout_s <= 0:
            return False
        try:
            call = self._call("get_model_config", timeout_s, **_model(target))
            response = yield replace(call, server=server)
        except FOREIGN_ERRORS as exc:
            error = translated(exc, target)
            if error is None:
                raise
            if isinstance(error, AccessRestricted):
                self._orders.forbid()
            return False
        self._orders.learn(_strings(cast("ModelConfigResponse", response)))
        return True

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
            (yield from self._with_retries(method, deadline, self._whole_server, lambda _: {})),
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
        server = self._whole_server  # no model is at fault if the server does not answer
        live = yield from self._ask("is_server_live", deadline, problems, server)
        if not live:
            problem = problems[0] if problems else f"{self.target.url} reports that it is not live"
            model = ModelStatus(self.target.model, ready=False)
            return ServerStatus(self.target.url, False, False, None, None, model, (), problem)
        ready = bool((yield from self._ask("is_server_ready", deadline, problems, server)))
        if not ready and not problems:
            problems.append(f"{self.target.url} is live but not ready: see the server's log")
        metadata = cast(
            "ServerMetadata | None",
            (yield from self._ask("get_server_metadata", deadline, problems, server)),
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
        if response is not None:
            self._orders.learn(parameters)
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
            pair=metadata is not None and any(each.name == TEXT_PAIR for each in metadata.inputs),
            cost_curve=cost_curve_from_parameters(parameters),
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
        self,
        method: str,
        deadline: Deadline,
        problems: list[str],
        of: Target | None = None,
        /,
        **arguments: Any,
    ) -> Flow[Any | None]:
        """Return a reply, or add the reason to `problems` and return None.

        Args:
            method: The method of tritonclient's client.
            deadline: The deadline of all questions together.
            problems: What the reason is added to.
            of: What messages name; None for the model.
            **arguments: Of the method.
        """
        target = self.target if of is None else of
        try:
            return (yield self._call(method, deadline.require_time(target), **arguments))
        except FOREIGN_ERRORS as exc:
            error = translated(exc, target, timeout_s=deadline.timeout_s)
            if error is None:
                raise
            if isinstance(error, ServerUnavailable):
                error = yield from self._of_all_addresses(error, target, deadline)
            problems.append(str(error))
            return None

    def _with_retries(
        self,
        method: str,
        deadline: Deadline,
        target: Target,
        make_arguments: MakeArguments,
    ) -> Flow[Any]:
        """Call until there is a reply or no time for another attempt.

        Args:
            method: The method of tritonclient's client.
            deadline: The deadline of all attempts together.
            target: The model, for messages.
            make_arguments: Makes an attempt's arguments.
        """
        reply, _ = yield from self._reply_and_server(method, deadline, target, make_arguments)
        return reply

    def _reply_and_server(
        self,
        method: str,
        deadline: Deadline,
        target: Target,
        make_arguments: MakeArguments,
    ) -> Flow[tuple[Any, int]]:
        """The same; the reply and the server that gave it."""
        if len(self._servers) > 1:
            return (yield from self._failover.call(method, deadline, target, make_arguments))
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
                    delay_s = self._attempts.delay_s(error, attempts, deadline)
                    if delay_s is None or (attempts == 1 and not self._attempts.answered):
                        error = yield from self._of_all_addresses(error, target, deadline, attempts)
                        delay_s = None if error.fault == PROTOCOL else delay_s
                if delay_s is None:
                    raise error from exc
                self._attempts.tell(error, delay_s)
            else:
                self._attempts.answered = True
                return reply, self._server
            yield Pause(delay_s)

    def _of_all_addresses(
        self, error: ServerUnavailable, target: Target, deadline: Deadline, attempts: int = 1
    ) -> Flow[ServerUnavailable]:
        """Return what the addresses say if there was a refusal, or a connection without a word."""
        remaining_s = deadline.remaining_s()
        limit_s = LONGEST_S if remaining_s is None else min(remaining_s, LONGEST_S)
        if limit_s <= 0:
            return error
        if error.fault not in (REFUSED, CLOSED) and not (
            error.fault is None and is_hang_up(str(error))
        ):
            return error
        reason = yield AskAddresses(target.url, limit_s)
        fault = fault_of(reason or "", target.url, tls=target.tls)
        return error if fault is None else unreachable(fault, target, attempts)

    def _call(self, method: str, timeout_s: float | None, **arguments: Any) -> Call:
        return Call(method, {"headers": self._headers, **arguments}, timeout_s, self._server)

    @property
    def _whole_server(self) -> Target:
        """The target of calls that are for no model."""
        return replace(self.target, model="", model_version="")

    def _model(self) -> dict[str, str]:
        return _model(self.target)


def _model(target: Target) -> dict[str, str]:
    return {"model_name": target.model, "model_version": target.model_version}


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
