"""Checks of numbers that callers give. NumPy's numbers count as numbers, bool does not."""

import numbers
from typing import TypeGuard

from .errors import InvalidRequest


def is_real(value: object) -> TypeGuard[float]:
    """Tell whether a value is a number with an order."""
    return not isinstance(value, bool) and isinstance(value, numbers.Real)


def is_integer(value: object) -> TypeGuard[int]:
    """Tell whether a value is a whole number."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral)


def require_positive(name: str, value: object) -> int:
    """Return a count of at least 1.

    Raises:
        InvalidRequest: It is not an integer, or less.
    """
    if not is_integer(value) or value < 1:
        raise InvalidRequest(f"{name} is {value!r}: give an integer of at least 1")
    return int(value)
