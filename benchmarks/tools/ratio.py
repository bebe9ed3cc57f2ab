"""Ratios of benchmarks, and results as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_engine.files import write_text

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio taken pair by pair, since the machine may change between pairs.

    Attributes:
        median, lowest, highest: over the pairs.
    """

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}–{self.highest:.2f})"


def ratio_of(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Numerators over denominators, one pair each."""
    ratios = np.array(numerators) / np.array(denominators)
    return Ratio(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))


def write_report(path: Path, summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Write a result file whole or not at all."""
    write_text(path, json.dumps({"summary": summary, "rows": rows}, indent=1) + "\n")
