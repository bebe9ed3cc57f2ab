"""Figures that a reliability test has measured."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[2] / "benchmarks" / "results" / "reliability"


def record(name: str, figures: dict[str, Any]) -> None:
    """Print them; in the long form, keep them as benchmarks/results/reliability/<name>.json."""
    load = os.getloadavg()[0]
    whole = {"measured": time.strftime("%Y-%m-%d %H:%M"), "cores": os.cpu_count(), **figures}
    whole["load_average_at_the_end"] = round(load, 2)
    text = json.dumps(whole, indent=2)
    print(f"\n{name}: {text}")
    if os.environ.get("CASCADEBERT_LONG"):
        _FOLDER.mkdir(parents=True, exist_ok=True)
        (_FOLDER / f"{name}.json").write_text(text + "\n")


def rounded(value: float, digits: int = 3) -> float:
    """Enough digits to read, not more than were measured."""
    return float(f"{value:.{digits}g}")
