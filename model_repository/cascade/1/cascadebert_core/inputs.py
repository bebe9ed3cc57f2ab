"""Request tensors to texts."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from . import contract
from .errors import InvalidArgument
from .tokenization import Text


def texts_from_tensors(
    text: NDArray[Any] | None, pair: NDArray[Any] | None, takes_pairs: bool | None
) -> list[Text]:
    """Check and decode the rows of a request. Error messages never quote a text.

    Args:
        text: The tensor TEXT, bytes of shape (n, 1); None if the request lacks it.
        pair: The tensor TEXT_PAIR, likewise.
        takes_pairs: Whether the policy's task takes pairs; None allows both.

    Raises:
        InvalidArgument: A tensor is missing, has another type or shape, or has a row that is empty
            or not UTF-8; a pair was given for a task of single texts, or the reverse; or the texts
            have more bytes than `contract.MAX_TEXT_BYTES`.
    """
    if text is None:
        raise InvalidArgument(f"{contract.TEXT} is missing")
    if pair is None and takes_pairs:
        raise InvalidArgument(
            f"{contract.TEXT_PAIR} is missing: this cascade classifies pairs of texts"
        )
    if pair is not None and takes_pairs is False:
        raise InvalidArgument(
            f"{contract.TEXT_PAIR} was given: this cascade classifies single texts"
        )
    for tensor, name in ((text, contract.TEXT), (pair, contract.TEXT_PAIR)):
        if tensor is not None:
            _require_strings(tensor, name)
    columns = [tensor[:, 0].tolist() for tensor in (text, pair) if tensor is not None]
    size = sum(sum(map(len, column)) for column in columns)
    if size > contract.MAX_TEXT_BYTES:
        raise InvalidArgument(
            f"the texts have {size} bytes, and a request may have {contract.MAX_TEXT_BYTES}: "
            "shorten them, or send fewer rows"
        )
    texts = _strings(columns[0], contract.TEXT)
    if pair is None:
        return list(texts)
    pairs = _strings(columns[1], contract.TEXT_PAIR)
    if len(pairs) != len(texts):
        raise InvalidArgument(
            f"{contract.TEXT} has {len(texts)} rows and {contract.TEXT_PAIR} {len(pairs)}: "
            "give one pair for every text"
        )
    return list(zip(texts, pairs, strict=True))


def _require_strings(tensor: NDArray[Any], name: str) -> None:
    if tensor.dtype.kind not in "OS" or tensor.ndim != 2 or tensor.shape[1] != 1:
        raise InvalidArgument(
            f"{name} has type {tensor.dtype} and shape {list(tensor.shape)}: "
            "send BYTES of shape [rows, 1]"
        )
    if not len(tensor):
        raise InvalidArgument(f"{name} has no rows: send at least one")


def _strings(values: list[Any], name: str) -> list[str]:
    try:
        strings = [value.decode() for value in values]
        # `isspace` stops at the first letter, and is false for an empty string.
        if all(strings) and not any(map(str.isspace, strings)):
            return strings
    except (AttributeError, UnicodeDecodeError):
        pass
    return [_string(value, name, row) for row, value in enumerate(values)]


def _string(value: object, name: str, row: int) -> str:
    try:
        string = value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as exc:
        raise InvalidArgument(
            f"{name} row {row} is not UTF-8 (byte {exc.start}): encode the text as UTF-8"
        ) from None  # the exception's own text quotes the bytes
    if not string or string.isspace():
        raise InvalidArgument(f"{name} row {row} is empty: leave such rows out")
    return string
