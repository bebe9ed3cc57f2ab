"""Records of .tsv and .csv files, and of lines."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, TypeAlias

from ..errors import InvalidRequest
from .formats import CSV, TSV
from .lines import Line, damage_named, decoded_lines, raw_lines
from .messages import missing_column
from .quoting import Quoting, quoting_of_lines

Values: TypeAlias = tuple[int, list[Any]]
"""The values of a record, with the number of its first line."""

Checked: TypeAlias = tuple[int, list[Any] | InvalidRequest]
"""The values of a record, or what is wrong with it, with the number of its first line."""

Record: TypeAlias = tuple[int, list[Any] | InvalidRequest | None]
"""The fields of a record, or what is wrong with it; None for a blank line."""

_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
_SEPARATOR_OF = {TSV: "\t", CSV: ","}
# The csv module's own limit of 131,072 characters is there for files of unknown origin.
_LONGEST_FIELD = 2**31 - 1

_CSV_REMEDY = "put fields that hold a comma or a line break in quotes"
_TSV_REMEDY = (
    "a tab or a line break ends a field, so replace those inside a text by spaces, or save the "
    "file as .csv or .jsonl"
)
_NOT_QUOTED = (
    "; quotes are text in this file, and hold no tabs and line breaks together, since line {} has "
    "one that is not doubled in a quoted field"
)


def values_from_table(
    stream: BinaryIO, name: str, file_format: str, columns: Sequence[str], naming_remedy: str
) -> Iterator[Checked]:
    """Values of some columns of a .tsv or .csv file; see `sources.values_from_file`.

    Raises:
        InvalidRequest: There is no header, or a column is missing; while iterating: the rest cannot
            be read.
    """
    header, records, quoting = _opened_table(stream, name, file_format, columns)
    for column in columns:
        if column not in header:
            why = ""
            if not quoting.quoted and f'"{column}"' in header and quoting.stray is not None:
                why = _NOT_QUOTED.format(quoting.stray)
            raise InvalidRequest(f"{name}:1: {missing_column(column, header, naming_remedy)}{why}")
        if header.count(column) > 1:
            raise InvalidRequest(f"{name}:1: several columns named {column!r}: rename one")
    remedy = _CSV_REMEDY if file_format == CSV else _TSV_REMEDY
    if quoting.stray is not None:
        remedy += _NOT_QUOTED.format(quoting.stray)
    return chosen_fields(records, name, header, columns, remedy)


def columns_of_table(stream: BinaryIO, name: str, file_format: str) -> list[str]:
    """Names of the columns of a .tsv or .csv file, in their order.

    Raises:
        InvalidRequest: There is no header, or another character separates its columns.
    """
    return _opened_table(stream, name, file_format, ())[0]


def _opened_table(
    stream: BinaryIO, name: str, file_format: str, columns: Sequence[str]
) -> tuple[list[Any], Iterator[Record], Quoting]:
    """The header, the records after it, and what quotes are in this file."""
    separator = _SEPARATOR_OF[file_format]
    quoting = Quoting(True)
    if file_format == TSV:
        if not stream.seekable():  # the quotes are looked at before the first record
            stream = io.BytesIO(stream.read())
        start = stream.tell()
        with damage_named(name):
            quoting = quoting_of_lines(raw_lines(stream))
        stream.seek(start)
    lines = _noting_header(decoded_lines(stream, name), header_line := [])
    if quoting.quoted:
        records = _csv_records(lines, name, separator, header_line)
    else:
        records = split_records(lines, lambda line: line.split(separator))
    _, header = next(records, (0, None))
    if not isinstance(header, list) or not header:
        raise InvalidRequest(f"{name}:1: there is no header: name the columns in the first line")
    if len(header) < 2 or any(column not in header for column in columns):
        _check_separator(name, header_line[0], separator, columns)
    return header, records, quoting


def split_records(lines: Iterable[Line], fields: Callable[[str], list[str]]) -> Iterator[Record]:
    """One record for each line."""
    for number, line in lines:
        content = line.rstrip("\r\n")
        # A line of tabs is not blank: it has empty fields, which is another mistake.
        yield number, fields(content) if content.strip(" ") else None


def without_blanks(records: Iterator[Record], name: str) -> Iterator[Checked]:
    """Leave out blank lines at the end. Blank lines before it are a problem."""
    blank_line: int | None = None
    for number, fields in records:
        if fields is None:
            blank_line = number if blank_line is None else blank_line
            continue
        if blank_line is not None:
            yield blank_line, InvalidRequest(f"{name}:{blank_line}: the line is blank: remove it")
            blank_line = None
        yield number, fields


def chosen_fields(
    records: Iterator[Record], name: str, header: list[Any], columns: Sequence[str], remedy: str
) -> Iterator[Checked]:
    """Yield the named columns of records."""
    places = [header.index(column) for column in columns]
    for number, fields in without_blanks(records, name):
        if isinstance(fields, InvalidRequest):
            yield number, fields
        elif len(fields) != len(header):
            counts = f"{_fields(len(fields))} instead of {len(header)}"
            yield number, InvalidRequest(f"{name}:{number}: {counts}: {remedy}")
        else:
            yield number, [fields[place] for place in places]


def _noting_header(lines: Iterator[Line], header: list[str]) -> Iterator[Line]:
    """Pass lines on, and put the first one into `header`."""
    for number, line in lines:
        if number == 1:
            header.append(line.rstrip("\r\n"))
        yield number, line


def _csv_records(
    lines: Iterator[Line], name: str, separator: str, header: Sequence[str]
) -> Iterator[Record]:
    reader = csv.reader((line for _, line in lines), delimiter=separator, strict=True)
    while True:
        first_line = reader.line_num + 1
        # The limit is the module's, and other code of the process may count on its own.
        limit = csv.field_size_limit(_LONGEST_FIELD)
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            if first_line == 1 and header:
                _check_separator(name, header[0], separator, ())
            remedy = "correct the quotes of this record"
            if "new-line" in str(exc):  # the csv module's word for a carriage return
                remedy = "remove its carriage return, or put the field in quotes"
            raise InvalidRequest(f"{name}:{first_line}: not CSV: {exc}: {remedy}") from exc
        finally:
            csv.field_size_limit(limit)
        yield first_line, fields or None


def _check_separator(name: str, header: str, separator: str, columns: Sequence[str]) -> None:
    """Refuse a header that another character plainly separates.

    Raises:
        InvalidRequest: It has all wanted columns if it is split there, or several instead of one.
    """
    if "\r" in header:
        raise InvalidRequest(
            f"{name}: its lines end with a carriage return alone: convert them, with "
            "tr '\\r' '\\n' < OLD > NEW"
        )
    single = separator not in header
    for other, what in _SEPARATORS.items():
        fields = [field.strip().strip('"') for field in header.split(other)]
        wanted = bool(columns) and all(column in fields for column in columns)
        if other == separator or len(fields) < 2 or not (single or wanted):
            continue
        formats = [each for each, its_own in _SEPARATOR_OF.items() if its_own == other]
        remedy = (
            f"let its name end in .{formats[0]}, or give its format, {formats[0]}"
            if formats
            else "save it with commas or tabs"
        )
        raise InvalidRequest(
            f"{name}:1: {what} ({other!r}) separate its columns, not "
            f"{_SEPARATORS[separator]}: {remedy}"
        )


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"
