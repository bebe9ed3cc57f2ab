"""A plan as one HTML page that stands alone."""

from __future__ import annotations

from collections.abc import Sequence

from ..report.html import page_environment
from ..report.plots import Mark, Plot
from ..report.svg import INK, figure_of, svg_from_figure
from .plan import Option, Target, sorted_options
from .text import row_of_option, verdict

# Okabe and Ito's colours (2008), which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def page_from_plan(options: Sequence[Option], target: Target, name: str) -> str:
    """Write the page.

    Args:
        options: What is shown.
        target: What was asked.
        name: Of the cascade.
    """
    ordered = sorted_options(options)
    return (
        page_environment("cascadebert_build.planning")
        .get_template("plan.html.j2")
        .render(
            name=name,
            verdict=verdict(ordered, target),
            rows=[row_of_option(option) for option in ordered],
            labelled=ordered[0].way.accuracy is not None,
            plot=plan_plot(ordered, target),
        )
    )


def plan_plot(options: Sequence[Option], target: Target) -> Plot:
    """Plot p99 against the number of machines, on the kind of the first option."""
    kind = options[0].kind
    shown = [option for option in options if option.kind == kind]
    key: list[tuple[Mark, str, str]] = []
    with figure_of(3.9) as figure:
        axes = figure.subplots()
        for colour, option in zip(_COLOURS, shown, strict=False):
            axes.plot(
                [each.machines for each in option.tried],
                [each.p99_ms for each in option.tried],
                "o-", color=colour, ms=5,
            )  # fmt: skip
            key.append(("line", colour, f"{option.way.name}"))
        axes.axhline(target.p99_ms, color=INK, ls="--", lw=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(lambda _value, _: "")
        axes.set(xlabel=f"machines {kind!r}", ylabel="p99, ms")
        svg = svg_from_figure(figure, "plan", "99th percentile of the latency by machines")
    key.append(("dashed", INK, f"{target.p99_ms:g} ms"))
    return Plot(svg, tuple(key))
