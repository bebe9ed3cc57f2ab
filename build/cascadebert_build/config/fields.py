"""How a key of cascade.toml is checked, written beside the field that it fills.

The configuration classes are plain dataclasses, so commands work without pydantic. These
annotations are read by pydantic alone, when `cascade_toml.py` reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar

# Lower-case letters, digits, hyphens; "_" joins the names of cascade and member.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def is_name(text: str) -> bool:
    """Whether a text can be the name of a cascade or a member."""
    return _NAME.fullmatch(text) is not None


class Table:
    """Base of the dataclasses that are tables of cascade.toml.

    Values keep their types (`true` is no integer) and unknown keys are errors.
    """

    __slots__ = ()
    __pydantic_config__: ClassVar[Any] = {"strict": True, "extra": "forbid"}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Accept a dict: strict alone would accept only instances of the class."""
        return {**handler(source), "strict": False}


class _List:
    """A list of TOML for a tuple; its items stay strict."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "strict": False}


LIST = _List()


@dataclass(frozen=True, slots=True)
class Before:
    """Change what the file has before its type is checked."""

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """What pydantic calls."""
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.function, handler(source))


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on a value of the right type.

    Attributes:
        holds: Whether a value is allowed.
        remedy: The end of the message if it is not.
    """

    holds: Callable[[Any], bool]
    remedy: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """What pydantic calls."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, value: Any) -> Any:
        if not self.holds(value):
            raise ValueError(self.remedy)
        return value


def at_least(minimum: int) -> Check:
    """An integer of `minimum` or more."""
    return Check(lambda value: value >= minimum, f"give {minimum} or more")


def between(low: float, high: float) -> Check:
    """A number from `low` to `high`; NaN is none."""
    return Check(lambda value: low <= value <= high, f"give a number from {low:g} to {high:g}")


def one_of(choices: Collection[str]) -> Check:
    """One of a few strings."""
    return Check(lambda value: value in choices, f"give one of {', '.join(choices)}")


NAME = Check(
    is_name,
    "give lower-case letters, digits and hyphens, beginning and ending with a letter or digit",
)
# TOML has no null: an empty string means that there is no such column.
EMPTY_IS_NONE = Before(lambda value: None if value == "" else value)
NUMBER_AS_LIST = Before(lambda value: [value] if type(value) in {int, float} else value)
