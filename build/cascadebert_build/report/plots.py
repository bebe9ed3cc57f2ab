"""The report's plots. Each fits on a phone; a wide page puts two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cascadebert_core.signals import LEAST_SURE, MAX_PROBABILITY

from ..evaluation.evaluate import thresholds_as_text
from .curves import oracle_curve
from .material import Material
from .reliability import reliability
from .svg import INK, MUTED, figure_of, svg_from_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours (2008), which colour-blind readers can tell apart.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
_EARLY = (("#CC79A7", "D"), ("#E69F00", "^"), ("#009E73", "v"), ("#56B4E9", "P"), ("#000000", "X"))
_GAP = "#f8e0d0"
_BINS = 30
_SIGNAL_NAMES = {
    MAX_PROBABILITY: "probability of the answer",
    LEAST_SURE: "probability of the least sure label's decision",
}

Mark = Literal["line", "dashed", "dotted", "dot", "ring", "square", "box", "tick"]


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing and its key. The page writes the key in HTML, so that it wraps.

    Attributes:
        svg: One `<svg>` element.
        key: (mark, colour, text) in reading order.
    """

    svg: str
    key: tuple[tuple[Mark, str, str], ...]


def cost_plot(material: Material) -> Plot:
    """Plot accuracy against time: members, the cascade over thresholds, and early exits."""
    key: list[tuple[Mark, str, str]] = []
    with figure_of(3.9) as figure:
        axes = figure.subplots()
        if len(material.names) > 1:
            curve = material.curve
            axes.plot(curve.cost, 100 * curve.accuracy, color=BLUE, zorder=3)
            key.append(("line", BLUE, "cascade, over thresholds"))
            marked = _deferral_marks(axes, material)
            if marked:
                rates = ", ".join(f"{rate:.0%}" for rate in marked)
                key.append(("ring", BLUE, f"{rates} deferred"))
        for i, early in enumerate(material.early_exit):
            colour, marker = _EARLY[i % len(_EARLY)]
            accuracy = [100 * value for value in early.accuracy]
            axes.plot(
                early.cost, accuracy, color=colour, marker=marker, ms=5, lw=1.6, ls="--", zorder=2
            )
            key.append(("dashed", colour, early.name))
        scores = 100 * material.right.mean(axis=0)
        axes.plot(material.costs, scores, "s", color=INK, ms=7.5, zorder=4)
        if len(material.names) > 1:
            axes.plot(
                material.cost, 100 * material.accuracy, "o", color=BLUE, ms=11, mec="white",
                mew=1.6, zorder=5,
            )  # fmt: skip
            key.insert(1, ("dot", BLUE, _cascade_point(material)))
        _pad(axes, x=0.10, y=0.14)
        _, right = axes.get_xlim()
        axes.set_xlim(0, max(1.12, right))
        for i, name in enumerate(material.names):
            above = i > 0 or len(material.names) == 1
            _label(axes, name, (material.costs[i], scores[i]), above=above)
        key.append(("square", INK, "a member alone"))
        axes.set(
            xlabel=f"time of a row ({material.last} alone = 1)", ylabel=f"{material.measure}, %"
        )
        described = f"{material.measure} against time of {', '.join(material.names)}"
        return Plot(svg_from_figure(figure, "cost", described), tuple(key))


def deferral_plot(material: Material) -> Plot:
    """Plot accuracy against deferral rate, between random deferral and an oracle."""
    first, last = material.right[:, 0], material.right[:, -1]
    with figure_of(3.9) as figure:
        axes = figure.subplots()
        rates, best = oracle_curve(first, last)
        axes.plot(_percent(rates), _percent(best), color=GREEN, ls=(0, (1, 1.6)), zorder=2)
        ends = (100 * first.mean(), 100 * last.mean())
        axes.plot((0, 100), ends, color=MUTED, ls="--", lw=1.6, zorder=2)
        curve = material.curve
        axes.plot(100 * curve.deferral, 100 * curve.accuracy, color=BLUE, zorder=3)
        axes.plot(
            100 * material.deferral, 100 * material.accuracy, "o", color=BLUE, ms=11, mec="white",
            mew=1.6, zorder=5,
        )  # fmt: skip
        _pad(axes, y=0.10)
        axes.set(
            xlim=(-2, 102),
            xlabel=f"rows that {material.names[0]} defers, %",
            ylabel=f"{material.measure}, %",
        )
        described = f"{material.measure} against deferral rate"
        svg = svg_from_figure(figure, "deferral", described)
    return Plot(
        svg,
        (
            ("line", BLUE, "cascade, over thresholds"),
            ("dot", BLUE, _cascade_point(material)),
            ("dotted", GREEN, "oracle: defers the rows that gain"),
            ("dashed", MUTED, "random deferral"),
        ),
    )


def reliability_plot(material: Material, member: int) -> Plot:
    """Plot accuracy against confidence of one member alone. The rows need labels."""
    bins = reliability(*material.decisions(member))
    what = "decisions on labels" if material.multi_label else "answers"
    with figure_of(3.5) as figure:
        axes = figure.subplots()
        floor = 100 * _least_confidence(material)
        axes.plot((0, 100), (0, 100), color=MUTED, ls="--", lw=1.4, zorder=1)
        sure, accuracy = 100 * bins.confidence, 100 * bins.accuracy
        axes.fill_between(sure, sure, accuracy, color=_GAP, lw=0, zorder=0.9)
        axes.vlines(sure, 100 * bins.low, 100 * bins.high, color=BLUE, lw=1.3, alpha=0.55, zorder=2)
        axes.plot(sure, accuracy, color=BLUE, lw=1.2, alpha=0.6, zorder=2)
        axes.plot(sure, accuracy, "o", color=BLUE, ms=5.5, mec="white", mew=0.6, zorder=3)
        lowest = min([floor, *sure, *(100 * bins.low)])
        low = max(0.0, 10 * np.floor(lowest / 10))
        axes.set(
            xlim=(max(0.0, min([floor, *sure]) - 2), 101.5),
            ylim=(low - 2, 102),
            xlabel=f"probability of the {'decision' if material.multi_label else 'answer'}, %",
            ylabel=f"right {what}, %",
        )
        name = material.names[member]
        svg = svg_from_figure(
            figure, f"reliability-{member}", f"share of right answers against confidence of {name}"
        )
    return Plot(
        svg,
        (
            ("dot", BLUE, f"{len(bins.rows)} bins of equal mass, 95% interval"),
            ("box", _GAP, "gap"),
            ("dashed", MUTED, "confidence equal to accuracy"),
        ),
    )


def confidence_plot(material: Material, member: int) -> Plot:
    """Plot a histogram of one member's confidences: right answers above, wrong ones below."""
    confidence, right = material.confidences[:, member], material.right[:, member]
    finite = np.isfinite(confidence)
    groups = [confidence[finite & right], confidence[finite & ~right]]
    floor = min([_least_confidence(material), *confidence[finite].tolist()])
    edges = np.linspace(floor, max([1.0, *confidence[finite].tolist()]), _BINS + 1)
    signal = material.signals[member]
    given = material.thresholds[member] if member < len(material.thresholds) else ()
    thresholds = sorted(set(given)) if isinstance(given, tuple) else [given]
    with figure_of(3.5) as figure:
        axes = figure.subplots()
        tallest: list[float] = []
        for values, sign, colour in zip(groups, (1, -1), (BLUE, VERMILION), strict=True):
            shares = 100 * np.histogram(values, edges)[0] / max(1, len(values))
            tallest.append(float(shares.max()))
            axes.bar(
                100 * edges[:-1], sign * shares, 100 * np.diff(edges), align="edge", color=colour,
                edgecolor="white", lw=0.4, zorder=2,
            )  # fmt: skip
        axes.axhline(0, color=INK, lw=0.8, zorder=3)
        up, down = tallest
        room = 0.1 * (up + down) + 0.1
        axes.set(
            xlim=(100 * edges[0] - 1, 100 * edges[-1] + 1),
            ylim=(-down - room, up + room),
            xlabel=f"confidence ({_SIGNAL_NAMES.get(signal, signal)}), %",
            ylabel="share of the answers, %",
        )
        for threshold in thresholds:
            axes.axvline(100 * threshold, color=INK, lw=1.4, ls=(0, (4, 2)), zorder=4)
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        name = material.names[member]
        svg = svg_from_figure(
            figure, f"confidence-{member}", f"histogram of the confidence of {name}"
        )
    kinds = (
        ("right answers", "wrong answers")
        if material.truth is not None
        else (f"the same answer as {material.last}", "another answer")
    )
    key: list[tuple[Mark, str, str]] = [
        ("box", colour, f"{kind} ({len(values):,} rows)")
        for kind, values, colour in zip(kinds, groups, (BLUE, VERMILION), strict=True)
        if len(values)
    ]
    if thresholds:
        key.append(("tick", INK, f"threshold {thresholds_as_text([given])}"))
    return Plot(svg, tuple(key))


def _least_confidence(material: Material) -> float:
    """The smallest probability that the answer, or a decision on a label, can have."""
    return 0.5 if material.multi_label else 1 / len(material.labels)


def _cascade_point(material: Material) -> str:
    return "cascade, as tuned" if material.tuned else "cascade, at the given threshold"


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]


def _deferral_marks(axes: Axes, material: Material) -> list[float]:
    """Draw rings on the curve at round deferral rates, and return those rates."""
    curve = material.curve
    marked: list[float] = []
    for rate in (0.25, 0.5, 0.75):
        at = int(np.abs(curve.deferral - rate).argmin())
        # No threshold gives this rate, or the larger point would hide the ring.
        if abs(curve.deferral[at] - rate) > 0.03 or abs(material.deferral - rate) < 0.03:
            continue
        place = (float(curve.cost[at]), 100 * float(curve.accuracy[at]))
        axes.plot(*place, "o", color="white", mec=BLUE, mew=1.6, ms=5.5, zorder=4)
        marked.append(rate)
    return marked


def _label(axes: Axes, name: str, place: tuple[float, float], *, above: bool) -> None:
    """Write a member's name by its point, on white so that it stays legible over lines."""
    axes.annotate(
        name, place, xytext=(0, 9 if above else -9), textcoords="offset points", ha="center",
        va="bottom" if above else "top", color=INK, fontsize=10.5, zorder=6,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none",
              "alpha": 0.75},
    )  # fmt: skip


def _pad(axes: Axes, *, x: float = 0.05, y: float = 0.05) -> None:
    """Leave room for labels around the data, as shares of its extent."""
    axes.margins(x=x, y=y)
    axes.autoscale_view()
    low, high = axes.get_ylim()
    if high - low < 1:  # do not magnify a difference of hundredths
        middle = (low + high) / 2
        low, high = middle - 0.5, middle + 0.5
    axes.set_ylim(low, high)
