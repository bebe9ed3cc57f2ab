"""The bench's report: one self-contained page, and the same tables as Markdown with SVG files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cascadebert_build.report.html import page_environment
from cascadebert_build.report.plots import Plot

from .charts import Chart, Group, latency_groups, load_groups
from .results import Results
from .tables import Table, information_tables, tables_of_run, target_tables
from .targets import NOT_MET, Verdict, tally_of, verdicts_of

# A cell with at most this many characters stays on one line.
_SHORT = 18
# The sizes of a chart in points, as matplotlib's SVG has them: margins, and a line of the key.
_MARGIN, _LINE = 8.0, 16.0


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the page and the summary show of a run.

    Attributes:
        run: The content of run.json.
        verdicts: The ratios that targets are about.
        targets: The tables of the targets.
        latency: The charts of latency and accuracy.
        load: The charts of throughput against load.
        tables: All other tables.
        policies: The ids of the policies that were measured, by workload.
    """

    run: Mapping[str, Any]
    verdicts: list[Verdict]
    targets: list[Table]
    latency: list[Group]
    load: list[Group]
    tables: list[Table]
    policies: str

    @property
    def charts(self) -> Iterator[tuple[Group, Chart]]:
        """Every chart with its group."""
        for group in (*self.latency, *self.load):
            for chart in group.charts:
                yield group, chart

    def write(self, folder: Path) -> None:
        """Write report.html, SUMMARY.md and the charts of the summary."""
        (folder / "report.html").write_text(self.page(), encoding="utf-8")
        (folder / "SUMMARY.md").write_text(self.summary(), encoding="utf-8")
        for group, chart in self.charts:
            path = folder / chart.file
            path.parent.mkdir(parents=True, exist_ok=True)
            title = f"{chart.title}: {group.heading}" if group.heading else chart.title
            path.write_text(svg_file(chart.plot, title), encoding="utf-8")

    def page(self) -> str:
        """Return the report as HTML."""
        return self._rendered("report.html.j2")

    def summary(self) -> str:
        """Return verdicts, links to the charts and tables as Markdown."""
        return self._rendered("summary.md.j2")

    def _rendered(self, template: str) -> str:
        machine = self.run["machine"]
        commit, dirty, changes = (machine["commit"] or "unknown").partition("-")
        environment = _templates().overlay(autoescape=template.endswith(".html.j2"))
        text = environment.get_template(template).render(
            report=self,
            run=self.run,
            machine=machine,
            setting=self.run["setting"],
            commands="; ".join(dict.fromkeys([self.run["command"], *self.run.get("commands", [])])),
            commit=commit[:12] + dirty + changes,  # short, with what says that there were changes
            tally=tally_of(self.verdicts),
        )
        return text.strip() + "\n"


def report_of(run: Mapping[str, Any], results: Results) -> Report:
    """Gather the report of a run.

    Args:
        run: The content of run.json.
        results: The rows of the run.
    """
    verdicts = verdicts_of(results)
    return Report(
        run=run,
        verdicts=verdicts,
        targets=target_tables(verdicts, results),
        latency=list(latency_groups(results)),
        load=list(load_groups(results)),
        tables=[*information_tables(verdicts), *tables_of_run(results)],
        policies=_policies(results),
    )


def svg_file(plot: Plot, title: str) -> str:
    """Return a plot with its title and key as an SVG file on white."""
    box = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', plot.svg)
    assert box is not None, "matplotlib gives every SVG a view box"
    width, height = float(box[1]), float(box[2])
    # A nested element needs a size of its own. On a page the plot takes the size of its place.
    size = f'<svg x="{_MARGIN}" y="{2 * _LINE}" width="{width}" height="{height}" '
    return _templates().get_template("chart.svg.j2").render(
        title=title, drawing=plot.svg.replace("<svg ", size, 1), key=plot.key,
        top=2 * _LINE + height + _MARGIN, margin=_MARGIN, line_height=_LINE,
        width=width + 2 * _MARGIN, height=2 * _LINE + height + len(plot.key) * _LINE + 2 * _MARGIN,
    )  # fmt: skip


@cache
def _templates() -> Any:
    environment: Any = page_environment("benchmarks.suite")
    environment.globals["class_of"] = _class_of
    return environment


def _class_of(table: Table, column: int, text: str) -> str:
    """Return the style class of a cell."""
    if column >= table.words:
        return "number"
    if text == NOT_MET:
        return "wrong"
    return "answer" if len(text) <= _SHORT else ""


def _policies(results: Results) -> str:
    """Return the ids of the policies that were measured, by workload."""
    if "policy" not in results.frame:
        return "not recorded"
    known = results.frame.dropna(subset=["policy"]).groupby("workload", sort=False)["policy"]
    found = [f"{name}: {', '.join(p[:12] for p in policies.unique())}" for name, policies in known]
    return "; ".join(found) or "not recorded"
