"""Checks of a caller's numbers. NumPy numbers are accepted, bool is not."""

import numbers
import re
from collections.abc import Mapping
from typing import TypeGuard

from .errors import InvalidRequest

# What gRPC takes as the name of a header.
HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def is_real(value: object) -> TypeGuard[float]:
    """Return whether a value is a real number."""
    return not isinstance(value, bool) and isinstance(value, numbers.Real)


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral)


def require_positive(name: str, value: object) -> int:
    """Return a count of at least 1.

    Raises:
        InvalidRequest: The value is not an integer, or less than 1.
    """
    if not is_integer(value) or value < 1:
        raise InvalidRequest(f"{name} is {value!r}: give an integer of at least 1")
    return int(value)


def require_headers(headers: Mapping[str, str]) -> None:
    """Check that gRPC takes these headers. The messages show no value: it may be a secret.

    Raises:
        InvalidRequest: A name or a value has other characters.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(
                f"headers has the name {name!r}: give letters, digits, hyphens, underscores and "
                "dots"
            )
        if name.lower().endswith("-bin") and isinstance(value, bytes):
            continue
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(
                f"the value of the header {name!r} has characters that a header cannot have: give "
                "printable ASCII"
            )
