"""Pictures of the half hour from what Prometheus answers, panel by panel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .prometheus import Prometheus, firing, panels, query_of
from .scenario import BEFORE, STEP_S, length_s, phases

_GPU = "GPU"
_COLUMNS = 3


def draw(prometheus: Prometheus, path: Path) -> None:
    """Draw every panel that has a time axis, and when each alert fires."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [p for p in panels() if p["type"] == "timeseries" and _GPU not in p["title"]]
    rows = math.ceil(len(shown) / _COLUMNS)
    figure = plt.figure(figsize=(13, 2.3 * rows + 1.8), layout="constrained")
    grid = figure.add_gridspec(rows + 1, _COLUMNS)
    for number, panel in enumerate(shown):
        axes = figure.add_subplot(grid[number // _COLUMNS, number % _COLUMNS])
        _draw_panel(axes, panel, prometheus)
    axes = figure.add_subplot(grid[rows, :])
    _draw_alerts(axes, firing(prometheus))
    figure.savefig(path, dpi=80)
    plt.close(figure)
    _fewer_colours(path)


def _draw_panel(axes: Any, panel: Mapping[str, Any], prometheus: Prometheus) -> None:
    axes.set_title(panel["title"], fontsize=9, loc="left")
    percent = panel.get("fieldConfig", {}).get("defaults", {}).get("unit") == "percentunit"
    for target in panel["targets"]:
        for labels, values in prometheus.query_range(query_of(target)):
            minutes = [at / 60 for at in values]
            heights = [100 * v if percent else v for v in values.values()]
            if any(heights):
                axes.plot(minutes, heights, linewidth=1.1, label=_legend(target, labels))
    if percent:
        axes.yaxis.set_major_formatter("{x:.0f}%")
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)
    _shade(axes)
    if axes.lines:
        axes.legend(fontsize=6, frameon=False, loc="best")


def _legend(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    text: str = target.get("legendFormat") or "all"
    for name, value in labels.items():
        text = text.replace("{{" + name + "}}", value[:12])
    return text


def _draw_alerts(axes: Any, found: Mapping[str, Sequence[int]]) -> None:
    axes.set_title("Alerts that fire", fontsize=9, loc="left")
    for row, seconds in enumerate(found.values()):
        spans = [(at / 60, STEP_S / 60) for at in seconds]
        axes.broken_barh(spans, (row - 0.3, 0.6), color="#b3261e")
    axes.set_yticks(range(len(found)), list(found), fontsize=8)
    axes.set_ylim(-1.2, len(found) - 0.4)
    axes.set_xlabel("minutes", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    _shade(axes, named=True)


def _shade(axes: Any, *, named: bool = False) -> None:
    axes.set_xlim(0, length_s() / 60)
    for number, (start_s, phase) in enumerate(phases()):
        if phase is BEFORE:
            continue
        if number % 2 == 0:
            axes.axvspan(start_s / 60, start_s / 60 + phase.minutes, color="#00796b", alpha=0.08)
        if named:
            axes.text(start_s / 60 + phase.minutes / 2, -0.95, phase.name, ha="center", fontsize=7)


def _fewer_colours(path: Path) -> None:
    """A palette makes the file a third of its size."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
