"""The plots of a report with their words, in its order; for the page and for the summary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cascadebert_build.report.plots import Plot

from .plots import accuracy_plot, bar_plot, exits_plot, latency_plot, share_plot
from .results import Figures
from .sections import accuracy, shares
from .sections import closed_loop as closed
from .sections import sweeps as sweep
from .speedups import speedups_of, where_it_bends
from .sweeps import Sweep, sweeps_of, texts_of_pairs

_SWEPT = (closed.SECTION, shares.SECTION, sweep.CORES, sweep.INSTANCES, sweep.BATCHES, sweep.CALLS)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot and what to say of it.

    Attributes:
        name: of a file, without its ending; unlike any other of the report.
        plot: the drawing.
        title: what it shows.
        caption: how to read it, or what it says; "" where there is nothing to add.
    """

    name: str
    plot: Plot
    title: str
    caption: str = ""

    @property
    def file(self) -> str:
        """Where the summary has it, from the summary's folder."""
        return f"plots/{self.name}.svg"


@dataclass(frozen=True, slots=True)
class Group:
    """Drawings under a head; there is at least one.

    Attributes:
        head: of the group; "" for those that belong to no scene.
        drawings: in order.
    """

    head: str
    drawings: tuple[Drawing, ...]


def groups_of_scenes(figures: Figures) -> Iterator[Group]:
    """Latency and accuracy, scene by scene."""
    for scene in figures.scenes(closed.SECTION, accuracy.SECTION):
        plots = (
            (
                "latency",
                latency_plot(figures, scene),
                "Latency against throughput",
                "One point for each number of clients; right and low is good.",
            ),
            (
                "exits",
                exits_plot(figures, scene),
                "Latency by exit stage",
                "An exited request needs the small member alone; blocking, it waits for the large "
                "one.",
            ),
            (
                "accuracy",
                accuracy_plot(figures, scene),
                "Accuracy against cost",
                "Thresholds chosen on other rows than those counted.",
            ),
        )
        drawn = tuple(
            Drawing(_name(kind, scene), plot, title, caption)
            for kind, plot, title, caption in plots
            if plot is not None
        )
        if drawn:
            yield Group(scene, drawn)


def groups_of_load(figures: Figures) -> Iterator[Group]:
    """Throughput over everything that was swept, and where it bends."""
    texts = tuple(
        _swept(of_one, f"{of_one.title}: {of_one.scene}") for of_one in texts_of_pairs(figures)
    )
    if texts:
        yield Group("", texts)
    for scene in figures.scenes(*_SWEPT):
        speedups = speedups_of(figures, scene)
        deferral = share_plot(speedups, scene)
        drawn = [_swept(of_one, of_one.title) for of_one in sweeps_of(figures, scene)]
        if deferral is not None:
            drawn.insert(
                0,
                Drawing(
                    _name("shares", scene),
                    deferral,
                    "Throughput against deferral rate",
                    f"At many clients at a time. {where_it_bends(speedups)}",
                ),
            )
        if drawn:
            yield Group(scene, tuple(drawn))


def _swept(of: Sweep, title: str) -> Drawing:
    return Drawing(_name(of.section, of.scene), bar_plot(of), title, of.bend)


def _name(kind: str, scene: str) -> str:
    return f"{kind}-{scene.replace('/', '-')}"
