"""The plots of the bench's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cascadebert_build.report.plots import Mark, Plot
from cascadebert_build.report.svg import INK, MUTED, figure_of, svg_from_figure

from .cascade_settings import CASCADE, EQUAL_SHARES
from .plan import USUAL_SHARE
from .results import Figures
from .sections import accuracy, limit, shares
from .sections import closed_loop as closed
from .speedups import LARGE, Speedup
from .sweeps import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours (2008), which colour-blind readers can tell apart; ours is the blue.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8c6d31",
    "#7b4173", "#6b6ecf",
)  # fmt: skip
_MARKERS = "osD^vPX<>*"
_OURS = CASCADE
# Of the same colour as ours.
_STYLES = {CASCADE: "-", EQUAL_SHARES: ":"}
_MARKS: dict[str, Mark] = {"-": "line", ":": "dotted", "--": "dashed"}
_Key = list[tuple[Mark, str, str]]
_KINDS: tuple[tuple[str, str, Mark], ...] = (("exited", "-", "line"), ("deferred", "--", "dashed"))


def latency_plot(figures: Figures, scene: str) -> Plot | None:
    """Median latency against throughput, a point for each concurrency; None: not measured.

    Of the contenders that have a latency of all requests.
    """
    key: _Key = []
    with figure_of(4.2) as figure:
        axes = figure.subplots()
        names = figures.contenders(closed.SECTION, scene)
        others = [name for name in names if name not in _STYLES]
        for name in names:
            points = _curve(figures, scene, name, "all.p50_ms")
            if not points:
                continue
            i = 0 if name in _STYLES else 1 + others.index(name)
            colour, style = _COLOURS[i % len(_COLOURS)], _STYLES.get(name, "-")
            axes.plot(
                [rate for rate, _ in points], [ms for _, ms in points], style, color=colour,
                marker=_MARKERS[i % len(_MARKERS)], ms=5, lw=2.4 if name == _OURS else 1.3,
                zorder=4 if name == _OURS else 3,
            )  # fmt: skip
            key.append((_MARKS[style], colour, name))
        if not key:
            return None
        usual = shares.name_of_share(USUAL_SHARE)
        bare = figures.median(limit.SECTION, scene, usual, None, "rows_per_s")
        if bare is not None:
            axes.axvline(bare, color=MUTED, ls="--", lw=1.4)
            key.append(("dashed", MUTED, "limit: the bare runtime, no server"))
        axes.set(xlabel="requests a second", ylabel="median latency, ms", yscale="log")
        axes.set_xlim(left=0)
        _plain_numbers(axes)
        svg = svg_from_figure(
            figure, _id("latency", scene), f"median latency against throughput, {scene}"
        )
    return Plot(svg, tuple(key))


def exits_plot(figures: Figures, scene: str) -> Plot | None:
    """Median latency by exit stage, ours and the blocking cascade's; None: not measured."""
    key: _Key = []
    ticks: set[int] = set()
    with figure_of(3.6) as figure:
        axes = figure.subplots()
        for name, colour in zip((_OURS, "blocking"), _COLOURS, strict=False):
            for kind, style, mark in _KINDS:
                loads = figures.loads(closed.SECTION, scene, name)
                found = [
                    (_concurrency(load), ms)
                    for load in loads
                    if (ms := figures.median(closed.SECTION, scene, name, load, f"{kind}.p50_ms"))
                    is not None
                ]
                if not found:
                    continue
                axes.plot(
                    [x for x, _ in found], [y for _, y in found], style, color=colour, marker="o",
                    ms=4,
                )  # fmt: skip
                key.append((mark, colour, f"{name}, {kind}"))
                ticks.update(x for x, _ in found)
        if not key:
            return None
        axes.set(
            xlabel="clients at a time", ylabel="median latency, ms", xscale="log", yscale="log"
        )
        axes.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
        axes.minorticks_off()
        _plain_numbers(axes)
        svg = svg_from_figure(
            figure, _id("exits", scene), f"latency of exited and deferred requests, {scene}"
        )
    return Plot(svg, tuple(key))


def share_plot(speedups: Sequence[Speedup], scene: str) -> Plot | None:
    """How many times the large member's throughput, against the share of deferred rows.

    Args:
        speedups: by share; None is drawn of none.
        scene: that they are of.
    """
    if not speedups:
        return None
    key: _Key = [("line", _COLOURS[0], "cascade, lowest to highest repeat")]
    with figure_of(3.6) as figure:
        axes = figure.subplots()
        xs = [100 * speedup.share for speedup in speedups]
        measured = [speedup.measured for speedup in speedups]
        axes.vlines(
            xs, [m.lowest for m in measured], [m.highest for m in measured], color=_COLOURS[0]
        )
        axes.plot(xs, [m.median for m in measured], "o-", color=_COLOURS[0], ms=5)
        expected = [(100 * s.share, s.expected) for s in speedups if s.expected is not None]
        if expected:
            axes.plot([x for x, _ in expected], [y for _, y in expected], "--", color=INK, lw=1.4)
            key.append(("dashed", INK, "what the cost of the stages promises"))
        axes.axhline(1, color=MUTED, ls=":", lw=1.4)
        key.append(("dotted", MUTED, "the large member alone"))
        axes.set(xlabel="rows deferred, %", ylabel="throughput over the large member's")
        axes.set_ylim(bottom=0)
        svg = svg_from_figure(
            figure, _id("shares", scene), f"throughput against deferral rate, {scene}"
        )
    return Plot(svg, tuple(key))


def accuracy_plot(figures: Figures, scene: str) -> Plot | None:
    """Accuracy against cost: the members alone, and the cascade at every share.

    Args:
        figures: of the run.
        scene: of a pair whose answers mean something; None is drawn where its accuracies or the
            throughput of the large member were not measured.
    """
    large = figures.best_throughput(shares.SECTION, scene, LARGE)
    points: dict[str, tuple[float, float]] = {}
    for name in figures.contenders(accuracy.SECTION, scene):
        cost = figures.ratio(large, figures.best_throughput(shares.SECTION, scene, name))
        right = figures.median(accuracy.SECTION, scene, name, None, "accuracy")
        if cost is not None and right is not None:
            points[name] = (cost.median, 100 * right)
    if not points:
        return None
    ours = sorted(place for name, place in points.items() if name.startswith(_OURS))
    with figure_of(3.6) as figure:
        axes = figure.subplots()
        axes.plot([x for x, _ in ours], [y for _, y in ours], "o-", color=_COLOURS[0], ms=5)
        for name, place in points.items():
            if not name.startswith(_OURS):
                axes.plot(*place, "s", color=INK, ms=7)
                axes.annotate(
                    name, place, xytext=(0, -9), textcoords="offset points", ha="center",
                    va="top", fontsize=9.5, zorder=6,
                    bbox={"boxstyle": "square,pad=0.1", "facecolor": "white",
                          "edgecolor": "none", "alpha": 0.75},
                )  # fmt: skip
        axes.margins(x=0.2, y=0.25)
        axes.set(xlabel="cost of a request, served (large alone = 1)", ylabel="accuracy, %")
        svg = svg_from_figure(figure, _id("accuracy", scene), f"accuracy against cost, {scene}")
    return Plot(
        svg,
        (("line", _COLOURS[0], "cascade, over deferral rates"), ("square", INK, "a member alone")),
    )


def bar_plot(sweep: Sweep) -> Plot:
    """Throughput of every setting of a sweep, with its lowest and highest repeat."""
    points = sweep.points
    with figure_of(0.9 + 0.34 * len(points)) as figure:
        axes = figure.subplots()
        for i, point in enumerate(points):
            axes.barh(i, point.rate_rps, color=_COLOURS[0], height=0.62)
            axes.hlines(i, point.rates_rps[0], point.rates_rps[-1], color=INK, lw=1.4)
        axes.set_yticks(range(len(points)), [point.name for point in points])
        axes.invert_yaxis()
        axes.margins(x=0.08)  # the last number of the axis has room
        axes.set(xlabel="requests a second")
        svg = svg_from_figure(
            figure,
            _id(f"sweep-{sweep.section}", sweep.scene),
            f"throughput by {sweep.section}, {sweep.scene}",
        )
    return Plot(svg, (("box", _COLOURS[0], "median"), ("line", INK, "lowest to highest repeat")))


def _curve(figures: Figures, scene: str, contender: str, latency: str) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for load in figures.loads(closed.SECTION, scene, contender):
        rate = figures.median(closed.SECTION, scene, contender, load, "throughput_rps")
        ms = figures.median(closed.SECTION, scene, contender, load, latency)
        if rate is not None and ms is not None:
            found.append((rate, ms))
    return found


def _concurrency(load: str) -> int:
    return int(load.removeprefix("concurrency ").partition(",")[0])


def _plain_numbers(axes: Axes) -> None:
    """1, 2, 5, 10, … on a logarithmic axis, in figures that everybody reads."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _id(kind: str, scene: str) -> str:
    return f"{kind}-{scene.replace('/', '-')}"
