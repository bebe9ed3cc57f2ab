"""From texts to the tensors of a request, and from a response to classifications.

Nothing here talks to a server. The tensors are those of the cascade contract, n rows each:
TEXT and TEXT_PAIR, BYTES (n, 1), go out; `OUTPUTS` come back.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import tritonclient.grpc
from numpy.typing import NDArray

from ._checks import is_integer, is_real
from ._types import Classification
from .errors import InvalidRequest, Target, UnexpectedResponse

Row: TypeAlias = str | tuple[str, str]
"""One text, or a (text, pair) tuple."""

Utf8Row: TypeAlias = tuple[bytes, bytes | None]
"""One validated row in UTF-8; the second is None for a single text."""

Parameters: TypeAlias = dict[str, str | int]
"""Request parameters as they go over the wire."""

TEXT = "TEXT"
"""The input that every cascade has, BYTES (n, 1)."""

OUTPUTS: dict[str, type[np.generic]] = {
    "PROBABILITIES": np.float32,  # (n, labels), in the policy's label order
    "LABEL": np.object_,  # (n, 1), bytes
    "CONFIDENCE": np.float32,  # (n, 1)
    "EXIT_STAGE": np.int32,  # (n, 1), 0-based
    "DEGRADED": np.bool_,  # (n, 1)
    "POLICY": np.object_,  # (n, 1), bytes
}
"""The outputs that every request asks for, with the types they come back as."""

# What is left to the server's answer of the time to the deadline: a share, seconds at most.
_ANSWER_SHARE = 0.05
_LONGEST_ANSWER_S = 0.1


class Tensors(Protocol):
    """A response of tritonclient: its outputs by name."""

    def as_numpy(self, name: str) -> NDArray[Any] | None:
        """Return the output, or None when the response lacks it."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedInputs:
    """What `classify` was given.

    Attributes:
        rows: Its rows, in order.
        single: Whether it was one row rather than a list of them.
    """

    rows: list[Utf8Row]
    single: bool


class RowEncoder:
    """Encodes rows one after another, and holds them to one kind: all texts, or all pairs."""

    def __init__(self, *, numbered: bool = True):
        """Start before the first row.

        Args:
            numbered: Whether messages name the index of the row.
        """
        self._numbered = numbered
        self._next_index = 0
        self._pairs: bool | None = None

    def encode(self, row: object) -> Utf8Row:
        """Return the next row in UTF-8.

        Raises:
            InvalidRequest: It is not a text or a pair of texts, one of them is empty or cannot be
                encoded, or it is of another kind than the rows before.
        """
        index = self._next_index
        self._next_index += 1
        where = f"row {index}: " if self._numbered else ""
        problem, parts = _parts_of(row)
        if problem is None:
            is_pair = len(parts) == 2
            if self._pairs is None:
                self._pairs = is_pair
            elif self._pairs != is_pair:
                was, now = ("a pair", "a single text") if self._pairs else ("a text", "a pair")
                problem = f"is {now}, but row 0 is {was}: send the two kinds separately"
        if problem is None:
            names = ("the text", "the second text of the pair")
            found = ((name, text_problem(text)) for name, text in zip(names, parts, strict=False))
            problem = next((f"{name} {what}" for name, what in found if what), None)
        if problem is not None:
            raise InvalidRequest(
                f"{where}{problem}" if self._numbered else f"the input: {problem}",
                row=index if self._numbered else None,
            )
        encoded = [part.encode("utf-8") for part in parts]
        return encoded[0], encoded[1] if len(encoded) == 2 else None


def text_problem(text: str) -> str | None:
    """Return what makes a text unfit to be sent, with the remedy, or None when it is fit."""
    if not text:
        return "is empty: leave the row out"
    if text.isspace():
        return "is only white space: leave the row out"
    if "\0" in text:
        return f"has a NUL character at index {text.index(chr(0))}: remove it"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        return (
            f"has a lone surrogate ({text[exc.start]!a}) at index {exc.start}, which UTF-8 cannot "
            "encode: decode the text with the encoding it was written in"
        )
    return None


def _parts_of(row: object) -> tuple[str | None, tuple[str, ...]]:
    """Return (problem, texts): one or two texts when there is no problem."""
    remedy = "give a str or a (text, pair) tuple of two str"
    match row:
        case str():
            return None, (row,)
        case (str() as text, str() as pair) if isinstance(row, tuple):
            return None, (text, pair)
        case tuple():
            kinds = ", ".join(type(part).__name__ for part in row)
            return f"is a tuple of ({kinds}): {remedy}", ()
        case bytes():
            return f"is bytes, not str: decode it, or {remedy}", ()
        case _:
            return f"is {type(row).__name__}: {remedy}", ()


def encode_inputs(inputs: object) -> EncodedInputs:
    """Return what `classify` was given as validated rows.

    Args:
        inputs: A text, a (text, pair) tuple, or a list of either.

    Raises:
        InvalidRequest: It is none of these, or a row is unfit; the message names the row.
    """
    if isinstance(inputs, list):
        encoder = RowEncoder()
        rows: list[object] = inputs
        return EncodedInputs([encoder.encode(row) for row in rows], single=False)
    if isinstance(inputs, str | tuple | bytes):
        return EncodedInputs([RowEncoder(numbered=False).encode(inputs)], single=True)
    raise InvalidRequest(
        f"inputs is {type(inputs).__name__}: give a str, a (text, pair) tuple or a list of "
        "either; classify_stream takes other iterables"
    )


class Chunker:
    """Gathers rows of a stream into requests of at most a given size."""

    def __init__(self, rows_per_request: int):
        """Start with no rows gathered."""
        self._rows_per_request = rows_per_request
        self._encoder = RowEncoder()
        self._rows: list[Utf8Row] = []

    def add(self, row: object) -> list[Utf8Row] | None:
        """Take one more row, and return a full request when this row completes it.

        Raises:
            InvalidRequest: The row is unfit; the rows before it are still there for `rest`.
        """
        self._rows.append(self._encoder.encode(row))
        return self.rest() if len(self._rows) == self._rows_per_request else None

    def rest(self) -> list[Utf8Row]:
        """Return the rows gathered since the last full request, and forget them."""
        rows, self._rows = self._rows, []
        return rows


def require_iterable_of_rows(inputs: object) -> None:
    """Refuse what would be iterated by the character, or not at all.

    Raises:
        InvalidRequest: It is a single text, bytes, or not iterable.
    """
    if isinstance(inputs, str | bytes):
        raise InvalidRequest(
            f"inputs is one {type(inputs).__name__}: give an iterable of rows, or call classify"
        )
    if not isinstance(inputs, Iterable) and not hasattr(inputs, "__aiter__"):
        raise InvalidRequest(f"inputs is {type(inputs).__name__}: give an iterable of rows")


def split(rows: list[Utf8Row], max_rows: int) -> Iterator[list[Utf8Row]]:
    """Cut rows into parts of `max_rows`, the last one shorter, order kept."""
    return (rows[start : start + max_rows] for start in range(0, len(rows), max_rows))


def request_parameters(
    operating_point: str | None, threshold: float | None, stage: int | None
) -> Parameters:
    """Return the request parameters of a choice between speed and accuracy.

    Args:
        operating_point: Name of a set of thresholds in the policy.
        threshold: Exit threshold of every stage but the last, in [0, 1].
        stage: Position (0-based) of the stage that alone answers.

    Raises:
        InvalidRequest: More than one is given, or one is out of its range.
    """
    given = {"operating_point": operating_point, "threshold": threshold, "stage": stage}
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) > 1:
        raise InvalidRequest(f"{' and '.join(chosen)} exclude each other: give one of them")
    parameters: Parameters = {}
    if operating_point is not None:
        if not isinstance(operating_point, str) or not operating_point:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(
                f"operating_point is {operating_point!r}: give the name of one in the policy"
            )
        problem = text_problem(operating_point)
        if problem is not None:
            raise InvalidRequest(f"operating_point {problem}")
        parameters["operating_point"] = operating_point
    if threshold is not None:
        # `not 0 <= x <= 1` also refuses NaN.
        if not is_real(threshold) or not 0 <= threshold <= 1:
            raise InvalidRequest(f"threshold is {threshold!r}: give a number from 0 to 1")
        # A string is exact, and older servers take no parameters that are floats.
        parameters["threshold"] = repr(float(threshold))
    if stage is not None:
        if not is_integer(stage) or stage < 0:
            raise InvalidRequest(f"stage is {stage!r}: give a position, 0 for the first stage")
        parameters["stage"] = int(stage)
    return parameters


def infer_arguments(
    rows: Sequence[Utf8Row], parameters: Parameters, target: Target, remaining_s: float | None
) -> dict[str, Any]:
    """Return the arguments of tritonclient's `infer` for one request.

    Args:
        rows: n validated rows, all of one kind.
        parameters: The request parameters.
        target: The model to call.
        remaining_s: Seconds until the deadline, for the server to read; None without one. The
            gRPC deadline is the caller's to set.
    """
    inputs = [_bytes_input(TEXT, [text for text, _ in rows])]
    pairs = [pair for _, pair in rows if pair is not None]
    if pairs:
        inputs.append(_bytes_input("TEXT_PAIR", pairs))
    timeout_us = None
    if remaining_s is not None:
        timeout_us = max(1, int(1e6 * server_timeout_s(remaining_s)))  # 0 would mean no limit
    return {
        "model_name": target.model,
        "model_version": target.model_version,
        "inputs": inputs,
        "outputs": [tritonclient.grpc.InferRequestedOutput(name) for name in OUTPUTS],
        "parameters": dict(parameters) or None,
        "timeout": timeout_us,
    }


def server_timeout_s(remaining_s: float) -> float:
    """Return the server's part of the seconds to the deadline.

    The rest is for its answer, be it a refusal. A call that ends at its own deadline is cancelled
    while the server answers it: the reason is lost, and Triton before the end of 2024 may not
    survive that (server issue 7368).
    """
    return remaining_s - min(_ANSWER_SHARE * remaining_s, _LONGEST_ANSWER_S)


def _bytes_input(name: str, values: list[bytes]) -> tritonclient.grpc.InferInput:
    tensor = np.empty((len(values), 1), dtype=np.object_)  # (n, 1)
    tensor[:, 0] = values
    tensor_input = tritonclient.grpc.InferInput(name, [len(values), 1], "BYTES")
    tensor_input.set_data_from_numpy(tensor)
    return tensor_input


def parse_response(response: Tensors, n_rows: int, target: Target) -> list[Classification]:
    """Return one classification per row of a response.

    Args:
        response: What `infer` returned.
        n_rows: Rows that the request carried.
        target: The model that answered.

    Raises:
        UnexpectedResponse: An output is missing, or has another shape or type.
    """
    outputs = {name: _output(response, name, n_rows, target) for name in OUTPUTS}
    try:
        labels, policies = (
            [bytes(value).decode("utf-8") for value in outputs[name][:, 0]]
            for name in ("LABEL", "POLICY")
        )
    except (UnicodeDecodeError, TypeError) as exc:
        raise _unexpected(f"LABEL or POLICY is not UTF-8: {exc}", target) from exc
    # tolist() widens float32 to Python's float without changing the value.
    return [
        Classification(label, tuple(probabilities), confidence, exit_stage, degraded, policy)
        for label, probabilities, confidence, exit_stage, degraded, policy in zip(
            labels,
            outputs["PROBABILITIES"].tolist(),
            outputs["CONFIDENCE"][:, 0].tolist(),
            outputs["EXIT_STAGE"][:, 0].tolist(),
            outputs["DEGRADED"][:, 0].tolist(),
            policies,
            strict=True,
        )
    ]


def _output(response: Tensors, name: str, n_rows: int, target: Target) -> NDArray[Any]:
    """Return one output, of the contract's shape (n_rows, 1), or (n_rows, labels)."""
    try:
        tensor = response.as_numpy(name)
    except (ValueError, struct.error) as exc:
        raise _unexpected(f"{name} cannot be read: {exc}", target) from exc
    if tensor is None:
        raise _unexpected(f"it lacks {name}", target)
    columns_fit = tensor.ndim == 2 and (
        tensor.shape[1] >= 1 if name == "PROBABILITIES" else tensor.shape[1] == 1
    )
    if not columns_fit or tensor.shape[0] != n_rows or tensor.dtype != OUTPUTS[name]:
        expected = f"({n_rows}, {'labels' if name == 'PROBABILITIES' else 1})"
        raise _unexpected(
            f"{name} is {tensor.dtype} of shape {tensor.shape}, "
            f"not {OUTPUTS[name].__name__} of shape {expected}",
            target,
        )
    return tensor


def _unexpected(what: str, target: Target) -> UnexpectedResponse:
    return UnexpectedResponse(
        f"the response of {target} is not a cascade's: {what}: check that this model is a "
        "cascade, published by the same release",
        target=target,
    )
