"""A picture of broken promises and of what keeping them costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascadebert_build.extras import needs_extra

from .trials import Outcome

_COLOURS = {"promise": "#0072b2", "validation set": "#d55e00"}


def draw_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Above, how often a promise is broken, by rows; below, the deferral beside the oracle's.

    Args:
        path: of the PNG.
        outcomes: of all populations; a column for each kind and limit.
    """
    with needs_extra("build"):
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    kinds = list(dict.fromkeys((o.kind, o.limit) for o in outcomes))
    figure, axes = pyplot.subplots(
        2, len(kinds), figsize=(4.6 * len(kinds), 7), squeeze=False, layout="constrained"
    )
    for column, (kind, limit) in enumerate(kinds):
        own = [o for o in outcomes if (o.kind, o.limit) == (kind, limit)]
        above: Any = axes[0][column]
        below: Any = axes[1][column]
        for method, colour in _COLOURS.items():
            for population in dict.fromkeys(o.population for o in own):
                line = [o for o in own if o.method == method and o.population == population]
                sizes = [o.n for o in line]
                above.plot(sizes, [100 * o.broken for o in line], "o-", color=colour, alpha=0.55)
                extra = [100 * (o.deferral - o.oracle) for o in line if o.oracle is not None]
                if extra:
                    below.plot(sizes, extra, "o-", color=colour, alpha=0.55)
            above.plot([], [], "o-", color=colour, label=method)
        allowed = 100 * (1 - own[0].confidence)
        above.axhline(allowed, color="k", ls="--", label=f"allowed: {allowed:.0f}%")
        below.axhline(0, color="k", ls="--", label="oracle")
        title = f"{kind.removeprefix('max_').replace('_', ' ')} at most {100 * limit:g}%"
        above.set(title=title, ylabel="promise broken, % of the draws", xscale="log", ylim=(0, 100))
        below.set(xlabel="held-out rows", ylabel="deferred beyond the oracle, points", xscale="log")
        for panel in (above, below):
            panel.grid(visible=True, alpha=0.3)
            panel.set_xticks(
                sorted({o.n for o in own}), [str(n) for n in sorted({o.n for o in own})]
            )
            panel.minorticks_off()
        if column == 0:
            above.legend(fontsize=9)
    figure.suptitle("a line for every population")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
