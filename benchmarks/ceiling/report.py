"""The report of a ceiling run: RESULTS.md with its plots, from what ceiling.json has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cascadebert_build.errors import UsageError
from cascadebert_build.report.plots import Mark, Plot
from cascadebert_build.report.svg import figure_of, svg_from_figure
from cascadebert_engine.files import read_json

from ..suite.names import CEILING_RUN
from ..suite.report import svg_file
from ..suite.tables import verdicts_table
from .targets import verdicts_of_run
from .timeline_cost import timeline_table

RECORD = CEILING_RUN
PAGE = "RESULTS.md"
_PLOTS = "plots"
# Okabe and Ito's colours (2008), which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_SHARE = 0.25
_CPU = "CPU ms "


def write_report(folder: Path) -> None:
    """Write RESULTS.md and its plots beside the record of a run.

    Raises:
        UsageError: The folder has no run.
    """
    run = read_json(folder / RECORD)
    if run is None:
        raise UsageError(f"{folder} has no {RECORD}: leave --report-only out, or name its --out")
    rows: Any = pd.DataFrame(run["rows"])
    parts = [*_head(run), *_core(run)]
    for kind, part in rows.groupby("stages", sort=False):
        parts.append(f"## Stages: {kind}")
        for name, title, plot in (
            ("cpu", "CPU of a request by process, one row", cpu_plot(part, str(kind))),
            ("rate", "Requests a second by clients, one row", rate_plot(part, str(kind))),
        ):
            file = f"{_PLOTS}/ceiling-{name}-{kind}.svg"
            (folder / _PLOTS).mkdir(exist_ok=True)
            (folder / file).write_text(svg_file(plot, f"{title}: {kind} stages"), encoding="utf-8")
            parts.append(f"![{title}]({file})")
        parts += _tables(part)
    parts += _predicted(run)
    (folder / PAGE).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def cpu_plot(rows: Any, kind: str) -> Plot:
    """Draw the CPU of a request of one row, by contender and process, at the heaviest load."""
    shown = _usual(rows)
    shown = shown[shown["clients"] == shown["clients"].max()]
    names = [_name(row) for _, row in shown.iterrows()]
    columns = [name for name in shown if name.startswith(_CPU)]
    key: list[tuple[Mark, str, str]] = []
    with figure_of(1.1 + 0.36 * len(names)) as figure:
        axes = figure.subplots()
        left = [0.0] * len(names)
        for colour, column in zip(_COLOURS, columns, strict=False):
            values = shown[column].fillna(0.0).tolist()
            axes.barh(range(len(names)), values, left=left, color=colour, height=0.62)
            left = [a + b for a, b in zip(left, values, strict=True)]
            key.append(("box", colour, column.removeprefix(_CPU)))
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel=f"CPU ms of a request, {shown['clients'].max():.0f} clients")
        svg = svg_from_figure(figure, f"ceiling-cpu-{kind}", "CPU of a request by process")
    return Plot(svg, tuple(key))


def rate_plot(rows: Any, kind: str) -> Plot:
    """Draw requests a second against clients, with requests of one row."""
    shown = _usual(rows)
    shown = shown.assign(name=[_name(row) for _, row in shown.iterrows()])
    key: list[tuple[Mark, str, str]] = []
    with figure_of(3.6) as figure:
        axes = figure.subplots()
        for colour, (name, of) in zip(_COLOURS, shown.groupby("name", sort=False), strict=False):
            axes.plot(of["clients"], of["requests/s"], "o-", color=colour, ms=5)
            key.append(("line", colour, str(name)))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylim(bottom=0)
        axes.set(xlabel="clients", ylabel="requests per second")
        svg = svg_from_figure(figure, f"ceiling-rate-{kind}", "requests a second by clients")
    return Plot(svg, tuple(key))


def _usual(rows: Any) -> Any:
    return rows[(rows["rows"] == 1) & (rows["deferred"] == _SHARE)]


def _name(row: Any) -> str:
    count = row.get("instances")
    return row["contender"] if pd.isna(count) or count == 1 else f"{row['contender']}, {count:.0f}"


def _head(run: Mapping[str, Any]) -> list[str]:
    machine = run["machine"]
    table = verdicts_table(verdicts_of_run(run))
    return [
        f"# The ceiling\n\n`{run['command']}`, commit {machine['commit']}, {machine['cores']} "
        f"cores of {machine['cpu']}, {machine['date']}.",
        '## Targets\n\nWhat the figures are divided by as "before" was measured on another day, '
        "on 2 virtual cores; the other ratios are of this run alone.",
        table.markdown,
    ]


def _core(run: Mapping[str, Any]) -> list[str]:
    costs = pd.DataFrame(run["core"]).rename(
        columns={"shape": "rows", "row_us": "us a row", "tokens_us": "us of tokens"}
    )
    parts = [
        '## The core alone\n\nCPU of a row over tokenising it; "8 x 1" is eight requests of '
        "one row together.",
        costs.to_markdown(index=False, floatfmt=".2f") or "",
    ]
    if timeline := run.get("timeline"):  # runs of earlier checkouts have none
        parts += [
            "### With a timeline\n\nCPU of a request in the core alone: plain, and with the output "
            'TIMELINE. "The look" finds that a plain request wants none: what every request pays.',
            timeline_table(timeline),
        ]
    if rest := run.get("at_rest"):
        parts.append(
            f"## At rest\n\n`cascadebert serve` uses {rest['serve']:.2%} of a core while nothing "
            f"is asked, and its servers {rest['servers']:.2%}."
        )
    return parts


def _tables(part: Any) -> list[str]:
    parts: list[str] = []
    for deferred, n_rows in part[["deferred", "rows"]].drop_duplicates().itertuples(index=False):
        group = part[(part["deferred"] == deferred) & (part["rows"] == n_rows)]
        shown = group.drop(columns=["stages", "deferred", "rows"]).dropna(axis=1, how="all")
        parts.append(f"{n_rows} rows a request, {deferred:.0%} deferred:")
        parts.append(shown.to_markdown(index=False, floatfmt=".3g") or "")
    return parts


def _predicted(run: Mapping[str, Any]) -> list[str]:
    return [
        "## More cores: a model, not a measurement\n\nRequests a second from the CPU of a request "
        "of one row, under the most clients that were measured, if nothing else limits them than "
        "the interpreter lock of each instance, the cores, and the time of the stages' calls. "
        'Load generators need cores besides. "Needed" is the number of instances from which on the '
        "lock is not the limit.",
        pd.DataFrame(run["predicted"]).to_markdown(index=False, floatfmt=".0f") or "",
    ]
