"""The tensors and parameters of a request, and the answers in a response.

Nothing here calls a server. TEXT and TEXT_PAIR, BYTES (n, 1), go out for n rows; the outputs of
`_OUTPUT_TYPES` come back.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import tritonclient.grpc
from numpy.typing import NDArray

from cascadebert_core import contract

from ._checks import is_integer, is_real
from ._rows import Utf8Row, text_problem
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
    """

    route: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    request_id: str = ""


_OUTPUT_TYPES: dict[str, type[np.generic]] = {
    contract.PROBABILITIES: np.float32,  # (n, labels), in the policy's label order
    contract.LABEL: np.object_,  # (n, 1), bytes
    contract.CONFIDENCE: np.float32,  # (n, 1)
    contract.EXIT_STAGE: np.int32,  # (n, 1), 0-based
    contract.DEGRADED: np.bool_,  # (n, 1)
    contract.POLICY: np.object_,  # (n, 1), bytes
}

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
) -> Parameters:
    """Return what a call sends beside its rows.

    Args:
        operating_point: Name of a set of thresholds in the policy.
        threshold: Exit threshold of every stage but the last, in [0, 1]; or one for each of them.
        stage: Position of the only stage that answers, from 0.
        request_id: The id that the server's log has for the request.

    Raises:
        InvalidRequest: More than one of the first three is given, or a value is out of its range.
    """
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
    return Parameters(parameters, request_id or "")


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
    inputs = [_bytes_input(contract.TEXT, [text for text, _ in rows])]
    pairs = [pair for _, pair in rows if pair is not None]
    if pairs:
        inputs.append(_bytes_input(contract.TEXT_PAIR, pairs))
    timeout_us = None
    if remaining_s is not None:
        timeout_us = max(1, int(1e6 * server_timeout_s(remaining_s)))  # 0 would mean no limit
    return {
        "model_name": target.model,
        "model_version": target.model_version,
        "inputs": inputs,
        "outputs": [tritonclient.grpc.InferRequestedOutput(name) for name in _OUTPUT_TYPES],
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


def _bytes_input(name: str, values: list[bytes]) -> tritonclient.grpc.InferInput:
    tensor = np.empty((len(values), 1), dtype=np.object_)  # (n, 1)
    tensor[:, 0] = values
    tensor_input = tritonclient.grpc.InferInput(name, [len(values), 1], "BYTES")
    tensor_input.set_data_from_numpy(tensor)
    return tensor_input


def parse_response(
    response: Tensors,
    n_rows: int,
    target: Target,
    order_of: Callable[[str], tuple[str, ...]] = lambda _: (),
) -> list[Classification]:
    """Return one classification per row of a response.

    Args:
        response: The result of `infer`.
        n_rows: Rows in the request.
        target: The model that answered.
        order_of: Returns the labels of a policy in their order; empty if unknown.

    Raises:
        UnexpectedResponse: An output is missing, or has another shape or type.
    """
    outputs = {name: _output(response, name, n_rows, target) for name in _OUTPUT_TYPES}
    try:
        labels, policies = (
            [bytes(value).decode("utf-8") for value in outputs[name][:, 0]]
            for name in (contract.LABEL, contract.POLICY)
        )
    except (UnicodeDecodeError, TypeError) as exc:
        raise _unexpected(f"LABEL or POLICY is not UTF-8: {exc}", target) from exc
    # tolist() widens float32 to Python's float without changing the value.
    return [
        Classification(
            label,
            tuple(probabilities),
            confidence,
            exit_stage,
            degraded,
            policy,
            order_of(policy),
        )
        for label, probabilities, confidence, exit_stage, degraded, policy in zip(
            labels,
            outputs[contract.PROBABILITIES].tolist(),
            outputs[contract.CONFIDENCE][:, 0].tolist(),
            outputs[contract.EXIT_STAGE][:, 0].tolist(),
            outputs[contract.DEGRADED][:, 0].tolist(),
            policies,
            strict=True,
        )
    ]


def _output(response: Tensors, name: str, n_rows: int, target: Target) -> NDArray[Any]:
    """Return one output, of shape (n_rows, 1), or (n_rows, labels) for the probabilities."""
    try:
        tensor = response.as_numpy(name)
    except (ValueError, struct.error) as exc:
        raise _unexpected(f"{name} cannot be read: {exc}", target) from exc
    if tensor is None:
        raise _unexpected(f"it lacks {name}", target)
    columns_fit = tensor.ndim == 2 and (
        tensor.shape[1] >= 1 if name == contract.PROBABILITIES else tensor.shape[1] == 1
    )
    if not columns_fit or tensor.shape[0] != n_rows or tensor.dtype != _OUTPUT_TYPES[name]:
        expected = f"({n_rows}, {'labels' if name == 'PROBABILITIES' else 1})"
        raise _unexpected(
            f"{name} is {tensor.dtype} of shape {tensor.shape}, "
            f"not {_OUTPUT_TYPES[name].__name__} of shape {expected}",
            target,
        )
    return tensor


def _unexpected(what: str, target: Target) -> UnexpectedResponse:
    return UnexpectedResponse(
        f"the response of {target} is not a cascade's: {what}: check that this model is a "
        "cascade, published by the same release",
        target=target,
    )
