"""Advice as one HTML page that stands alone."""

from __future__ import annotations

from ..report.html import page_environment
from ..report.plots import BLUE, Mark, Plot
from ..report.svg import INK, figure_of, svg_from_figure
from .advice import Advice, goal_in_words


def page_from_advice(advice: Advice, name: str) -> str:
    """Write the page.

    Args:
        advice: What is shown.
        name: Of the cascade.
    """
    words = {each.name: goal_in_words(each.goal) for each in advice.points}
    return (
        page_environment("cascadebert_build.advice")
        .get_template("advice.html.j2")
        .render(advice=advice, name=name, plot=_plot(advice), words=words)
    )


def _plot(advice: Advice) -> Plot:
    """Accuracy against time."""
    last = advice.members[-1].name
    what = "accuracy" if advice.labelled else f"agreement with {last}"
    key: list[tuple[Mark, str, str]] = [("line", BLUE, "cascade, over thresholds")]
    with figure_of(3.9) as figure:
        axes = figure.subplots()
        axes.plot(advice.curve.cost, 100 * advice.curve.accuracy, color=BLUE, zorder=3)
        if advice.equal is not None:
            axes.plot(
                advice.equal.cost.share.value, 100 * advice.equal.accuracy, "o", color=BLUE, ms=11,
                mec="white", mew=1.6, zorder=5,
            )  # fmt: skip
            key.append(("dot", BLUE, "at equal accuracy"))
        for member in advice.members:
            if member.accuracy is None:
                continue
            place = (member.cost.share.value, 100 * member.accuracy)
            axes.plot(*place, "s", color=INK, ms=7.5, zorder=4)
            axes.annotate(
                member.name, place, xytext=(0, 9), textcoords="offset points", ha="center"
            )
        axes.margins(x=0.1, y=0.16)
        axes.set_xlim(left=0)
        axes.set(xlabel=f"time of a row ({last} alone = 1)", ylabel=f"{what}, %")
        svg = svg_from_figure(figure, "advice", f"{what} against time")
    if any(member.accuracy is not None for member in advice.members):
        key.append(("square", INK, "a member alone"))
    return Plot(svg, tuple(key))
