"""The plots of the bench's report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.report.plots import Mark, Plot
from cascadebert_build.report.svg import INK, MUTED, figure_of, svg_from_figure

from ..tools.ratio import ratio_by_repeat
from .names import ACCURACY, BLOCKING, CASCADE, CLOSED, LARGE, SHARES, THE_LIMIT
from .ratios import rates_of
from .results import Results
from .speedups import Speedup
from .sweeps import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours (2008), which colour-blind readers can tell apart. Ours is the blue.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8c6d31",
    "#7b4173", "#6b6ecf",
)  # fmt: skip
_MARKERS = "osD^vPX<>*"
_Key = list[tuple[Mark, str, str]]


def latency_plot(results: Results, workload: str) -> Plot | None:
    """Draw median latency against throughput, a point for each concurrency.

    Contenders without a latency of all requests are left out. Return None if no one is left.
    """
    key: _Key = []
    with figure_of(4.2) as figure:
        axes = figure.subplots()
        for i, name in enumerate(results.contenders(CLOSED, workload)):  # ours is the first
            points = _curve(results, workload, name, "throughput_rps", "all.p50_ms")
            if len(points):
                ours = name == CASCADE
                colour = _COLOURS[i % len(_COLOURS)]
                axes.plot(
                    *points.T, "-", color=colour, ms=5, marker=_MARKERS[i % len(_MARKERS)],
                    lw=2.4 if ours else 1.3, zorder=4 if ours else 3,
                )  # fmt: skip
                key.append(("line", colour, name))
        if not key:
            return None
        bare = rates_of(results, workload, THE_LIMIT)
        if bare:
            axes.axvline(median(bare.values()), color=MUTED, ls="--", lw=1.4)
            key.append(("dashed", MUTED, "limit: the bare runtime, no server"))
        axes.set(xlabel="requests per second", ylabel="median latency, ms", yscale="log")
        axes.set_xlim(left=0)
        _plain_numbers(axes)
        svg = _svg(figure, "latency", workload, "median latency against throughput")
    return Plot(svg, tuple(key))


def exits_plot(results: Results, workload: str) -> Plot | None:
    """Draw median latency by exit stage, ours and the blocking cascade's."""
    key: _Key = []
    ticks: set[int] = set()
    with figure_of(3.6) as figure:
        axes = figure.subplots()
        for name, colour in zip((CASCADE, BLOCKING), _COLOURS, strict=False):
            for kind, style, mark in (("exited", "-", "line"), ("deferred", "--", "dashed")):
                found = _curve(results, workload, name, "of_load.concurrency", f"{kind}.p50_ms")
                if len(found):
                    axes.plot(*found.T, style, color=colour, marker="o", ms=4)
                    key.append((cast("Mark", mark), colour, f"{name}, {kind}"))
                    ticks.update(found[:, 0].astype(int).tolist())
        if not key:
            return None
        axes.set(
            xlabel="clients at a time", ylabel="median latency, ms", xscale="log", yscale="log"
        )
        axes.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
        axes.minorticks_off()
        _plain_numbers(axes)
        svg = _svg(figure, "exits", workload, "latency of exited and deferred requests")
    return Plot(svg, tuple(key))


def share_plot(speedups: Sequence[Speedup], workload: str) -> Plot | None:
    """Draw throughput over the large member's against the share of deferred rows."""
    if not speedups:
        return None
    key: _Key = [("line", _COLOURS[0], "cascade, lowest to highest repeat")]
    with figure_of(3.6) as figure:
        axes = figure.subplots()
        xs = [100 * speedup.share for speedup in speedups]
        measured = [speedup.measured for speedup in speedups]
        lowest, highest = [m.lowest for m in measured], [m.highest for m in measured]
        axes.vlines(xs, lowest, highest, color=_COLOURS[0])
        axes.plot(xs, [m.median for m in measured], "o-", color=_COLOURS[0], ms=5)
        expected = [(100 * s.share, s.expected) for s in speedups if s.expected is not None]
        if expected:
            axes.plot(*zip(*expected, strict=True), "--", color=INK, lw=1.4)
            key.append(("dashed", INK, "expected from the cost of the stages"))
        axes.axhline(1, color=MUTED, ls=":", lw=1.4)
        key.append(("dotted", MUTED, "the large member alone"))
        axes.set(xlabel="rows deferred, %", ylabel="throughput over the large member's")
        axes.set_ylim(bottom=0)
        svg = _svg(figure, "shares", workload, "throughput against deferral rate")
    return Plot(svg, tuple(key))


def accuracy_plot(results: Results, workload: str) -> Plot | None:
    """Draw accuracy against cost: the members alone, and the cascade at every share.

    Return None if accuracies or the throughput of the large member were not measured.
    """
    large = results.throughput(SHARES, workload, LARGE)
    points: dict[str, tuple[float, float]] = {}
    for name in results.contenders(ACCURACY, workload):
        cost = ratio_by_repeat(large, results.throughput(SHARES, workload, name))
        right = results.median(ACCURACY, workload, name, "accuracy")
        if cost is not None and right is not None:
            points[name] = (cost.median, 100 * right)
    if not points:
        return None
    ours = sorted(place for name, place in points.items() if name.startswith(CASCADE))
    with figure_of(3.6) as figure:
        axes = figure.subplots()
        axes.plot([x for x, _ in ours], [y for _, y in ours], "o-", color=_COLOURS[0], ms=5)
        for name, place in points.items():
            if not name.startswith(CASCADE):
                axes.plot(*place, "s", color=INK, ms=7)
                axes.annotate(
                    name, place, xytext=(0, -9), textcoords="offset points", ha="center",
                    va="top", fontsize=9.5, zorder=6,
                    bbox={"boxstyle": "square,pad=0.1", "facecolor": "white",
                          "edgecolor": "none", "alpha": 0.75},
                )  # fmt: skip
        axes.margins(x=0.2, y=0.25)
        axes.set(xlabel="cost of a request, served (large alone = 1)", ylabel="accuracy, %")
        svg = _svg(figure, "accuracy", workload, "accuracy against cost")
    members = ("square", INK, "a member alone")
    return Plot(svg, (("line", _COLOURS[0], "cascade, over deferral rates"), members))


def bar_plot(sweep: Sweep) -> Plot:
    """Draw the throughput of every setting of a sweep, with its lowest and highest repeat."""
    points = sweep.points
    with figure_of(0.9 + 0.34 * len(points)) as figure:
        axes = figure.subplots()
        for i, point in enumerate(points):
            axes.barh(i, point.rate_rps, color=_COLOURS[0], height=0.62)
            axes.hlines(i, point.rates_rps[0], point.rates_rps[-1], color=INK, lw=1.4)
        axes.set_yticks(range(len(points)), [point.name for point in points])
        axes.invert_yaxis()
        axes.margins(x=0.08)  # the last number of the axis has room
        axes.set(xlabel="requests per second")
        kind = f"sweep-{sweep.section}"
        svg = _svg(figure, kind, sweep.workload, f"throughput by {sweep.section}")
    return Plot(svg, (("box", _COLOURS[0], "median"), ("line", INK, "lowest to highest repeat")))


def _curve(results: Results, workload: str, contender: str, x: str, y: str) -> NDArray[np.float64]:
    """Return two figures of a contender at every load that has both, lightest first: (n, 2)."""
    return results.loads(CLOSED, workload, contender).reindex(columns=[x, y]).dropna().to_numpy()


def _plain_numbers(axes: Axes) -> None:
    """Label a logarithmic axis with 1, 2, 5, 10, … instead of powers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _svg(figure: Any, kind: str, workload: str, description: str) -> str:
    name = f"{kind}-{workload.replace('/', '-')}"
    return svg_from_figure(figure, name, f"{description}, {workload}")
