"""Operating points of a served cascade, from its published configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from cascadebert_core import published_points as keys
from cascadebert_core.contract import OPERATING_POINTS
from cascadebert_core.guarantee import GUARANTEES, Guarantee, budget_as_text

from ._checks import is_real
from .errors import UnexpectedResponse


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A named set of thresholds.

    Attributes:
        name: The name for `classify(..., operating_point=name)`.
        default: Whether it applies to a request without parameters.
        thresholds: One threshold for each stage but the last, or one for each label of a stage.
        goal: Its guarantee or budget in words, or that it was set by hand; None if the
            configuration does not say.
        deferral: Share of the held-out rows that the first stage deferred; None if unknown.
        speedup: How many times faster it is than the last stage alone; None if unknown.
        speedup_spread: The least and the most in the repeats of the measurement; None if unknown.
        computations: Multiply-accumulates of a row, relative to the last stage alone; None if
            unknown.
        under_load: Whether it takes the default's place while much is waiting.
    """

    name: str
    default: bool
    thresholds: tuple[float | tuple[float, ...], ...]
    goal: str | None = None
    deferral: float | None = None
    speedup: float | None = None
    speedup_spread: tuple[float, float] | None = None
    computations: float | None = None
    under_load: bool = False


def points_from_parameters(parameters: Mapping[str, str]) -> tuple[OperatingPoint, ...]:
    """Return the operating points of a model's configuration, or none if it cannot be read."""
    try:
        raw = cast("dict[str, Any]", json.loads(parameters.get(OPERATING_POINTS, "{}")))
        return tuple(_point(name, found) for name, found in raw.items())
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError):
        return ()  # from another version: the rest of the status is still shown


def _point(name: str, raw: Mapping[str, Any]) -> OperatingPoint:
    exits = raw.get(keys.EXITS)
    spread, computations = raw.get(keys.SPEEDUP_SPREAD), raw.get(keys.COMPUTATIONS)
    thresholds: list[float | list[float]] = raw[keys.THRESHOLDS]
    return OperatingPoint(
        name=name,
        default=bool(raw.get(keys.DEFAULT)),
        thresholds=tuple(tuple(t) if isinstance(t, list) else float(t) for t in thresholds),
        goal=_goal(raw),
        deferral=None if not exits else 1 - float(exits[0]),
        speedup=raw.get(keys.SPEEDUP),
        speedup_spread=None if spread is None else (float(spread[0]), float(spread[1])),
        computations=None if computations is None else float(computations),
        under_load=bool(raw.get(keys.UNDER_LOAD)),
    )


def _goal(raw: Mapping[str, Any]) -> str | None:
    if raw.get(keys.GUARANTEE):
        return f"guarantee: {_guarantee(raw[keys.GUARANTEE])}"
    if raw.get(keys.SET_BY_HAND):
        return "set by hand: guarantees nothing"
    budget = raw.get(keys.BUDGET)
    if not budget:
        return None
    limit = budget["limit"]
    return (
        f"budget: {budget_as_text(budget['kind'], limit if isinstance(limit, list) else [limit])}"
    )


def guarantees_from_parameters(parameters: Mapping[str, str]) -> dict[str, Guarantee]:
    """Return the guarantees in a model's configuration, by operating point.

    Raises:
        UnexpectedResponse: The parameter cannot be read, or a guarantee is not one.
    """
    text = parameters.get(OPERATING_POINTS)
    if text is None:
        return {}
    try:
        points = cast("dict[str, dict[str, Any]]", json.loads(text))
        found = {name: point.get(keys.GUARANTEE) for name, point in points.items()}
        return {name: _guarantee(raw) for name, raw in found.items() if raw is not None}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as exc:
        raise UnexpectedResponse(
            f"the parameter {OPERATING_POINTS!r} of the model's configuration cannot be read "
            f"({type(exc).__name__}: {exc}): publish the cascade again, or give --max-disagreement"
        ) from exc


def _guarantee(raw: Mapping[str, Any]) -> Guarantee:
    guarantee = Guarantee(raw["kind"], raw["limit"], raw["confidence"])
    if guarantee.kind not in GUARANTEES:
        raise ValueError(f"a guarantee of the kind {guarantee.kind!r}")
    for number in (guarantee.limit, guarantee.confidence):
        if not is_real(number) or not 0 < number < 1:
            raise ValueError(f"{number!r} is not between 0 and 1")
    return guarantee
