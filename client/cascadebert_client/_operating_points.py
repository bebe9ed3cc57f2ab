"""Operating points of a served cascade, from the parameters of its configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

PARAMETER = "operating_points"

_GOALS = {
    "max_disagreement": "promises another answer than the last stage's on at most {:.3g}%",
    "max_accuracy_drop": "promises accuracy at most {:.3g} points below the last stage's",
    "max_deferral_rate": "at most {} deferred by a stage; promises nothing",
    "min_speedup": "at least {} times cheaper than the last stage; promises nothing",
    "max_cost": "at most {} ms a row; promises nothing",
}
_SHARES = ("max_disagreement", "max_accuracy_drop")


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A named set of thresholds.

    Attributes:
        name: What `classify(..., operating_point=name)` takes.
        default: Whether a request without parameters gets it.
        thresholds: One for every stage but the last, or one for every label of a stage.
        goal: What it was chosen for, as a sentence; None where nobody said.
        deferral: Share of the held-out rows that the first stage did not answer.
        speedup: How many times cheaper than the last stage alone, in time, where it was tuned.
    """

    name: str
    default: bool
    thresholds: tuple[float | tuple[float, ...], ...]
    goal: str | None = None
    deferral: float | None = None
    speedup: float | None = None


def points_from_parameters(parameters: Mapping[str, str]) -> tuple[OperatingPoint, ...]:
    """Read the operating points; none where the configuration does not list them."""
    try:
        raw = json.loads(parameters.get(PARAMETER, "{}"))
        return tuple(_point(name, found) for name, found in cast("dict[str, Any]", raw).items())
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError):
        return ()  # of another version: a status says what it can


def _point(name: str, raw: Mapping[str, Any]) -> OperatingPoint:
    exits = raw.get("exits")
    return OperatingPoint(
        name=name,
        default=bool(raw.get("default")),
        thresholds=tuple(tuple(t) if isinstance(t, list) else float(t) for t in raw["thresholds"]),
        goal=_goal(raw),
        deferral=None if not exits else 1 - float(exits[0]),
        speedup=raw.get("speedup"),
    )


def _goal(raw: Mapping[str, Any]) -> str | None:
    goal = cast("dict[str, Any] | None", raw.get("promise") or raw.get("budget"))
    if goal is None:
        return None
    limit = goal["limit"]
    if goal["kind"] in _SHARES:
        text = _GOALS[goal["kind"]].format(100 * limit)
        return f"{text}, with {100 * goal['confidence']:.4g}% confidence"
    numbers = "/".join(f"{value:g}" for value in (limit if isinstance(limit, list) else [limit]))
    return _GOALS[goal["kind"]].format(numbers)
