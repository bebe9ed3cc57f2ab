"""Strategies of hypothesis for tests of parsers."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

# Surrogates, controls and right-to-left marks included.
ANY_TEXT = st.text(st.characters(), max_size=30)
_HUGE = [10**400, -(10**400), 2**63, -(2**63) - 1, 2**64]


def json_values() -> st.SearchStrategy[Any]:
    """What json.loads may give, with the numbers and strings that readers trip over."""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 5),
        st.integers(),
        st.sampled_from(_HUGE),
        st.floats(),
        ANY_TEXT,
    )
    return st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(ANY_TEXT, inner, max_size=4)
        ),
        max_leaves=8,
    )


@st.composite
def mutated(draw: st.DrawFn, raw: Any) -> Any:
    """`raw`, changed in place, with one to three of its parts replaced, removed, doubled, added."""
    for _ in range(draw(st.integers(1, 3))):
        places = _places(raw)
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        change = draw(st.sampled_from(["replace", "remove", "double", "add"]))
        if change == "remove":
            del holder[key]
        elif change == "replace":
            holder[key] = draw(json_values())
        elif isinstance(holder, dict):
            holder[draw(ANY_TEXT)] = holder[key] if change == "double" else draw(json_values())
        else:
            holder.append(holder[key] if change == "double" else draw(json_values()))
    return raw


def _places(raw: Any) -> list[tuple[Any, Any]]:
    """Every (dict, key) and (list, index) below `raw`."""
    items = raw.items() if isinstance(raw, dict) else enumerate(raw)
    places: list[tuple[Any, Any]] = []
    for key, value in items:
        places.append((raw, key))
        if isinstance(value, (dict, list)):
            places += _places(value)
    return places
