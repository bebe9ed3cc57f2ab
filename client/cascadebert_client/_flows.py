"""What a client asks of a server and in which order, without the asking.

A flow is a generator that yields steps, is sent their outcomes, and returns the result. The sync
and the async client each have one small driver that performs the steps, so calls, retries and
status are written once: only the await differs. (httpx drives its authentication this way.)
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from ._deadline import Deadline, RetryPolicy
from ._operating_points import points_from_parameters
from ._requests import TEXT, Parameters, Tensors, Utf8Row, infer_arguments, parse_response
from ._traffic import Traffic
from ._types import Classification, ModelStatistics, ModelStatus, ServerStatus
from .errors import (
    FOREIGN_ERRORS,
    AccessRestricted,
    CascadeClientError,
    ServerUnavailable,
    Target,
    translated,
)

ResultT = TypeVar("ResultT")

# A request of more rows than this cannot be: the limit of a server that does not tell its own.
_UNKNOWN_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Call:
    """Ask the server.

    Attributes:
        method: The method of tritonclient's client.
        arguments: Its keyword arguments, without the deadline.
        timeout_s: The gRPC deadline in seconds; None waits for ever.
    """

    method: str
    arguments: Mapping[str, Any]
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt.

    Attributes:
        delay_s: How long, in seconds.
    """

    delay_s: float


Step: TypeAlias = Call | Pause
Flow: TypeAlias = Generator[Step, Any, ResultT]


class _ServerMetadata(Protocol):
    name: str
    version: str


class _TensorMetadata(Protocol):
    name: str


class _ModelMetadata(Protocol):
    versions: list[str]
    inputs: list[_TensorMetadata]


class _ModelParameter(Protocol):
    string_value: str


class _ModelConfig(Protocol):
    max_batch_size: int
    parameters: Mapping[str, _ModelParameter]


class _ModelConfigResponse(Protocol):
    config: _ModelConfig


class _Duration(Protocol):
    count: int
    ns: int


class _RequestDurations(Protocol):
    success: _Duration
    fail: _Duration


class _ModelCounters(Protocol):
    name: str
    version: str
    inference_count: int
    execution_count: int
    inference_stats: _RequestDurations


class _StatisticsResponse(Protocol):
    model_stats: list[_ModelCounters]


class CascadeFlows:
    """The conversations with one cascade."""

    def __init__(
        self,
        target: Target,
        *,
        retry: RetryPolicy,
        max_batch_size: int | None = None,
        headers: Mapping[str, str] | None = None,
        traffic: Traffic | None = None,
    ):
        """Describe the cascade.

        Args:
            target: Where it is.
            retry: When an unavailable server is asked again.
            max_batch_size: Rows that one request may carry; None asks the server, once.
            headers: gRPC metadata of every call.
            traffic: Which version a request asks; None for the target's.
        """
        self.target = target
        self._traffic = traffic if traffic is not None else Traffic(target.model_version)
        self._retry = retry
        self._max_batch_size = max_batch_size
        # gRPC metadata keys are lower case.
        self._headers = {name.lower(): value for name, value in (headers or {}).items()} or None

    def classify(
        self, rows: Sequence[Utf8Row], parameters: Parameters, deadline: Deadline
    ) -> Flow[list[Classification]]:
        """Classify the rows of one request.

        Args:
            rows: 1 to max_batch_size validated rows.
            parameters: The request parameters.
            deadline: By when.
        """
        answers: dict[int, Classification] = {}
        # One after the other: more than one part is the exception, and a stream has others.
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
        def call() -> Call:
            remaining_s = deadline.require_time(target)
            arguments = infer_arguments(rows, parameters, target, remaining_s)
            return self._call("infer", remaining_s, **arguments)

        response = yield from self._with_retries(call, deadline, target)
        return parse_response(cast("Tensors", response), len(rows), target)

    def rows_per_request(self, wanted: int, deadline: Deadline) -> Flow[int]:
        """Return how many rows one request may carry, at most `wanted`.

        A single row needs no answer from the server.
        """
        if wanted <= 1:
            return 1
        if self._max_batch_size is None:

            def call() -> Call:
                remaining_s = deadline.require_time(self.target)
                return self._call("get_model_config", remaining_s, **self._model())

            try:
                response = yield from self._with_retries(call, deadline)
            except AccessRestricted:
                # A hardened server keeps its configuration to itself. Requests go out as they
                # are then, and the server refuses one that is too large.
                self._max_batch_size = _UNKNOWN_LIMIT
                return wanted
            # 0 means that the model takes no batches, which a request of one row shows.
            max_batch_size = cast("_ModelConfigResponse", response).config.max_batch_size
            self._max_batch_size = max(1, int(max_batch_size))
        return min(wanted, self._max_batch_size)

    def model_parameters(self, deadline: Deadline) -> Flow[dict[str, str]]:
        """Return the free parameters of the model's configuration."""

        def call() -> Call:
            remaining_s = deadline.require_time(self.target)
            return self._call("get_model_config", remaining_s, **self._model())

        response = yield from self._with_retries(call, deadline)
        return _strings(cast("_ModelConfigResponse", response))

    def status(self, deadline: Deadline) -> Flow[ServerStatus]:
        """Describe the server and the cascade. Nothing is retried, and no answer is an answer."""
        problems: list[str] = []
        live = yield from self._ask("is_server_live", deadline, problems)
        if not live:
            problem = problems[0] if problems else f"{self.target.url} says that it is not live"
            model = ModelStatus(self.target.model, ready=False)
            return ServerStatus(self.target.url, False, False, None, None, model, (), problem)
        ready = bool((yield from self._ask("is_server_ready", deadline, problems)))
        if not ready and not problems:
            problems.append(f"{self.target.url} is live but not ready: see the server's log")
        metadata = cast(
            "_ServerMetadata | None",
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
            "_ModelMetadata | None",
            (yield from self._ask("get_model_metadata", deadline, problems, **self._model())),
        )
        response = cast(
            "_ModelConfigResponse | None",
            (yield from self._ask("get_model_config", deadline, problems, **self._model())),
        )
        if not ready and not problems:
            problems.append(f"{self.target} is loaded but not ready: see the server's log")
        if metadata is not None and all(tensor.name != TEXT for tensor in metadata.inputs):
            ready = False
            cascade = self.target.model.rpartition("_")[0]
            problems.append(
                f"{self.target} has no input {TEXT}: it is no cascade"
                + (f", but a stage of {cascade!r} by its name" if cascade else "")
            )
        return ModelStatus(
            name=self.target.model,
            ready=ready,
            versions=tuple(metadata.versions) if metadata is not None else (),
            max_batch_size=int(response.config.max_batch_size) if response is not None else None,
            problem=problems[0] if problems else None,
            operating_points=() if response is None else points_from_parameters(_strings(response)),
        )

    def _statistics(self, deadline: Deadline) -> Flow[tuple[ModelStatistics, ...]]:
        # No name asks for all models: the stages' names are the cascade's, "_" and the member's.
        response = cast(
            "_StatisticsResponse | None",
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
        """Return a reply, or None after adding why there is none to `problems`."""
        try:
            return (yield self._call(method, deadline.require_time(self.target), **arguments))
        except FOREIGN_ERRORS as exc:
            error = translated(exc, self.target, timeout_s=deadline.timeout_s)
            if error is None:
                raise
            problems.append(str(error))
            return None

    def _with_retries(
        self, make_call: "MakeCall", deadline: Deadline, target: Target | None = None
    ) -> Flow[Any]:
        target = target or self.target
        attempts = 0
        while True:
            call = make_call()
            attempts += 1
            try:
                return (yield call)
            except FOREIGN_ERRORS as exc:
                error = translated(exc, target, timeout_s=deadline.timeout_s, attempts=attempts)
                if error is None:
                    raise
                delay_s = self._delay_s(error, attempts, deadline)
                if error is exc:
                    raise
                if delay_s is None:
                    raise error from exc
            yield Pause(delay_s)

    def _delay_s(
        self, error: CascadeClientError, attempts: int, deadline: Deadline
    ) -> float | None:
        if not isinstance(error, ServerUnavailable):
            return None
        return self._retry.delay_s(attempts, deadline.remaining_s())

    def _call(self, method: str, timeout_s: float | None, **arguments: Any) -> Call:
        return Call(method, {**arguments, "headers": self._headers}, timeout_s)

    def _model(self) -> dict[str, str]:
        return {"model_name": self.target.model, "model_version": self.target.model_version}


class MakeCall(Protocol):
    """Makes the call of the next attempt, with the time that is left for it."""

    def __call__(self) -> Call:
        """Return the call."""
        ...


def _strings(response: _ModelConfigResponse) -> dict[str, str]:
    parameters = response.config.parameters
    return {name: value.string_value for name, value in parameters.items()}


def _model_statistics(counters: _ModelCounters) -> ModelStatistics:
    success = counters.inference_stats.success
    return ModelStatistics(
        name=counters.name,
        version=counters.version,
        inference_count=int(counters.inference_count),
        execution_count=int(counters.execution_count),
        failure_count=int(counters.inference_stats.fail.count),
        mean_ms=success.ns / success.count / 1e6 if success.count else None,
    )
