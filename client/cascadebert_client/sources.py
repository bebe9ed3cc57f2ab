"""Rows of text from files and standard input. Errors name the file and the line."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, BinaryIO, TypeAlias

from ._rows import Row, text_problem
from .errors import InvalidRequest

Line: TypeAlias = tuple[int, str]
"""A line with its number, counted from 1."""

Values: TypeAlias = tuple[int, list[Any]]
"""The values of a record, with the number of its first line."""

Record: TypeAlias = tuple[int, list[Any] | None]
"""The fields of a record, with the number of its first line; None for a blank line."""

__all__ = [
    "SUFFIXES",
    "Values",
    "rows_from_file",
    "rows_from_lines",
    "text_problem",
    "values_from_file",
]

SUFFIXES = (".tsv", ".csv", ".jsonl")


def rows_from_lines(stream: BinaryIO, name: str, *, pairs: bool) -> Iterator[Row]:
    """Return the texts of a stream, one per line.

    Args:
        stream: UTF-8, with or without a byte-order mark.
        name: Its name in messages.
        pairs: Whether a tab separates a text from its pair.

    Raises:
        InvalidRequest: While iterating: a line is not UTF-8, has no text, or, for pairs, does not
            have exactly one tab.
    """
    columns = ["text", "pair"] if pairs else ["text"]

    def fields(line: str) -> list[str]:
        return line.split("\t") if pairs else [line]

    records = _records(_lines(stream, name), fields)
    values = _chosen(records, name, columns, columns, "separate text and pair by one tab")
    return _rows(values, name, columns)


def rows_from_file(
    stream: BinaryIO, name: str, text_column: str, pair_column: str | None
) -> Iterator[Row]:
    """Return the texts of a file; see `values_from_file` for the formats.

    Args:
        stream: UTF-8, with or without a byte-order mark. The header is read at once.
        name: The file's name, which messages begin with.
        text_column: Column (or key) of the text.
        pair_column: Column (or key) of the second text of a pair; None for single texts.

    Raises:
        InvalidRequest: The suffix is unknown or a column is missing; while iterating: a line
            cannot be read or has no text.
    """
    columns = [text_column] if pair_column is None else [text_column, pair_column]
    remedy = "name the text with --text, and its pair with --text-pair"
    return _rows(values_from_file(stream, name, columns, remedy), name, columns)


def values_from_file(
    stream: BinaryIO, name: str, columns: Sequence[str], naming_remedy: str
) -> Iterator[Values]:
    """Return the values of some columns of a file. The suffix of its name tells the format.

    A .tsv file has a header and tabs, and quotes have no meaning, as in GLUE. A .csv file has a
    header and quotes. A .jsonl file has one object per line, whose values keep their types. Blank
    lines are only allowed at the end.

    Args:
        stream: UTF-8, with or without a byte-order mark. The header is read at once.
        name: The file's name, which messages begin with.
        columns: Columns (or keys) to read.
        naming_remedy: The end of the message on a missing column: how to name another column.

    Raises:
        InvalidRequest: The suffix is unknown or a column is missing; while iterating: a line
            cannot be read.
    """
    lines = _lines(stream, name)
    match PurePath(name).suffix.lower():
        case ".jsonl":
            return _unblanked(_json_records(lines, name, columns, naming_remedy), name)
        case ".tsv":
            records = _records(lines, lambda line: line.split("\t"))
        case ".csv":
            records = _csv_records(lines, name)
        case _:
            raise InvalidRequest(
                f"{name} is none of {', '.join(SUFFIXES)}: rename or convert the file"
            )
    _, header = next(records, (0, None))
    if not header:
        raise InvalidRequest(f"{name}:1: there is no header: name the columns in the first line")
    for column in columns:
        if header.count(column) != 1:
            how_many = "several columns" if column in header else "no column"
            raise InvalidRequest(
                f"{name}:1: {how_many} named {column!r}, but {', '.join(map(repr, header))}: "
                f"{naming_remedy}"
            )
    return _chosen(records, name, header, columns, "quote or remove stray separators")


def _lines(stream: BinaryIO, name: str) -> Iterator[Line]:
    for number, raw in enumerate(stream, start=1):
        try:
            # Only the first line may begin with a byte-order mark.
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as exc:
            raise InvalidRequest(
                f"{name}:{number}: byte 0x{exc.object[exc.start]:02x} at position {exc.start} is "
                "not UTF-8: convert the file, for instance with iconv -t utf-8"
            ) from exc


def _records(lines: Iterable[Line], fields: Callable[[str], list[str]]) -> Iterator[Record]:
    for number, line in lines:
        content = line.rstrip("\r\n")
        # A line of tabs is not blank: it has empty fields, which is another mistake.
        yield number, fields(content) if content.strip(" ") else None


def _csv_records(lines: Iterator[Line], name: str) -> Iterator[Record]:
    reader = csv.reader((line for _, line in lines), strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            raise InvalidRequest(
                f"{name}:{first_line}: not CSV: {exc}: correct the quotes of this record"
            ) from exc
        yield first_line, fields or None


def _json_records(
    lines: Iterable[Line], name: str, columns: Sequence[str], naming_remedy: str
) -> Iterator[Record]:
    for number, line in lines:
        if not line.strip():
            yield number, None
            continue
        try:
            value: Any = json.loads(line)
        except ValueError as exc:
            raise InvalidRequest(
                f"{name}:{number}: not JSON: {exc}: write one object per line"
            ) from exc
        if not isinstance(value, dict):
            raise InvalidRequest(
                f"{name}:{number}: {type(value).__name__}, not an object: write one object per line"
            )
        for column in columns:
            if column not in value:
                raise InvalidRequest(
                    f"{name}:{number}: no key {column!r}, but {', '.join(map(repr, value))}: "
                    f"{naming_remedy}"
                )
        yield number, [value[column] for column in columns]


def _unblanked(records: Iterator[Record], name: str) -> Iterator[Values]:
    """Leave out blank lines at the end, and refuse blank lines before it."""
    blank_line: int | None = None
    for number, fields in records:
        if fields is None:
            blank_line = number if blank_line is None else blank_line
            continue
        if blank_line is not None:
            raise InvalidRequest(f"{name}:{blank_line}: the line is blank: remove it")
        yield number, fields


def _chosen(
    records: Iterator[Record], name: str, header: list[Any], columns: Sequence[str], remedy: str
) -> Iterator[Values]:
    """Yield the named columns of records."""
    places = [header.index(column) for column in columns]
    for number, fields in _unblanked(records, name):
        if len(fields) != len(header):
            raise InvalidRequest(
                f"{name}:{number}: {_fields(len(fields))} instead of {len(header)}: {remedy}"
            )
        yield number, [fields[place] for place in places]


def _rows(values: Iterator[Values], name: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yield texts, or texts and pairs."""
    for number, texts in values:
        for column, text in zip(columns, texts, strict=True):
            if not isinstance(text, str):
                raise InvalidRequest(
                    f"{name}:{number}: {column!r} is {type(text).__name__}, not a string"
                )
            problem = text_problem(text)
            if problem is not None:
                raise InvalidRequest(f"{name}:{number}: {column!r} {problem}")
        yield (texts[0], texts[1]) if len(texts) == 2 else texts[0]


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"
