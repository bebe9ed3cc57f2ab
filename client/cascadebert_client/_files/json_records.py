"""Records of .jsonl and .json files."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from ..errors import InvalidRequest
from .lines import Line, decoded_lines
from .messages import missing_column
from .tables import Checked, Record, without_blanks

_ONE_PER_LINE = "write one object per line"
_AS_RECORDS = "write a list of objects; pandas does with to_json(path, orient='records')"


def values_from_jsonl(
    stream: BinaryIO, name: str, columns: Sequence[str], naming_remedy: str
) -> Iterator[Checked]:
    """Values of some keys of a file with one JSON object on each line.

    Raises:
        InvalidRequest: While iterating: the rest is not UTF-8.
    """
    return without_blanks(
        _records_of_lines(decoded_lines(stream, name), name, columns, naming_remedy), name
    )


def values_from_json(
    stream: BinaryIO, name: str, columns: Sequence[str], naming_remedy: str
) -> Iterator[Checked]:
    """Values of some keys of a file that is one list of JSON objects, numbered from 1.

    A file with one object on each line is read as what it is.

    Raises:
        InvalidRequest: It is not JSON, or not such a list.
    """
    lines = list(decoded_lines(stream, name))
    text = "".join(line for _, line in lines)
    try:
        value = _parsed(text)
    except json.JSONDecodeError as exc:
        if exc.msg == "Extra data" and text.lstrip().startswith("{"):
            records = _records_of_lines(lines, name, columns, naming_remedy)
            return without_blanks(records, name)
        raise InvalidRequest(
            f"{name}:{exc.lineno}: not JSON: {exc.msg} at column {exc.colno}: {_AS_RECORDS}"
        ) from exc
    except ValueError as exc:
        raise InvalidRequest(f"{name}: not JSON: {exc}: {_AS_RECORDS}") from exc
    if isinstance(value, dict):
        if any(isinstance(each, dict | list) for each in value.values()):
            raise InvalidRequest(f"{name}: one object, not a list of objects: {_AS_RECORDS}")
        value = [value]
    if not isinstance(value, list):
        raise InvalidRequest(f"{name}: {type(value).__name__}, not a list: {_AS_RECORDS}")
    return _records_of_list(value, name, columns, naming_remedy)


def keys_of_first(stream: BinaryIO, name: str) -> list[str]:
    """The keys of the first object of a .jsonl or .json file; none if there is no object.

    Raises:
        InvalidRequest: The file begins with something else than an object or a list of objects.
    """
    lines = list(decoded_lines(stream, name))
    text = "".join(line for _, line in lines)
    first = next((line for _, line in lines if line.strip()), "")
    for candidate in (first, text):  # an object on a line, or a list over many
        try:
            value = _parsed(candidate)
        except ValueError:
            continue
        if isinstance(value, list):
            value = value[0] if value else {}
        if isinstance(value, dict):
            return [str(key) for key in value]
    if not text.strip():
        return []
    raise InvalidRequest(f"{name}:1: not a JSON object: {_ONE_PER_LINE}")


def _records_of_list(
    values: Sequence[Any], name: str, columns: Sequence[str], naming_remedy: str
) -> Iterator[Checked]:
    for number, value in enumerate(values, start=1):
        yield number, _fields(value, f"{name}:{number}", columns, naming_remedy, _AS_RECORDS)


def _records_of_lines(
    lines: Iterable[Line], name: str, columns: Sequence[str], naming_remedy: str
) -> Iterator[Record]:
    for number, line in lines:
        if not line.strip():
            yield number, None
            continue
        where = f"{name}:{number}"
        try:
            value = _parsed(line)
        except ValueError as exc:
            remedy = _ONE_PER_LINE
            if number == 1 and line.lstrip().startswith("["):
                remedy = "if it is one list of objects, give its format, json"
            yield number, InvalidRequest(f"{where}: not JSON: {exc}: {remedy}")
            continue
        yield number, _fields(value, where, columns, naming_remedy, _ONE_PER_LINE)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc


def _fields(
    value: Any, where: str, columns: Sequence[str], naming_remedy: str, remedy: str
) -> list[Any] | InvalidRequest:
    if not isinstance(value, dict):
        return InvalidRequest(f"{where}: {type(value).__name__}, not an object: {remedy}")
    for column in columns:
        if column not in value:
            what = missing_column(column, list(value), naming_remedy, "key")
            return InvalidRequest(f"{where}: {what}")
    return [value[column] for column in columns]
