"""Pictures of the evidence: accuracy against layers run, and what objectives do to confidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.early_exit.exit_curves import Curve
from cascadebert_build.extras import needs_extra

from .comparisons import OBJECTIVES, alone, budget_methods, member_figures, member_of, metric_of
from .packed_logits import Packed
from .plan import DEPTH, LARGE

_SHOWN = {
    "cascade 1→6, plain": ("#0072b2", "-"),
    "cascade 1→6, dar": ("#009e73", "-"),
    "cascade 1→6, dar-distilled": ("#d55e00", "-"),
    "DeeBERT": ("#777777", "--"),
    "PABEE": ("#cc79a7", "--"),
}
_COLOURS = dict(
    zip(OBJECTIVES, ("#0072b2", "#009e73", "#e69f00", "#56b4e9", "#d55e00"), strict=True)
)


def draw_trade(path: Path, results: Mapping[str, tuple[Packed, NDArray[np.int64]]]) -> None:
    """The task's metric against mean layers run, a panel a task, means over seeds."""
    pyplot = _pyplot()
    figure, axes = _panels(pyplot, len(results))
    for panel, (task, (packed, labels)) in zip(axes, results.items(), strict=True):
        methods = budget_methods(packed, task)
        for name, (colour, style) in _SHOWN.items():
            if name not in methods:
                continue
            seeds = packed.seeds(member_of(name), task)
            layers, values = _mean_curve(task, methods[name], seeds, labels)
            marker = "o" if name == "PABEE" else None
            panel.plot(layers, values, style, color=colour, label=name, marker=marker, markersize=4)
        for member, layers in (
            ("plain-distilled-1", 1), ("plain-distilled-2", 2), ("plain-distilled-3", 3),
            (LARGE, DEPTH),
        ):  # fmt: skip
            spread = alone(packed, task, member, labels)
            if spread is not None:
                panel.plot(
                    layers, 100 * spread.mean, "k*", markersize=9, zorder=5,
                    label="one member (distilled)" if layers == 1 else None,
                )  # fmt: skip
        panel.set(xlabel=f"layers run per row (of {DEPTH})", title=task)
        panel.set_ylabel("F1, %" if task == "mrpc" else "accuracy, %")
        panel.grid(visible=True, alpha=0.3)
    axes[0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw_confidence(path: Path, results: Mapping[str, tuple[Packed, NDArray[np.int64]]]) -> None:
    """DIS of the small members by objective, a dot for every seed, a bar for the mean."""
    pyplot = _pyplot()
    figure, axes = _panels(pyplot, len(results))
    for panel, (task, (packed, labels)) in zip(axes, results.items(), strict=True):
        ticks: list[str] = []
        for layers in (1, 2):
            for objective in OBJECTIVES:
                found = member_figures(packed, task, objective, layers, labels)
                if found is None:
                    continue
                at = len(ticks) + (0.6 if layers == 2 else 0)
                panel.bar(at, found.dis.mean, color=_COLOURS[objective], alpha=0.75)
                panel.plot([at] * len(found.dis.values), found.dis.values, "k.", markersize=5)
                ticks.append(f"{objective}, {layers}")
        places = [i + (0.6 if text.endswith("2") else 0) for i, text in enumerate(ticks)]
        panel.set_xticks(places, ticks, rotation=60, ha="right", fontsize=8)
        lows = [min(line.get_ydata()) for line in panel.lines] or [50.0]
        panel.set(title=f"{task}: DIS (objective, layers)", ylim=(min(50.0, *lows) - 2, None))
        panel.grid(visible=True, axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _mean_curve(
    task: str, curve_of: Callable[[int], Curve], seeds: Sequence[int], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metric over a grid of layers, the mean of the seeds; PABEE's few points stay points."""
    metric = metric_of(task)
    found = []
    curves = [curve_of(seed) for seed in seeds]
    if len(curves[0].settings) <= DEPTH:
        layers = np.mean([c.layers for c in curves], axis=0)
        values = np.mean([[metric(p, labels) for p in c.predicted] for c in curves], axis=0)
        return layers, 100 * values
    grid = np.linspace(max(c.layers.min() for c in curves), DEPTH, 80)
    for curve in curves:
        values = [metric(predicted, labels) for predicted in curve.predicted]
        found.append(np.interp(grid, curve.layers, values))
    return grid, 100 * np.mean(found, axis=0)


def _pyplot() -> Any:
    with needs_extra("build"):
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    return pyplot


def _panels(pyplot: Any, n: int) -> tuple[Any, list[Any]]:
    columns = min(2, n)
    rows = -(-n // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(6.4 * columns, 4.6 * rows), squeeze=False, layout="constrained"
    )
    panels = list(axes.ravel())
    for unused in panels[n:]:
        unused.set_axis_off()
    return figure, panels[:n]
