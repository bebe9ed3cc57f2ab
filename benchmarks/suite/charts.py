"""The charts of a report in its order: plots with their titles and captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cascadebert_build.report.plots import Plot

from .names import ACCURACY, BATCHES, CALLS, CLOSED, CORES, INSTANCES, SHARES
from .plots import accuracy_plot, bar_plot, exits_plot, latency_plot, share_plot
from .results import Results
from .speedups import gain_in_words, speedups_of
from .sweeps import Sweep, sweeps_of, text_sweeps

_SWEPT = (CLOSED, SHARES, CORES, INSTANCES, BATCHES, CALLS)


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot with its words.

    Attributes:
        name: The name of its file, without the ending. It is unique in a report.
        plot: The drawing.
        title: What it shows.
        caption: How to read it, or what it says; "" if there is nothing to add.
    """

    name: str
    plot: Plot
    title: str
    caption: str = ""

    @property
    def file(self) -> str:
        """The file in the summary's folder."""
        return f"plots/{self.name}.svg"


@dataclass(frozen=True, slots=True)
class Group:
    """One chart or more under a heading; the heading is "" if they belong to no workload."""

    heading: str
    charts: tuple[Chart, ...]


def latency_groups(results: Results) -> Iterator[Group]:
    """Yield latency and accuracy, workload by workload."""
    for workload in results.workloads(CLOSED, ACCURACY):
        plots = (
            ("latency", latency_plot(results, workload), "Latency against throughput",
             "A point for each number of clients. Right and low is good."),
            ("exits", exits_plot(results, workload), "Latency by exit stage",
             "An exited request needs only the small member. In the blocking cascade it waits for "
             "the large one, too."),
            ("accuracy", accuracy_plot(results, workload), "Accuracy against cost",
             "Thresholds were chosen on other rows than those counted."),
        )  # fmt: skip
        charts = tuple(
            Chart(_name(kind, workload), plot, title, caption)
            for kind, plot, title, caption in plots
            if plot is not None
        )
        if charts:
            yield Group(workload, charts)


def load_groups(results: Results) -> Iterator[Group]:
    """Yield throughput over everything that was swept."""
    texts = tuple(
        _sweep_chart(sweep, f"{sweep.title}: {sweep.workload}") for sweep in text_sweeps(results)
    )
    if texts:
        yield Group("", texts)
    for workload in results.workloads(*_SWEPT):
        speedups = speedups_of(results, workload)
        charts = [_sweep_chart(sweep, sweep.title) for sweep in sweeps_of(results, workload)]
        plot = share_plot(speedups, workload)
        if plot is not None:
            caption = f"With many clients at a time. {gain_in_words(speedups)}"
            title = "Throughput against deferral rate"
            charts.insert(0, Chart(_name("shares", workload), plot, title, caption))
        if charts:
            yield Group(workload, tuple(charts))


def _sweep_chart(sweep: Sweep, title: str) -> Chart:
    return Chart(_name(sweep.section, sweep.workload), bar_plot(sweep), title, sweep.caption)


def _name(kind: str, workload: str) -> str:
    return f"{kind}-{workload.replace('/', '-')}"
