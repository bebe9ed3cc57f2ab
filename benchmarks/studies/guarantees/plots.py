"""The picture of the study: broken guarantees, and what keeping them costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..shared import panels
from .trials import GUARANTEE, VALIDATION_SET

_COLOURS = {GUARANTEE: "#0072b2", VALIDATION_SET: "#d55e00"}


def draw_outcomes(path: Path, outcomes: Any) -> None:
    """Draw how often a guarantee is broken, by rows, and below it the deferral over the oracle's.

    Args:
        path: The PNG file.
        outcomes: A frame of `Outcome`s. Each kind and limit has a column of panels.
    """
    kinds = list(outcomes.groupby(["kind", "limit"], sort=False))
    pyplot, figure, axes = panels(2 * len(kinds), len(kinds), (4.6, 3.5))
    for column, ((kind, limit), own) in enumerate(kinds):
        above, below = axes[column], axes[column + len(kinds)]
        for (method, _), line in own.groupby(["method", "population"], sort=False):
            style = {"color": _COLOURS[method], "alpha": 0.55}
            above.plot(line["n"], 100 * line["broken"], "o-", **style)
            known = line.dropna(subset=["oracle"])
            below.plot(known["n"], 100 * (known["deferral"] - known["oracle"]), "o-", **style)
        for method, colour in _COLOURS.items():
            above.plot([], [], "o-", color=colour, label=method)
        allowed = 100 * (1 - own["confidence"].iloc[0])
        above.axhline(allowed, color="k", ls="--", label=f"allowed: {allowed:.0f}%")
        below.axhline(0, color="k", ls="--", label="oracle")
        title = f"{kind.removeprefix('max_').replace('_', ' ')} at most {100 * limit:g}%"
        above.set(
            title=title, ylabel="guarantee broken, % of the draws", xscale="log", ylim=(0, 100)
        )
        below.set(xlabel="held-out rows", ylabel="deferred beyond the oracle, points", xscale="log")
        sizes = sorted(own["n"].unique())
        for panel in (above, below):
            panel.grid(visible=True, alpha=0.3)
            panel.set_xticks(sizes, [str(n) for n in sizes])
            panel.minorticks_off()
    axes[0].legend(fontsize=9)
    figure.suptitle("a line for each population")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
