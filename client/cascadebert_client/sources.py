"""Rows of text from files and standard input. Errors name the file and the line."""

import gzip
from collections.abc import Iterator, Sequence
from typing import BinaryIO, TypeAlias, TypeVar, cast

from ._files.formats import (
    CSV,
    ENDINGS,
    FORMATS,
    JSON,
    JSONL,
    PARQUET,
    TSV,
    format_of_name,
    is_gzip,
)
from ._files.json_records import keys_of_first, values_from_json, values_from_jsonl
from ._files.lines import decoded_lines
from ._files.messages import did_you_mean, missing_column, names_in_message
from ._files.parquet import columns_of_parquet, values_from_parquet
from ._files.tables import (
    Checked,
    Values,
    chosen_fields,
    columns_of_table,
    split_records,
    values_from_table,
)
from ._rows import Row, size_problem, text_problem
from .errors import InvalidRequest

ContentT = TypeVar("ContentT")

CheckedRow: TypeAlias = tuple[int, Row | InvalidRequest]
"""A row, or what is wrong with it, with the number of its line or record, from 1."""

__all__ = [
    "FORMATS",
    "CheckedRow",
    "Values",
    "checked_rows_from_file",
    "checked_rows_from_lines",
    "columns_of_file",
    "did_you_mean",
    "format_of_name",
    "missing_column",
    "names_in_message",
    "rows_from_file",
    "rows_from_lines",
    "text_problem",
    "unknown_format",
    "values_from_file",
]


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
    return (row for _, row in _valid(checked_rows_from_lines(stream, name, pairs=pairs)))


def checked_rows_from_lines(stream: BinaryIO, name: str, *, pairs: bool) -> Iterator[CheckedRow]:
    """Like `rows_from_lines`, but a row that is wrong does not end the iteration.

    Raises:
        InvalidRequest: While iterating: a line is not UTF-8.
    """
    columns = ["text", "pair"] if pairs else ["text"]

    def fields(line: str) -> list[str]:
        return line.split("\t") if pairs else [line]

    records = split_records(decoded_lines(stream, name), fields)
    values = chosen_fields(records, name, columns, columns, "separate text and pair by one tab")
    return _rows(values, name, columns)


def rows_from_file(
    stream: BinaryIO,
    name: str,
    text_column: str,
    pair_column: str | None,
    file_format: str | None = None,
) -> Iterator[Row]:
    """Return the texts of a file; see `values_from_file` for the formats.

    Args:
        stream: The file. The header is read at once.
        name: The file's name, which messages begin with.
        text_column: Column (or key) of the text.
        pair_column: Column (or key) of the second text of a pair; None for single texts.
        file_format: One of `FORMATS`; None: the ending of the name tells it.

    Raises:
        InvalidRequest: The format is unknown or a column is missing; while iterating: a line
            cannot be read or has no text.
    """
    rows = checked_rows_from_file(stream, name, text_column, pair_column, file_format)
    return (row for _, row in _valid(rows))


def checked_rows_from_file(
    stream: BinaryIO,
    name: str,
    text_column: str,
    pair_column: str | None,
    file_format: str | None = None,
) -> Iterator[CheckedRow]:
    """Like `rows_from_file`, but a row that is wrong does not end the iteration.

    Raises:
        InvalidRequest: The format is unknown or a column is missing; while iterating: the rest of
            the file cannot be read.
    """
    columns = [text_column] if pair_column is None else [text_column, pair_column]
    remedy = "name the text with --text, and its pair with --text-pair"
    return _rows(_checked_values(stream, name, columns, remedy, file_format), name, columns)


def values_from_file(
    stream: BinaryIO,
    name: str,
    columns: Sequence[str],
    naming_remedy: str,
    file_format: str | None = None,
) -> Iterator[Values]:
    """Return the values of some columns of a file.

    A tsv file (.tsv, .tab, .txt) has a header and tabs; its quotes are text, as in GLUE, unless all
    of them are those of CSV (see `_files.quoting`). A csv file has a header, commas and quotes. A
    jsonl file has one object per line and a json file a list of objects; their values keep their
    types, as those of a parquet file do. Blank lines are only allowed at the end. A name that ends
    in .gz is of a compressed file.

    Args:
        stream: The file; text is UTF-8, with or without a byte-order mark. The header is read at
            once, and so are all quotes of a tsv file, all of a json file, and all of a tsv or
            parquet stream that cannot seek.
        name: The file's name, which messages begin with.
        columns: Columns (or keys) to read.
        naming_remedy: The end of the message on a missing column: how to name another column.
        file_format: One of `FORMATS`; None: the ending of the name tells it.

    Raises:
        InvalidRequest: The format is unknown or a column is missing; while iterating: a line
            cannot be read.
    """
    return _valid(_checked_values(stream, name, columns, naming_remedy, file_format))


def columns_of_file(stream: BinaryIO, name: str, file_format: str | None = None) -> list[str]:
    """Names of a file's columns in their order, or the keys of its first object.

    Args:
        stream: The file; see `values_from_file` for the formats.
        name: The file's name, which messages begin with.
        file_format: One of `FORMATS`; None: the ending of the name tells it.

    Raises:
        InvalidRequest: The format is unknown, or the file does not begin as it should.
    """
    kind, stream = _opened(stream, name, file_format)
    if kind in {TSV, CSV}:
        return columns_of_table(stream, name, kind)
    return columns_of_parquet(stream, name) if kind == PARQUET else keys_of_first(stream, name)


def _opened(stream: BinaryIO, name: str, file_format: str | None) -> tuple[str, BinaryIO]:
    """The format of a file, and its stream without compression."""
    kind = file_format or format_of_name(name)
    if kind not in FORMATS:
        raise InvalidRequest(unknown_format(name) if kind is None else _no_format(kind))
    if is_gzip(name):
        stream = cast("BinaryIO", gzip.GzipFile(fileobj=stream))
    return kind, stream


def _checked_values(
    stream: BinaryIO,
    name: str,
    columns: Sequence[str],
    naming_remedy: str,
    file_format: str | None,
) -> Iterator[Checked]:
    kind, stream = _opened(stream, name, file_format)
    if kind in {TSV, CSV}:
        return values_from_table(stream, name, kind, columns, naming_remedy)
    read = {JSONL: values_from_jsonl, JSON: values_from_json, PARQUET: values_from_parquet}[kind]
    return read(stream, name, columns, naming_remedy)


def _valid(
    checked: Iterator[tuple[int, ContentT | InvalidRequest]],
) -> Iterator[tuple[int, ContentT]]:
    """Raise what is wrong with a record."""
    for number, content in checked:
        if isinstance(content, InvalidRequest):
            raise content
        yield number, content


_SPREADSHEETS = (".xlsx", ".xls", ".ods")


def unknown_format(name: str) -> str:
    """The message for a file whose name does not tell its format."""
    if name.lower().endswith(_SPREADSHEETS):
        return f"{name} is a spreadsheet: save the sheet as CSV UTF-8"
    return (
        f"{name} ends in none of {', '.join(ENDINGS)}: rename it, or give its format: "
        f"{', '.join(FORMATS)}"
    )


def _no_format(given: str) -> str:
    return f"{given!r} is no format: give one of {', '.join(FORMATS)}"


def _rows(checked: Iterator[Checked], name: str, columns: Sequence[str]) -> Iterator[CheckedRow]:
    """Yield texts, or texts and pairs, or what is wrong with them."""
    for number, values in checked:
        if isinstance(values, InvalidRequest):
            yield number, values
            continue
        problems = (
            f"{name}:{number}: {column!r} {what}"
            for column, value in zip(columns, values, strict=True)
            if (what := _problem(value)) is not None
        )
        problem = next(problems, None)
        if problem is None:
            too_large = size_problem(sum(len(value.encode()) for value in values))
            problem = None if too_large is None else f"{name}:{number}: {too_large}"
        if problem is not None:
            yield number, InvalidRequest(problem)
        else:
            yield number, (values[0], values[1]) if len(values) == 2 else values[0]


def _problem(value: object) -> str | None:
    if not isinstance(value, str):
        return f"is {type(value).__name__}, not a string: correct the row"
    return text_problem(value)
