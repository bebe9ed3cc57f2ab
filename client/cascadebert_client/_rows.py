"""Rows of text: what a caller gives, checked and in UTF-8."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

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
                encoded, or it is not of the same kind as the rows before it.
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
    """Return why a text cannot be sent, with the remedy; None if it can."""
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
            "encode: decode the text with its own encoding"
        )
    return None


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
        case _:
            return f"is {type(row).__name__}: {remedy}", ()


def encode_inputs(inputs: object) -> EncodedInputs:
    """Return the inputs of `classify` as validated rows.

    Args:
        inputs: A text, a (text, pair) tuple, or a list of either.

    Raises:
        InvalidRequest: The input is something else, or a row is wrong; the message names it.
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
    """Gathers the rows of a stream into requests."""

    def __init__(self, rows_per_request: int):
        """Start without rows."""
        self._rows_per_request = rows_per_request
        self._encoder = RowEncoder()
        self._rows: list[Utf8Row] = []

    def add(self, row: object) -> list[Utf8Row] | None:
        """Add a row. Return the rows of a request if this row completes it.

        Raises:
            InvalidRequest: The row is wrong. `rest` still returns the rows before it.
        """
        self._rows.append(self._encoder.encode(row))
        return self.rest() if len(self._rows) == self._rows_per_request else None

    def rest(self) -> list[Utf8Row]:
        """Return the rows since the last full request, and forget them."""
        rows, self._rows = self._rows, []
        return rows


def require_iterable_of_rows(inputs: object) -> None:
    """Refuse inputs that are not an iterable of rows.

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
    """Cut rows into parts of `max_rows`, in order. The last part may be shorter."""
    return (rows[start : start + max_rows] for start in range(0, len(rows), max_rows))
