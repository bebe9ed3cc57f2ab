"""The tensors and parameters of a request, and the answers in a response.

Nothing here calls a server. TEXT and TEXT_PAIR, BYTES (n, 1), go out for n rows; the outputs of
`_OUTPUT_TYPES` come back.
"""

import itertools
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import tritonclient.grpc
from numpy.typing import NDArray

from cascadebert_core import contract

from ._checks import is_integer, is_real
from ._rows import Utf8Row, text_problem
from ._timeline import Timeline, timeline_from_json
from ._tracing import Span, Trace, trace_of_call
from ._types import Classification
from .errors import InvalidRequest, Target, UnexpectedResponse

Thresholds: TypeAlias = float | Sequence[float]
"""One threshold for every stage but the last, or one for each of them."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a call sends beside its rows.

    Attributes:
        route: Request parameters that choose between speed and accuracy, as they are sent.
        request_id: The request's id; the empty string for none.
        explain: Whether each answer comes with its timeline.
        trace: The trace that the call belongs to; None without one.
        headers: All gRPC metadata of the request; None for the client's own.
    """

    route: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    request_id: str = ""
    explain: bool = False
    trace: Trace | None = None
    headers: Mapping[str, str] | None = None


_PLAIN = Parameters()

_OUTPUT_TYPES: dict[str, type[np.generic]] = {
    contract.PROBABILITIES: np.float32,  # (n, labels), in the policy's label order
    contract.LABEL: np.object_,  # (n, 1), bytes
    contract.CONFIDENCE: np.float32,  # (n, 1)
    contract.EXIT_STAGE: np.int32,  # (n, 1), 0-based
    contract.DEGRADED: np.bool_,  # (n, 1)
    contract.POLICY: np.object_,  # (n, 1), bytes
}

_COLUMNS = dict.fromkeys((*_OUTPUT_TYPES, contract.DECIDED_BY))

# The same on the wire, and what may come beside them.
_WIRE_TYPES = {
    contract.PROBABILITIES: "FP32",
    contract.LABEL: "BYTES",
    contract.CONFIDENCE: "FP32",
    contract.EXIT_STAGE: "INT32",
    contract.DEGRADED: "BOOL",
    contract.POLICY: "BYTES",
    contract.TIMELINE: "BYTES",
    contract.DECIDED_BY: "BYTES",  # only of cascades that choose it by their load
}

# struct's code of a value, and its bytes.
_CODES = {"FP32": ("f", 4), "INT32": ("i", 4), "BOOL": ("?", 1)}

# The part of the time before the deadline that is kept for the server's answer: a share of it, but
# at most these seconds.
_ANSWER_SHARE = 0.05
_LONGEST_ANSWER_S = 0.1

# Characters of a request's id. The server's log has no more of it.
_LONGEST_ID = 200


class Tensors(Protocol):
    """A response of tritonclient."""

    def as_numpy(self, name: str) -> NDArray[Any] | None:
        """Return an output, or None if the response lacks it."""
        ...


def request_parameters(
    operating_point: str | None,
    threshold: Thresholds | None,
    stage: int | None,
    request_id: str | None = None,
    *,
    explain: bool = False,
    traceparent: str | None = None,
) -> Parameters:
    """Return what a call sends beside its rows.

    Args:
        operating_point: Name of a set of thresholds in the policy.
        threshold: Exit threshold of every stage but the last, in [0, 1]; or one for each of them.
        stage: Position of the only stage that answers, from 0.
        request_id: The id that the server's log has for the request.
        explain: Whether each answer comes with its timeline.
        traceparent: W3C's trace context of the caller.

    Raises:
        InvalidRequest: More than one of the first three is given, or a value is out of its range.
    """
    chosen = (operating_point, threshold, stage, request_id)
    trace = trace_of_call(traceparent)
    if not explain and trace is None and all(each is None for each in chosen):
        return _PLAIN
    given = {
        contract.OPERATING_POINT: operating_point,
        contract.THRESHOLD: threshold,
        contract.STAGE: stage,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) > 1:
        raise InvalidRequest(f"{' and '.join(chosen)} exclude each other: give one of them")
    parameters: dict[str, str | int] = {}
    if operating_point is not None:
        if not isinstance(operating_point, str) or not operating_point:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(
                f"operating_point is {operating_point!r}: give the name of one in the policy"
            )
        problem = text_problem(operating_point)
        if problem is not None:
            raise InvalidRequest(f"operating_point {problem}")
        parameters[contract.OPERATING_POINT] = operating_point
    if threshold is not None:
        values: Sequence[Any] = (
            threshold
            if isinstance(threshold, Sequence) and not isinstance(threshold, (str, bytes))
            else [threshold]
        )
        # `not 0 <= x <= 1` also refuses NaN.
        if not values or not all(is_real(value) and 0 <= value <= 1 for value in values):
            raise InvalidRequest(
                f"threshold is {threshold!r}: give a number from 0 to 1, or a list with one for "
                "each stage that may defer"
            )
        # A string is exact, and older servers take no parameters that are floats.
        parameters[contract.THRESHOLD] = ",".join(repr(float(value)) for value in values)
    if stage is not None:
        if not is_integer(stage) or stage < 0:
            raise InvalidRequest(f"stage is {stage!r}: give a position, 0 for the first stage")
        parameters[contract.STAGE] = int(stage)
    if request_id is not None:
        _require_id(request_id)
    if not isinstance(explain, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(f"explain is {explain!r}: give True or False")
    if explain:
        parameters[contract.EXPLAIN] = True
    return Parameters(parameters, request_id or "", explain, trace)


def traced_parameters(
    parameters: Parameters, span: Span, headers: Mapping[str, str], *, told: bool
) -> Parameters:
    """Return the parameters of a request that belongs to a trace.

    Args:
        parameters: The call's.
        span: The span of the request.
        headers: The client's own gRPC metadata.
        told: Whether the cascade may be told of the trace: it names the trace in its log, and
            makes timelines. Earlier releases refuse both.
    """
    headers = {**headers, **span.headers}
    if not told:
        return replace(parameters, headers=headers)
    explain = parameters.explain or span.records
    route = {**parameters.route, **span.headers_for_model()}
    if explain:
        route[contract.EXPLAIN] = True
    return replace(parameters, route=route, explain=explain, headers=headers)


def _require_id(request_id: object) -> None:
    if not isinstance(request_id, str) or not request_id:
        raise InvalidRequest(f"request_id is {request_id!r}: give a string that is not empty")
    if len(request_id) > _LONGEST_ID or not request_id.isprintable():
        raise InvalidRequest(
            f"request_id is {request_id[:_LONGEST_ID]!r}: give at most {_LONGEST_ID} characters "
            "that can be printed"
        )


def infer_arguments(
    rows: Sequence[Utf8Row], parameters: Parameters, target: Target, remaining_s: float | None
) -> dict[str, Any]:
    """Return the arguments of tritonclient's `infer` for one request.

    Args:
        rows: n validated rows, all of one kind.
        parameters: The request's parameters and its id.
        target: The model to call.
        remaining_s: Seconds until the deadline, which the server reads; None without one. The
            caller sets the gRPC deadline.
    """
    inputs = [_texts(contract.TEXT, [text for text, _ in rows])]
    pairs = [pair for _, pair in rows if pair is not None]
    if pairs:
        inputs.append(_texts(contract.TEXT_PAIR, pairs))
    timeout_us = None
    if remaining_s is not None:
        timeout_us = max(1, int(1e6 * server_timeout_s(remaining_s)))  # 0 would mean no limit
    metadata = {} if parameters.headers is None else {"headers": parameters.headers}
    return {
        **metadata,
        "model_name": target.model,
        "model_version": target.model_version,
        "inputs": inputs,
        # All that the model declares, some one more than others; TIMELINE only with `explain`.
        "outputs": None,
        "request_id": parameters.request_id,
        "parameters": dict(parameters.route) or None,
        "timeout": timeout_us,
    }


def server_timeout_s(remaining_s: float) -> float:
    """Return the server's share of the seconds until the deadline.

    The rest is for its answer, even if that is a refusal. A call that ends at its own deadline is
    cancelled while the server answers it. The reason is then lost, and Triton before the end of
    2024 may crash (server issue 7368).
    """
    return remaining_s - min(_ANSWER_SHARE * remaining_s, _LONGEST_ANSWER_S)


class _Texts(tritonclient.grpc.InferInput):
    """Texts of shape (n, 1) as a tensor of BYTES: each behind its length.

    It is what `set_data_from_numpy` makes of an array of objects, at a fifth of the cost.
    """

    def __init__(self, name: str, values: Sequence[bytes]):
        super().__init__(name, [len(values), 1], "BYTES")
        if len(values) == 1:
            self._raw_content = len(values[0]).to_bytes(4, "little") + values[0]
        else:
            parts = (part for each in values for part in (len(each).to_bytes(4, "little"), each))
            self._raw_content = b"".join(parts)


def _checked_texts(name: str, values: Sequence[bytes]) -> tritonclient.grpc.InferInput:
    """The same by public methods alone."""
    tensor = np.empty((len(values), 1), dtype=np.object_)  # (n, 1)
    tensor[:, 0] = list(values)
    tensor_input = tritonclient.grpc.InferInput(name, [len(values), 1], "BYTES")
    tensor_input.set_data_from_numpy(tensor)
    return tensor_input


# A release of tritonclient may keep the content elsewhere.
_texts = _Texts if "_raw_content" in vars(_checked_texts("TEXT", [b"a"])) else _checked_texts


def parse_response(
    response: Tensors,
    n_rows: int,
    target: Target,
    order_of: Callable[[str], tuple[str, ...]] = lambda _: (),
    *,
    explained: bool = False,
) -> list[Classification]:
    """Return one classification per row of a response.

    Args:
        response: The result of `infer`.
        n_rows: Rows in the request.
        target: The model that answered.
        order_of: Returns the labels of a policy in their order; empty if unknown.
        explained: Whether the response has the timelines of the rows.

    Raises:
        UnexpectedResponse: An output is missing, or has another shape or type.
    """
    columns = _columns(response, n_rows) or _checked_columns(response, n_rows, target)
    timelines = (
        _timelines(response, n_rows, target) if explained else itertools.repeat(None, n_rows)
    )
    # In the order of _OUTPUT_TYPES, and the operating point.
    return [
        Classification(
            label,
            tuple(probabilities),
            confidence,
            exit_stage,
            degraded,
            policy,
            order_of(policy),
            timeline,
            point or None,
        )
        for probabilities, label, confidence, exit_stage, degraded, policy, point, timeline in zip(
            *columns, timelines, strict=True
        )
    ]


def _timelines(response: Tensors, n_rows: int, target: Target) -> list[Timeline]:
    """Return the timelines of the rows.

    Raises:
        UnexpectedResponse: The output is missing, or is something else.
    """
    tensor = _output(response, contract.TIMELINE, n_rows, target)
    try:
        return [timeline_from_json(bytes(value).decode("utf-8")) for value in tensor[:, 0]]
    except (ValueError, TypeError) as exc:
        raise _unexpected(f"{contract.TIMELINE} cannot be read: {exc}", target) from exc


def _columns(response: Tensors, n_rows: int) -> list[list[Any]] | None:
    """Return the outputs as lists of n_rows values, or None if one of them is not as expected.

    It reads the message itself: `as_numpy` searches it for each output, and makes an array of each,
    which costs more than all else that this client adds to tritonclient.
    """
    get_message = getattr(response, "get_response", None)
    if get_message is None:
        return None
    message = get_message()
    tensors, raw = message.outputs, message.raw_output_contents
    if len(raw) != len(tensors):
        return None
    found: dict[str, list[Any]] = {}
    for tensor, content in zip(tensors, raw, strict=True):
        name, shape = tensor.name, list(tensor.shape)
        wire = _WIRE_TYPES.get(name)
        if wire is None or tensor.datatype != wire or len(shape) != 2 or shape[0] != n_rows:
            return None
        width = shape[1]
        if width != 1 and (name != contract.PROBABILITIES or width < 1):
            return None
        values = _values(content, wire, n_rows * width)
        if values is None:
            return None
        if name == contract.PROBABILITIES:
            values = [values[i : i + width] for i in range(0, n_rows * width, width)]
        found[name] = values
    # TIMELINE may be there too.
    found.setdefault(contract.DECIDED_BY, [""] * n_rows)
    return [found[name] for name in _COLUMNS] if found.keys() >= _COLUMNS.keys() else None


def _values(content: bytes, wire: str, count: int) -> list[Any] | None:
    """Return the values of a tensor, or None if it holds another number of them."""
    if wire == "BYTES":
        return _strings(content, count)
    code, size = _CODES[wire]
    # A float32 becomes Python's float without changing its value.
    return list(struct.unpack(f"<{count}{code}", content)) if len(content) == size * count else None


def _strings(content: bytes, count: int) -> list[str] | None:
    """Return the strings of a BYTES tensor, each behind its length; None if it has others."""
    strings: list[str] = []
    end = 0
    while end < len(content):
        start = end + 4
        end = start + int.from_bytes(content[end:start], "little")
        if end > len(content):
            return None
        try:
            strings.append(content[start:end].decode("utf-8"))
        except UnicodeDecodeError:
            return None
    return strings if len(strings) == count else None


def _checked_columns(response: Tensors, n_rows: int, target: Target) -> list[list[Any]]:
    """Return the outputs as lists of n_rows values.

    Raises:
        UnexpectedResponse: An output is missing, or has another shape or type.
    """
    outputs = {name: _output(response, name, n_rows, target) for name in _OUTPUT_TYPES}
    points = response.as_numpy(contract.DECIDED_BY)
    if points is None or points.shape != (n_rows, 1):
        points = np.full((n_rows, 1), b"", dtype=np.object_)
    try:
        labels, policies, names = (
            [bytes(value).decode("utf-8") for value in column[:, 0]]
            for column in (outputs[contract.LABEL], outputs[contract.POLICY], points)
        )
    except (UnicodeDecodeError, TypeError) as exc:
        raise _unexpected(f"LABEL or POLICY is not UTF-8: {exc}", target) from exc
    return [
        outputs[contract.PROBABILITIES].tolist(),
        labels,
        *(
            outputs[name][:, 0].tolist()
            for name in (contract.CONFIDENCE, contract.EXIT_STAGE, contract.DEGRADED)
        ),
        policies,
        names,
    ]


def _output(response: Tensors, name: str, n_rows: int, target: Target) -> NDArray[Any]:
    """Return one output, of shape (n_rows, 1), or (n_rows, labels) for the probabilities."""
    try:
        tensor = response.as_numpy(name)
    except (ValueError, struct.error) as exc:
        raise _unexpected(f"{name} cannot be read: {exc}", target) from exc
    if tensor is None:
        raise _unexpected(f"it lacks {name}", target)
    dtype = _OUTPUT_TYPES.get(name, np.object_)
    columns_fit = tensor.ndim == 2 and (
        tensor.shape[1] >= 1 if name == contract.PROBABILITIES else tensor.shape[1] == 1
    )
    if not columns_fit or tensor.shape[0] != n_rows or tensor.dtype != dtype:
        expected = f"({n_rows}, {'labels' if name == 'PROBABILITIES' else 1})"
        raise _unexpected(
            f"{name} is {tensor.dtype} of shape {tensor.shape}, "
            f"not {dtype.__name__} of shape {expected}",
            target,
        )
    return tensor


def _unexpected(what: str, target: Target) -> UnexpectedResponse:
    return UnexpectedResponse(
        f"the response of {target} is not a cascade's: {what}: check that this model is a "
        "cascade, published by the same release",
        target=target,
    )
