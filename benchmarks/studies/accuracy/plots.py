"""The pictures of the study: accuracy against layers run, and DIS by objective."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..shared import panels
from .comparisons import (
    OBJECTIVES,
    alone,
    budget_methods,
    mean_over_seeds,
    member_figures,
    metric_of,
)
from .packed_logits import Packed
from .plan import DEPTH, LARGE

_SHOWN = {
    "cascade 1→6, plain": ("#0072b2", "-"),
    "cascade 1→6, dar": ("#009e73", "-"),
    "cascade 1→6, dar-distilled": ("#d55e00", "-"),
    "DeeBERT": ("#777777", "--"),
    "PABEE": ("#cc79a7", "--"),
}
_SINGLES = {"plain-distilled-1": 1, "plain-distilled-2": 2, "plain-distilled-3": 3, LARGE: DEPTH}
_COLOURS = dict(
    zip(OBJECTIVES, ("#0072b2", "#009e73", "#e69f00", "#56b4e9", "#d55e00"), strict=True)
)
_SIZE = (6.4, 4.6)

Results = Mapping[str, tuple[Packed, NDArray[np.int64]]]


def draw_trade(path: Path, results: Results) -> None:
    """Draw the task's metric against mean layers run, a panel for each task, means over seeds."""
    pyplot, figure, axes = panels(len(results), 2, _SIZE)
    for panel, (task, (packed, labels)) in zip(axes, results.items(), strict=True):
        methods = budget_methods(packed)
        for name, (colour, style) in _SHOWN.items():
            if name not in methods:
                continue
            member, curve_of = methods[name]
            curves = [curve_of(seed) for seed in packed.seeds(member)]
            layers, values = mean_over_seeds(curves, metric_of(task), labels, points=80)
            marker = "o" if name == "PABEE" else None
            panel.plot(
                layers, 100 * values, style, color=colour, label=name, marker=marker, markersize=4
            )
        for member, depth in _SINGLES.items():
            spread = alone(packed, member, labels)
            if spread is not None:
                panel.plot(
                    depth, 100 * spread.mean, "k*", markersize=9, zorder=5,
                    label="one member (distilled)" if depth == 1 else None,
                )  # fmt: skip
        panel.set(xlabel=f"layers run per row (of {DEPTH})", title=task)
        panel.set_ylabel("F1, %" if task == "mrpc" else "accuracy, %")
        panel.grid(visible=True, alpha=0.3)
    axes[0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw_confidence(path: Path, results: Results) -> None:
    """Draw the DIS of the small members by objective, a dot for each seed, a bar for the mean."""
    pyplot, figure, axes = panels(len(results), 2, _SIZE)
    for panel, (task, (packed, labels)) in zip(axes, results.items(), strict=True):
        ticks: dict[str, float] = {}
        for layers in (1, 2):
            for objective in OBJECTIVES:
                found = member_figures(packed, objective, layers, labels)
                if found is None:
                    continue
                at = len(ticks) + (0.6 if layers == 2 else 0)
                panel.bar(at, found.dis.mean, color=_COLOURS[objective], alpha=0.75)
                panel.plot([at] * len(found.dis.values), found.dis.values, "k.", markersize=5)
                ticks[f"{objective}, {layers}"] = at
        panel.set_xticks(list(ticks.values()), list(ticks), rotation=60, ha="right", fontsize=8)
        lows = [min(line.get_ydata()) for line in panel.lines] or [50.0]
        panel.set(title=f"{task}: DIS (objective, layers)", ylim=(min(50.0, *lows) - 2, None))
        panel.grid(visible=True, axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
