"""Curves of early-exit models that were measured elsewhere, for the report's plots."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import UsageError

_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class EarlyExitCurve:
    """One method at several of its own thresholds.

    Attributes:
        name: The method.
        cost: The cost of a row, relative to the cascade's last member alone, ascending.
        accuracy: The accuracy at each cost, 0 to 1.
    """

    name: str
    cost: tuple[float, ...]
    accuracy: tuple[float, ...]


def early_exit_from_file(path: Path) -> tuple[EarlyExitCurve, ...]:
    """Read `{"curves": [{"name": "PABEE", "points": [{"cost": 0.33, "accuracy": 0.81}, …]}, …]}`.

    Raises:
        UsageError: The file is missing, or is not of this form. The message names the key and its
            value.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise UsageError(f"--early-exit: {path} does not exist") from exc
    except (OSError, ValueError) as exc:  # ValueError: not JSON, or not UTF-8
        raise UsageError(f"--early-exit: {path} is not JSON: {exc}") from exc
    try:
        top = _object(raw, "the top level", ("curves",))
        curves = _list(top["curves"], "curves")
        return tuple(_curve(value, f"curves[{i}]") for i, value in enumerate(curves))
    except UsageError as exc:
        raise UsageError(f"--early-exit: {path}: {exc}") from exc


def _curve(raw: Any, where: str) -> EarlyExitCurve:
    keys = _object(raw, where, ("name", "points"))
    name = keys["name"]
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise UsageError(
            f"{where}.name is {name!r}: give a string of 1 to {_LONGEST_NAME} printable characters"
        )
    points = sorted(
        _point(value, f"{where}.points[{i}]")
        for i, value in enumerate(_list(keys["points"], f"{where}.points"))
    )
    return EarlyExitCurve(name, tuple(cost for cost, _ in points), tuple(a for _, a in points))


def _point(raw: Any, where: str) -> tuple[float, float]:
    keys = _object(raw, where, ("cost", "accuracy"))
    cost, accuracy = (_number(keys[key], f"{where}.{key}") for key in ("cost", "accuracy"))
    if not cost > 0:
        raise UsageError(
            f"{where}.cost is {cost:g}: give a number above 0, where 1 is the last member alone"
        )
    if not 0 <= accuracy <= 1:
        raise UsageError(
            f"{where}.accuracy is {accuracy:g}: give a share from 0 to 1, not a percentage"
        )
    return cost, accuracy


def _object(raw: Any, where: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is {_short(raw)}: give an object with {' and '.join(keys)}")
    found = cast("dict[str, Any]", raw)
    for key in keys:
        if key not in found:
            raise UsageError(f"{where} has no key {key!r}: it needs {' and '.join(keys)}")
    unknown = sorted(set(found) - set(keys))
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r} in {where}: it knows {', '.join(keys)}")
    return found


def _list(raw: Any, where: str) -> list[Any]:
    if not isinstance(raw, list) or not raw:
        raise UsageError(f"{where} is {_short(raw)}: give a list of one or more")
    return cast("list[Any]", raw)


def _number(raw: Any, where: str) -> float:
    # bool is an int in Python, but no figure.
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not math.isfinite(raw):
        raise UsageError(f"{where} is {_short(raw)}: give a finite number")
    return float(raw)


def _short(raw: Any) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."
