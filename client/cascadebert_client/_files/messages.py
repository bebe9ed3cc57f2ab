"""Parts of the messages about data files."""

import difflib
from collections.abc import Sequence

_MOST_NAMES = 12
_LONGEST_NAME = 40


def names_in_message(names: Sequence[str]) -> str:
    """Names in quotes; long names and long lists are shortened."""
    shown = [
        repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")
        for name in names[:_MOST_NAMES]
    ]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`did you mean 'text'? ` for a misspelt name; empty if no known name is like it."""
    folded = {each.strip().casefold(): each for each in reversed(known)}
    near = difflib.get_close_matches(name.strip().casefold(), list(folded), n=1, cutoff=0.6)
    return f"did you mean {folded[near[0]]!r}? " if near and folded[near[0]] != name else ""


def missing_column(
    name: str, known: Sequence[str], naming_remedy: str, kind: str = "column"
) -> str:
    """The message for a column that is not there: what is there, and how to name another."""
    return (
        f"no {kind} named {name!r}, but {names_in_message(known)}: "
        f"{did_you_mean(name, known)}{naming_remedy}"
    )
