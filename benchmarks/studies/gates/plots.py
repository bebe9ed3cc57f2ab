"""The picture of the study: deferral at a promised 1% relative to the largest probability's."""

from __future__ import annotations

from pathlib import Path

from ..shared import panels
from .comparisons import WANTED, Ratio, mean_over_tasks
from .results import Results, gate_names, ratios_of

_COLOURS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00")
_TARGET = 0.85
_GAP = 0.16


def draw_ratios(path: Path, results: Results) -> None:
    """Draw each gate's ratio on each task and on average, with its interval.

    On the right, two members at one stage, by the cost of a row.
    """
    pyplot, figure, axes = panels(2, 2, (6.4, 4.8))
    titles = "deferral, one small member", "cost of a row, two small members"
    kinds = zip(axes, (results.singles, results.twins), titles, (False, True), strict=True)
    for panel, found, title, of_cost in kinds:
        tasks = list(dict.fromkeys(of[0].group.task for of in found))
        places = {task: -i for i, task in enumerate((*tasks, "mean over tasks"))}
        for number, gate in enumerate(gate_names(found)):
            ratios = ratios_of(found, gate, WANTED, of_cost=of_cost)
            own = {
                task: Ratio.mean([r for t, r in ratios if t == task])
                for task in dict.fromkeys(t for t, _ in ratios)
            }
            own["mean over tasks"] = mean_over_tasks(ratios)
            for task, ratio in own.items():
                of = ratio.interval
                panel.errorbar(
                    of.value, places[task] + (1.5 - number) * _GAP,
                    xerr=[[max(0.0, of.value - of.low)], [max(0.0, of.high - of.value)]],
                    fmt="o", color=_COLOURS[number], markersize=4, capsize=2,
                    label=gate if task == "mean over tasks" else None,
                )  # fmt: skip
        panel.axvline(1, color="k", lw=1)
        panel.axvline(_TARGET, color="k", ls="--", lw=1, label=f"wanted: {_TARGET}")
        panel.set_yticks(list(places.values()), list(places))
        panel.set(title=title, xlabel=f"relative to the largest probability, {WANTED}")
        panel.grid(visible=True, axis="x", alpha=0.3)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
