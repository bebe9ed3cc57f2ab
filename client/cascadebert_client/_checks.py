"""Checks of a caller's numbers. NumPy numbers are accepted, bool is not."""

import numbers
from typing import TypeGuard

from .errors import InvalidRequest


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
