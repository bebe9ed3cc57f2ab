"""The curve of quality against cost in a cascade's published configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from cascadebert_core import published_points as keys
from cascadebert_core.contract import COST_CURVE

from ._checks import is_real


@dataclass(frozen=True, slots=True)
class CostCurve:
    """What a cascade's thresholds trade, as `tune` found it on its held-out rows.

    A pair is the mean cost of a row, relative to the last stage alone, and the quality, 0 to 1.

    Attributes:
        quality: "accuracy", or "agreement" with the last stage if the rows had no labels.
        rows: Number of the rows.
        curve: Pairs over one threshold for all stages, by cost.
        last: The pair of the last stage alone.
        points: The pair of each operating point, by its name.
    """

    quality: str
    rows: int
    curve: tuple[tuple[float, float], ...]
    last: tuple[float, float]
    points: dict[str, tuple[float, float]]


def cost_curve_from_parameters(parameters: Mapping[str, str]) -> CostCurve | None:
    """Return the curve of a model's configuration; None if there is none that can be read."""
    try:
        raw = cast("dict[str, Any] | None", json.loads(parameters.get(COST_CURVE, "null")))
        return None if raw is None else CostCurve(
            quality=str(raw[keys.QUALITY]),
            rows=int(raw[keys.ROWS]),
            curve=tuple(_pair(each) for each in raw[keys.CURVE]),
            last=_pair(raw[keys.LAST]),
            points={str(name): _pair(each) for name, each in raw[keys.POINTS].items()},
        )  # fmt: skip
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError):
        return None  # from another version: the rest of the status is still shown


def _pair(raw: Any) -> tuple[float, float]:
    cost, quality = raw
    if not (is_real(cost) and is_real(quality)):
        raise ValueError(f"{raw!r} are not two numbers")
    return float(cost), float(quality)
