"""Records of .parquet files; pyarrow reads them, an optional package."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from ..errors import InvalidRequest
from .lines import damage_named
from .messages import missing_column
from .tables import Checked

_ROWS_AT_ONCE = 1024


def values_from_parquet(
    stream: BinaryIO, name: str, columns: Sequence[str], naming_remedy: str
) -> Iterator[Checked]:
    """Values of some columns of a Parquet file, numbered from 1.

    Raises:
        InvalidRequest: pyarrow is not installed, the file is not Parquet, or a column is missing;
            while iterating: the file is damaged.
    """
    file, damaged = _opened(stream, name)
    known = list(file.schema_arrow.names)
    for column in columns:
        if known.count(column) != 1:
            raise InvalidRequest(
                f"{name}: {missing_column(column, known, naming_remedy)}"
                if column not in known
                else f"{name}: several columns named {column!r}: rename one"
            )
    return _records(file, damaged, name, columns)


def columns_of_parquet(stream: BinaryIO, name: str) -> list[str]:
    """Names of the columns of a Parquet file.

    Raises:
        InvalidRequest: pyarrow is not installed, or the file is not Parquet.
    """
    return list(_opened(stream, name)[0].schema_arrow.names)


def _opened(stream: BinaryIO, name: str) -> tuple[Any, type[Exception]]:
    """The file, and the exception of a damaged one."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as exc:  # not installed, or built for another NumPy
        raise InvalidRequest(
            f"{name}: pyarrow, which reads Parquet, cannot be imported ({exc}): install the extra "
            "'parquet', in a checkout with pip install '.[parquet]', or save the file as .jsonl"
        ) from exc
    if not stream.seekable():
        stream = io.BytesIO(stream.read())
    try:
        with damage_named(name):
            file: Any = ParquetFile(stream)
    except (OSError, ValueError, pyarrow.ArrowException) as exc:
        raise InvalidRequest(f"{name} is not Parquet, or is damaged: {exc}") from exc
    return file, pyarrow.ArrowException


def _records(
    file: Any, damaged: type[Exception], name: str, columns: Sequence[str]
) -> Iterator[Checked]:
    number = 0
    try:
        with damage_named(name):
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(columns)):
                of_columns = [batch.column(column).to_pylist() for column in columns]
                for values in zip(*of_columns, strict=True):
                    number += 1
                    yield number, list(values)
    except (OSError, ValueError, damaged) as exc:
        raise InvalidRequest(f"{name}: damaged after record {number}: {exc}") from exc
