"""Pictures of complete members: the metric against multiply-adds, by task and on average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shared import panels
from .comparisons import alone, mean_over_seeds, metric_of
from .complete_comparisons import methods_of
from .complete_costs import DEPTH, MULTIPLY_ADDS
from .packed_logits import Packed
from .plan import LARGE

# By task: the packed runs, and the labels of the development rows, shape (n,).
Results = dict[str, tuple[Packed, NDArray[np.int64]]]

_SHOWN = {
    "cascade 3→12, plain-distilled": ("#009e73", "-"),
    "cascade 6→12, plain": ("#56b4e9", "-"),
    "cascade 6→12, plain-distilled": ("#0072b2", "-"),
    "DeeBERT": ("#777777", "--"),
    "PABEE": ("#cc79a7", "--"),
}
# On average: the name in the legend, the colour and the style.
_SHOWN_ON_AVERAGE = {
    "cascade 6→12, plain-distilled": ("cascade of 6 and 12 layers", "#0072b2", "-"),
    "cascade 3→12, plain-distilled": ("cascade of 3 and 12 layers", "#009e73", "-"),
    "DeeBERT": ("early exits of the large model (DeeBERT)", "#777777", "--"),
    "PABEE": ("early exits of the large model (PABEE)", "#cc79a7", "--"),
}
_SINGLES_ON_AVERAGE = (
    "plain-distilled-3",
    "plain-distilled-6",
    *(f"cut-distilled-{k}" for k in (1, 2, 3)),
)
_COST = "computations a row, of the large model's"
_POINTS = 80

Line = tuple[NDArray[np.float64], NDArray[np.float64]]


def draw_tasks(path: Path, results: Results) -> None:
    """Draw the task's metric against multiply-adds, a panel for each task, means over seeds."""
    pyplot, figure, axes = panels(len(results), 3, (5.2, 4.0))
    for panel, (task, (packed, labels)) in zip(axes, results.items(), strict=True):
        for name, (colour, style) in _SHOWN.items():
            if (line := _line(packed, labels, name)) is not None:
                cost, values = line
                panel.plot(cost, 100 * values, style, color=colour, label=name)
        for member, cost in {**MULTIPLY_ADDS.singles(), LARGE: float(DEPTH)}.items():
            found = alone(packed, member, labels)
            if found is not None and not member.startswith("plain-distilled"):
                _star(panel, cost / DEPTH, 100 * found.mean, member)
        panel.set(xlabel=_COST, title=task, xscale="log")
        panel.set_ylabel(
            {"mrpc": "F1, %", "cola": "Matthews correlation, %"}.get(task, "accuracy, %")
        )
        panel.grid(visible=True, alpha=0.3, which="both")
    axes[0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw_mean(path: Path, results: Results) -> None:
    """Draw the share of the large member's metric against multiply-adds, the mean over tasks."""
    pyplot, figure, (panel,) = panels(1, 1, (7.2, 4.2))
    for name, (shown, colour, style) in _SHOWN_ON_AVERAGE.items():
        if (line := mean_over_tasks(results, name)) is not None:
            cost, values = line
            panel.plot(cost, 100 * values, style, color=colour, label=shown, linewidth=2)
    costs = MULTIPLY_ADDS.singles()
    for member in _SINGLES_ON_AVERAGE:
        shares = [_share(*of_task, member) for of_task in results.values()]
        known = [share for share in shares if share is not None]
        if len(known) == len(shares):
            _star(panel, costs[member] / DEPTH, 100 * float(np.mean(known)), _single_name(member))
    _star(panel, 1.0, 100.0, "12 layers")
    ticks = (1 / 16, 1 / 8, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1)
    panel.set(xscale="log", xlabel=_COST, ylabel="metric, % of the large model's")
    panel.set_xticks(ticks, [f"1/{1 / tick:.0f}" if tick < 1 else "1" for tick in ticks])
    panel.minorticks_off()
    panel.set_title(f"mean of {len(results)} GLUE tasks")
    panel.grid(visible=True, alpha=0.3)
    panel.legend(fontsize=9, loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def mean_over_tasks(results: Results, method: str) -> Line | None:
    """Return costs and a method's mean share of the large member's metric at each.

    Args:
        results: The tasks.
        method: A name of `methods_of`.

    Returns:
        The costs, as shares of the large member's, from where the method exists on every task; and
        the mean over tasks. None if a task lacks it.
    """
    lines: list[Line] = []
    for packed, labels in results.values():
        line, whole = _line(packed, labels, method), alone(packed, LARGE, labels)
        if line is None or whole is None:
            return None
        lines.append((line[0], line[1] / whole.mean))
    least = max(float(cost.min()) for cost, _ in lines)
    grid = np.geomspace(least, 1.0, _POINTS)
    return grid, np.mean([np.interp(grid, cost, values) for cost, values in lines], axis=0)


def _line(packed: Packed, labels: NDArray[np.int64], name: str) -> Line | None:
    """Return costs, as shares of the large member's, and the metric there, means over seeds."""
    methods = methods_of(packed)
    if name not in methods:
        return None
    seeds, curve_of = methods[name]
    curves = [curve_of(seed) for seed in seeds]
    cost, values = mean_over_seeds(curves, metric_of(packed.task), labels, _POINTS, DEPTH)
    return cost / DEPTH, values


def _share(packed: Packed, labels: NDArray[np.int64], member: str) -> float | None:
    own, whole = alone(packed, member, labels), alone(packed, LARGE, labels)
    return None if own is None or whole is None else own.mean / whole.mean


def _single_name(member: str) -> str:
    kind, _, depth = member.split("-")
    return f"{depth} layers" if kind == "plain" else f"first {depth} of the large"


def _star(panel: Any, cost: float, value: float, name: str) -> None:
    panel.plot(cost, value, "k*", markersize=8, zorder=5)
    panel.annotate(name, (cost, value), fontsize=7, xytext=(4, 3), textcoords="offset points")
