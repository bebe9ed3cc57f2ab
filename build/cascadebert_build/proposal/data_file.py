"""The first rows of a data file, with all columns."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from cascadebert_client.errors import InvalidRequest
from cascadebert_client.sources import columns_of_file, format_of_name, values_from_file

from ..config.rows import check_data_file
from ..errors import UsageError

_ROWS = 2000


def columns_of_data(path: str, file_format: str | None = None) -> list[str]:
    """The names of a file's columns, in their order.

    Args:
        path: The file.
        file_format: One of `FORMATS`; None: the ending of the name tells it.

    Raises:
        UsageError: The file is missing, damaged or empty.
    """
    try:
        check_data_file(Path(path))
        with Path(path).open("rb") as file:
            return columns_of_file(file, path, file_format)
    except InvalidRequest as exc:
        raise UsageError(str(exc)) from exc
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc


def sample_of_file(path: str, file_format: str | None = None) -> dict[str, list[Any]]:
    """The values of the first rows by column, in the order of the file.

    Args:
        path: The file.
        file_format: One of `FORMATS`; None: the ending of the name tells it.

    Raises:
        UsageError: The file is missing, damaged or empty, or it is no file but a hub data set.
    """
    place = Path(path).expanduser()
    if not place.exists() and format_of_name(path) is None and file_format is None:
        raise UsageError(
            f"{path} is no data file here; if it is a data set of the hub, name its columns with "
            "--text and --label"
        )
    check_data_file(place)
    try:
        with place.open("rb") as file:
            columns = columns_of_file(file, path, file_format)
        with place.open("rb") as file:
            rows = values_from_file(file, path, columns, "correct the header", file_format)
            values = [row for _, row in itertools.islice(rows, _ROWS)]
    except InvalidRequest as exc:
        raise UsageError(str(exc)) from exc
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    if not values:
        raise UsageError(f"{path} has no rows: give a file with held-out rows")
    return {column: [row[i] for row in values] for i, column in enumerate(columns)}
