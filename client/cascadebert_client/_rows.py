"""Rows of text: what a caller gives, checked and in UTF-8."""

import math
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from cascadebert_core.contract import MAX_TEXT_BYTES

from .errors import InvalidRequest

Row: TypeAlias = str | tuple[str, str]
"""One text, or a (text, pair) tuple."""

Utf8Row: TypeAlias = tuple[bytes, bytes | None]
"""A validated row in UTF-8. The second part is None for a single text."""


@dataclass(frozen=True, slots=True)
class EncodedInputs:
    """The inputs of `classify`.

    Attributes:
        rows: The rows, in order.
        single: Whether the input was one row and not a list.
    """

    rows: list[Utf8Row]
    single: bool


class RowEncoder:
    """Encodes rows one by one, and checks that they are of one kind: all texts, or all pairs."""

    def __init__(self, *, numbered: bool = True):
        """Start before the first row.

        Args:
            numbered: Whether messages name the row's index.
        """
        self._numbered = numbered
        self._next_index = 0
        self._pairs: bool | None = None

    def encode(self, row: object) -> Utf8Row:
        """Return the next row in UTF-8.

        Raises:
            InvalidRequest: It is not a text or a pair of texts, a text is empty or cannot be
                encoded, the row has more bytes than a request may have, or it is not of the same
                kind as the rows before it.
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
        encoded = [] if problem is not None else [part.encode("utf-8") for part in parts]
        problem = problem or size_problem(sum(map(len, encoded)))
        if problem is not None:
            raise InvalidRequest(
                f"{where}{problem}" if self._numbered else f"the input: {problem}",
                row=index if self._numbered else None,
            )
        return encoded[0], encoded[1] if len(encoded) == 2 else None


def text_problem(text: str) -> str | None:
    """Return why a text cannot be sent, with the remedy; None if it can."""
    if not text:
        return "is empty: leave the row out"
    if text.isspace():
        return "is only white space: leave the row out"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        return (
            f"has a lone surrogate ({text[exc.start]!a}) at index {exc.start}, which UTF-8 cannot "
            "encode: decode the text with its own encoding"
        )
    return None


def size_problem(n_bytes: int) -> str | None:
    """Return why a row of this size cannot be sent, with the remedy; None if it can."""
    if n_bytes <= MAX_TEXT_BYTES:
        return None
    return (
        f"has {n_bytes} bytes, and a request may have {MAX_TEXT_BYTES}: shorten it (a cascade "
        "reads no more than the first tokens of a text)"
    )


def _parts_of(row: object) -> tuple[str | None, tuple[str, ...]]:
    """Return (problem, texts). Without a problem there are one or two texts."""
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
        case float() if math.isnan(row):
            return f"is {row}, a missing value: leave the row out, or {remedy}", ()
        case _:
            return f"is {type(row).__name__}: {remedy}", ()


def encode_inputs(inputs: object) -> EncodedInputs:
    """Return the inputs of `classify` as validated rows.

    Args:
        inputs: A text or a (text, pair) tuple, or any iterable of either; see `rows_from_inputs`.

    Raises:
        InvalidRequest: The input is something else, or a row is wrong; the message names it.
    """
    if type(inputs) is str and (row := _encoded(inputs)) is not None:
        return EncodedInputs([(row, None)], single=True)
    if isinstance(inputs, str | tuple | bytes):
        return EncodedInputs([RowEncoder(numbered=False).encode(inputs)], single=True)
    if isinstance(inputs, AsyncIterable):
        raise InvalidRequest(
            f"inputs is {type(cast('object', inputs)).__name__}, an asynchronous iterable: give it "
            "to classify_stream of AsyncCascadeClient"
        )
    encoder = RowEncoder()
    return EncodedInputs([encoder.encode(row) for row in rows_from_inputs(inputs)], single=False)


def _encoded(text: str) -> bytes | None:
    """Return a single text in UTF-8, or None if `RowEncoder` has something to say about it."""
    if not text or text.isspace():
        return None
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return encoded if len(encoded) <= MAX_TEXT_BYTES else None


def rows_from_inputs(inputs: object) -> Iterable[object]:
    """Return an iterable of rows as a caller has it: a list, a generator, an array, a column.

    Args:
        inputs: Any iterable of texts or of (text, pair) tuples: also a numpy array of shape (n,),
            or (n, 2) for pairs, a column of pandas or polars, or an array of pyarrow.

    Raises:
        InvalidRequest: It is a single text, or no iterable of rows.
    """
    given: Any = inputs
    kind = type(given).__name__
    if isinstance(given, str | bytes):
        raise InvalidRequest(f"inputs is one {kind}: give an iterable of rows, or call classify")
    if isinstance(given, Mapping) or kind == "DataFrame":
        raise InvalidRequest(
            f"inputs is a {kind}: give one column of it, or zip(…) of two for pairs of texts"
        )
    shape = getattr(given, "shape", None)
    if isinstance(shape, tuple) and len(cast("tuple[object, ...]", shape)) != 1:
        if len(cast("tuple[object, ...]", shape)) == 2 and shape[1] == 2:
            return map(tuple, given.tolist())
        raise InvalidRequest(
            f"inputs is {kind} of shape {shape}: give shape (n,) for texts, or (n, 2) for pairs"
        )
    if hasattr(given, "to_pylist"):  # pyarrow's items are no str
        return given.to_pylist()
    if not isinstance(given, Iterable):
        raise InvalidRequest(
            f"inputs is {kind}: give a str, a (text, pair) tuple, or an iterable of either"
        )
    return cast("Iterable[object]", given)


class Chunker:
    """Gathers rows into requests: by their number, and by the bytes that a request may have."""

    def __init__(self, rows_per_request: int):
        """Start without rows."""
        self._rows_per_request = rows_per_request
        self._encoder = RowEncoder()
        self._rows: list[Utf8Row] = []
        self._bytes = 0

    def add(self, row: object) -> list[Utf8Row] | None:
        """Check and add a row. Return the rows of a request if this row completes it.

        Raises:
            InvalidRequest: The row is wrong. `rest` still returns the rows before it.
        """
        return self.add_encoded(self._encoder.encode(row))

    def add_encoded(self, row: Utf8Row) -> list[Utf8Row] | None:
        """Add a validated row. Return the rows of a request if this row completes it."""
        size = _size_of(row)
        full = self.rest() if self._rows and self._bytes + size > MAX_TEXT_BYTES else None
        self._rows.append(row)
        self._bytes += size
        # If the rows before this one are a request, this one is alone: two rows at least fit.
        return self.rest() if len(self._rows) == self._rows_per_request else full

    def rest(self) -> list[Utf8Row]:
        """Return the rows since the last full request, and forget them."""
        rows, self._rows, self._bytes = self._rows, [], 0
        return rows


def split(rows: list[Utf8Row], max_rows: int) -> Iterator[list[Utf8Row]]:
    """Cut rows, in order, into parts of at most `max_rows` and of the bytes of one request."""
    chunker = Chunker(max_rows)
    for row in rows:
        if part := chunker.add_encoded(row):
            yield part
    if rest := chunker.rest():
        yield rest


def fits_one_request(rows: list[Utf8Row], max_rows: int) -> bool:
    """Return whether the rows may be sent as they are."""
    return len(rows) <= max_rows and sum(map(_size_of, rows)) <= MAX_TEXT_BYTES


def _size_of(row: Utf8Row) -> int:
    text, pair = row
    return len(text) + (0 if pair is None else len(pair))
