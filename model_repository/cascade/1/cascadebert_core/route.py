"""Request parameters to a route: which stages see the rows, and at which thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from . import contract
from .errors import InvalidArgument
from .gate import ALWAYS_EXIT
from .policy import Policy, Threshold

# Prefixes of parameters that Triton and its clients set for themselves.
_FOREIGN = ("sequence_", "triton_", "binary_data_output", "priority", "timeout", "headers")

_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Route:
    """The stages that may see a request's rows, and the thresholds at which the rows exit.

    Attributes:
        first: The stage that sees the rows first.
        thresholds: One for each stage of the policy, a number or float32 of shape (n_labels,). The
            last stage of the route has `gate.ALWAYS_EXIT`.
        last: The stage that must answer.
        operating_point: The policy's name for these thresholds; None if the caller chose them.
        follows_load: Whether another operating point may take its place under load: the caller has
            chosen nothing, and the policy has one.
    """

    first: int
    thresholds: tuple[np.float32 | NDArray[np.float32], ...]
    last: int
    operating_point: str | None = None
    follows_load: bool = False


def route_from_thresholds(
    thresholds: Sequence[Threshold], operating_point: str | None = None
) -> Route:
    """Return a route through all stages; `thresholds` has one for each stage but the last."""
    values = (*(_as_float32(threshold) for threshold in thresholds), ALWAYS_EXIT)
    return Route(first=0, thresholds=values, last=len(thresholds), operating_point=operating_point)


def _as_float32(threshold: Threshold) -> np.float32 | NDArray[np.float32]:
    if isinstance(threshold, tuple):
        return np.array(threshold, dtype=np.float32)
    return np.float32(threshold)


class Router:
    """Turns request parameters into routes; the routes of operating points are made once."""

    def __init__(self, policy: Policy) -> None:
        self._n_stages = len(policy.stages)
        self._points = {
            name: route_from_thresholds(thresholds, name)
            for name, thresholds in policy.operating_points.items()
        }
        self.default = self._points[policy.default_operating_point]
        if policy.under_load is not None:
            self.default = replace(self.default, follows_load=True)

    def route_from_parameters(self, parameters: Mapping[str, object]) -> Route:
        """Return the route that a request's parameters choose, or the default route.

        Raises:
            InvalidArgument: A parameter is unknown, there is more than one of
                `contract.ROUTE_PARAMETERS`, or this policy cannot serve the value.
        """
        own = {
            k: v
            for k, v in parameters.items()
            if not k.startswith(_FOREIGN) and k not in contract.BESIDE_ROUTE
        }
        if not own:
            return self.default
        unknown = sorted(set(own) - set(contract.ROUTE_PARAMETERS))
        if unknown:
            raise InvalidArgument(
                f"unknown request parameter {_shown(unknown[0])}: give one of "
                f"{', '.join((*contract.ROUTE_PARAMETERS, *contract.BESIDE_ROUTE))}, or none"
            )
        if len(own) > 1:
            raise InvalidArgument(
                f"request parameters {', '.join(sorted(own))} exclude each other: give one of them"
            )
        ((name, value),) = own.items()
        if name == contract.OPERATING_POINT:
            return self._at_operating_point(value)
        if name == contract.THRESHOLD:
            return self._at_threshold(value)
        return self._at_stage(value)

    def _at_operating_point(self, value: object) -> Route:
        route = self._points.get(value) if isinstance(value, str) else None
        if route is None:
            raise InvalidArgument(
                f"unknown operating point {_shown(value)}: this policy has "
                f"{', '.join(sorted(self._points))}"
            )
        return route

    def _at_threshold(self, value: object) -> Route:
        parts = value.split(",") if isinstance(value, str) else [value]
        thresholds = tuple(_threshold(part, value) for part in parts)
        n = self._n_stages - 1
        if len(thresholds) == 1:
            thresholds *= n
        elif len(thresholds) != n:
            raise InvalidArgument(
                f"threshold has {len(thresholds)} numbers, {_shown(value)}: give one, or one for "
                f"each of the {n} stages that may defer"
            )
        return route_from_thresholds(thresholds)

    def _at_stage(self, value: object) -> Route:
        # Triton's HTTP endpoint may pass an integer as a string or a double.
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        allowed = [str(stage) for stage in range(self._n_stages)]
        if isinstance(value, bool) or text not in allowed:
            raise InvalidArgument(
                f"stage is {_shown(text)}: give an integer from 0 to {self._n_stages - 1}"
            )
        stage = allowed.index(text)
        thresholds = (ALWAYS_EXIT,) * self._n_stages
        return Route(first=stage, thresholds=thresholds, last=stage)


def _threshold(part: object, value: object) -> float:
    """Return a number of the parameter `value`."""
    if isinstance(part, bool) or not isinstance(part, (str, int, float)):
        raise _no_threshold(value)
    try:
        threshold = float(part)
    except (ValueError, OverflowError) as exc:
        raise _no_threshold(value) from exc
    if math.isnan(threshold) or not 0.0 <= threshold <= 1.0:
        raise _no_threshold(value)
    return threshold


def _no_threshold(value: object) -> InvalidArgument:
    return InvalidArgument(f"threshold is {_shown(value)}: give a number from 0 to 1")


def _shown(value: object) -> str:
    """Return a value for a message, shortened, since a response's status has little room."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
