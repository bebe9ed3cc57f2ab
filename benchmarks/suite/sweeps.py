"""Throughput over the settings of a sweep, and the setting from which it no longer grows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from statistics import median

from .names import BATCHES, CALLS, CASCADE, CLOSED, CORES, INSTANCES
from .ratios import mean_tokens
from .results import Results

# A smaller gain is none: repeats of one window differ by about this much.
_STEP = 0.05
_TEXTS = ("short", "mixed", "long")
_ALONE = "Only one setting was measured."


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a sweep.

    Attributes:
        name: The setting.
        rates_rps: The throughput of every repeat, ascending.
        cores: The cores that the server kept busy; None: not measured.
        tokens: The mean padded length of a row; None: not known.
    """

    name: str
    rates_rps: tuple[float, ...]
    cores: float | None = None
    tokens: float | None = None

    @property
    def rate_rps(self) -> float:
        """The median over the repeats."""
        return median(self.rates_rps)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Throughput over one setting.

    Attributes:
        section: The section of the rows. It is unique within a workload.
        workload: The workload, or the pair if texts are compared.
        title: The title of the chart.
        points: The settings, lightest first if they have an order.
        caption: What the sweep shows, in sentences.
    """

    section: str
    workload: str
    title: str
    points: tuple[Point, ...]
    caption: str


def sweeps_of(results: Results, workload: str) -> list[Sweep]:
    """Return every sweep of a workload."""
    loads = results.loads(CLOSED, workload, CASCADE).index
    clients = tuple(_points(results, CLOSED, workload, [(CASCADE, load, load) for load in loads]))
    title = "Throughput against clients at a time"
    found = [Sweep(CLOSED, workload, title, clients, knee_in_words(clients))]
    for section, title, in_words, note in _SWEEPS:
        names = results.contenders(section, workload)
        if in_words is knee_in_words:  # "512 tokens a call": ordered by number
            names.sort(key=lambda name: int(name.split()[0]))
        points = tuple(_points(results, section, workload, [(name, None, name) for name in names]))
        found.append(Sweep(section, workload, title, points, in_words(points) + note))
    return [sweep for sweep in found if sweep.points]


def text_sweeps(results: Results) -> list[Sweep]:
    """Return throughput against length of text, for every pair with more than one text."""
    texts: dict[str, list[Point]] = {}
    for text, workload in product(_TEXTS, results.workloads(CLOSED)):
        pair, _, of = workload.partition("/")
        if of == text:
            for point in _points(results, CLOSED, workload, [(CASCADE, None, text)]):
                named = replace(point, tokens=mean_tokens(results, workload))
                texts.setdefault(pair, []).append(named)
    title = "Throughput against length of text"
    return [
        Sweep("texts", pair, title, tuple(points), length_in_words(points))
        for pair, points in texts.items()
        if len(points) > 1
    ]


def knee_in_words(points: Sequence[Point]) -> str:
    """Say from which setting on another step gains little, and how busy the server is there."""
    if len(points) < 2:
        return _ALONE
    rates = [point.rate_rps for point in points]
    steps = [after / before for before, after in pairwise(rates)]
    gaining = [i for i, step in enumerate(steps) if step >= 1 + _STEP]
    knee = gaining[-1] + 1 if gaining else 0
    last = points[-1]
    if knee == len(points) - 1:
        words = (
            f"Throughput grows up to {last.name}: the last step gains {steps[-1] - 1:.0%}, to "
            f"{last.rate_rps:.0f} requests/s."
        )
    else:
        words = (
            f"The knee is at {points[knee].name}, {rates[knee]:.0f} requests/s: each further step "
            f"gains less than {_STEP:.0%}."
        )
        if rates[-1] < (1 - _STEP) * rates[knee]:
            words += f" {last.name} has {rates[-1] / rates[knee]:.2f} of that."
    return words + _busy(points[knee])


def best_in_words(points: Sequence[Point]) -> str:
    """Name the setting with the highest throughput, and those within a small step of it."""
    if len(points) < 2:
        return _ALONE
    best = max(points, key=lambda point: point.rate_rps)
    least = min(points, key=lambda point: point.rate_rps)
    near = [
        f"“{point.name}”"
        for point in points
        if point is not best and point.rate_rps >= (1 - _STEP) * best.rate_rps
    ]
    words = (
        f"Highest with “{best.name}”: {best.rate_rps:.0f} requests/s, "
        f"{best.rate_rps / least.rate_rps:.2f} times that of “{least.name}”."
    )
    words += f" Within {_STEP:.0%} of it: {', '.join(near)}." if near else ""
    return words + _busy(best)


def length_in_words(points: Sequence[Point]) -> str:
    """Compare throughput and tokens with those of the shortest text."""
    first = points[0]
    words: list[str] = []
    for point in points[1:]:
        share = point.rate_rps / first.rate_rps
        line = f"{point.name.capitalize()} text has {share:.2f} of the throughput of {first.name} "
        line += "text"
        if point.tokens is not None and first.tokens is not None:
            times = point.tokens / first.tokens
            line += f" with {times:.2f} times the tokens: a token costs {1 / (share * times):.2f} "
            line += "times as much"
        words.append(f"{line}.")
    return " ".join(words)


def _points(
    results: Results,
    section: str,
    workload: str,
    settings: Iterable[tuple[str, str | None, str]],
) -> Iterator[Point]:
    """Yield a point for each (contender, load or None for the best one, name) that is measured."""
    for contender, at, name in settings:
        load = at or results.best_load(section, workload, contender)
        rates = results.throughput(section, workload, contender, load)
        if rates:
            cpu_ms = results.median(section, workload, contender, "server_cpu_ms", load)
            cores = None if cpu_ms is None else cpu_ms * median(rates.values()) / 1000
            yield Point(name, tuple(sorted(rates.values())), cores)


def _busy(point: Point) -> str:
    return "" if point.cores is None else f" The server keeps {point.cores:.1f} cores busy there."


# Section, title, how it is said, and what to add.
_SWEEPS: tuple[tuple[str, str, Callable[[Sequence[Point]], str], str], ...] = (
    (CORES, "Throughput against cores of the server", knee_in_words,
     " The load generator may use all cores, the server's too."),
    (INSTANCES, "Throughput against instances", best_in_words, ""),
    (BATCHES, "Throughput against tokens in one call", knee_in_words, ""),
    (CALLS, "Throughput by how rows of unlike lengths are called", best_in_words, ""),
)  # fmt: skip
