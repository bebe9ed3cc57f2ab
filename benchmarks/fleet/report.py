"""RESULTS.md of a run of the fleet, with a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cascadebert_build.report.plots import Mark, Plot
from cascadebert_build.report.svg import INK, figure_of, svg_from_figure

from ..suite.report import svg_file

PAGE = "RESULTS.md"
WITHIN = 0.15
_RATIO = ", ratio"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def write_page(folder: Path, run: Mapping[str, Any]) -> str:
    """Write RESULTS.md and its plot; return the page."""
    machine = run["machine"]
    parts = [
        f"# The simulated fleet\n\n`{run['command']}`, commit {machine['commit']}, "
        f"{machine['cores']} cores of {machine['cpu']}, {machine['date']}.",
        "## The price of a request\n\nMilliseconds of CPU, over stages that calculate nothing "
        "(`cascade_row_ms` and `cold_call` are defaults and not measured); the "
        f"load generator takes {1e3 * run['price']['client_s']:.3f} ms more. For `cascadebert plan "
        "--machines`:",
        price_as_toml(run["price"]),
    ]
    if run["rows"]:
        rows = pd.DataFrame(run["rows"])
        met, all_ratios = ratios_within(run["rows"])
        parts += [
            "## Simulated and real\n\nOne server on this machine, with the load generator beside "
            f"it. {met} of {all_ratios} figures are within {WITHIN:.0%}.",
            rows[[c for c in rows if not c.endswith("simulated")]].to_markdown(
                index=False, floatfmt=".3g"
            )
            or "",
        ]
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        plot = svg_file(ratio_plot(run["rows"]), "Simulated over real figures by load")
        (folder / "plots" / "ratios.svg").write_text(plot, encoding="utf-8")
        parts.append("![simulated over real figures by load](plots/ratios.svg)")
    if run["switch"]:
        parts += [
            "## A faster operating point under load\n\nThe same bursts, with and without "
            "`[under_load]`:",
            pd.DataFrame(run["switch"]).to_markdown(index=False, floatfmt=".3g") or "",
        ]
    page = "\n\n".join(parts) + "\n"
    (folder / PAGE).write_text(page, encoding="utf-8")
    return page


def price_as_toml(price: Mapping[str, float]) -> str:
    """Return the price of a request as a table of a file of machines."""
    keys = ("cascade_s", "cascade_row_s", "server_s", "call_s")
    lines = [f"{key.removesuffix('_s')}_ms = {1e3 * price[key]:.3f}" for key in keys]
    lines += [f"{key} = {price[key]:.2f}" for key in ("cold", "cold_call")]
    return "\n".join(("```toml", "[machines.NAME.request]", *lines, "```"))


def ratios_within(rows: Sequence[Mapping[str, Any]], within: float = WITHIN) -> tuple[int, int]:
    """Return how many ratios are within a share of 1, and how many there are."""
    ratios = [row[key] for row in rows for key in row if key.endswith(_RATIO)]
    return sum(1 - within <= ratio <= 1 + within for ratio in ratios), len(ratios)


def ratio_plot(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """Plot the ratios by load; a mark for each figure and share of deferred rows."""
    names = [key for key in rows[0] if key.endswith(_RATIO)]
    key: list[tuple[Mark, str, str]] = []
    with figure_of(3.6) as figure:
        axes = figure.subplots()
        axes.axhspan(1 - WITHIN, 1 + WITHIN, color="#e5f5ee")
        axes.axhline(1, color=INK, lw=1)
        for colour, name in zip(_COLOURS, names, strict=False):
            found = [(row["load"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*found, strict=True), "o", color=colour, ms=6)
            key.append(("dot", colour, name.removesuffix(_RATIO)))
        axes.set(xlabel="load, share of the capacity", ylabel="simulated over real")
        svg = svg_from_figure(figure, "fleet-ratios", "simulated over real figures by load")
    return Plot(svg, tuple(key))
