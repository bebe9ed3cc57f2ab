"""A ratio of two measurements that were repeated side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio, taken repeat by repeat, because the machine may change between repeats."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}–{self.highest:.2f})"


def ratio_of(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Divide numerators by denominators, one pair for each repeat."""
    ratios = np.array(numerators) / np.array(denominators)
    return Ratio(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))


def ratio_by_repeat(ours: Mapping[int, Any], theirs: Mapping[int, Any]) -> Ratio | None:
    """Divide figures by repeat. Return None if no repeat has both."""
    both = [repeat for repeat in ours if repeat in theirs]
    return ratio_of([ours[i] for i in both], [theirs[i] for i in both]) if both else None
