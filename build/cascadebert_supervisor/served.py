"""The file that tells the health check which cascades the running server has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from .repository import ServedCascade


def write_served(path: Path, cascades: Sequence[ServedCascade]) -> None:
    """Write the cascades that the server now serves."""
    content = [{"name": c.name, "stages": c.stages, "pair": c.pair} for c in cascades]
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(content), encoding="utf-8")
    aside.replace(path)


def served_cascades(path: Path) -> list[ServedCascade]:
    """Read the cascades of the running server; none until it is ready."""
    try:
        raw = cast("list[dict[str, Any]]", json.loads(path.read_text(encoding="utf-8")))
    except OSError:
        return []
    return [ServedCascade(each["name"], tuple(each["stages"]), each["pair"]) for each in raw]
