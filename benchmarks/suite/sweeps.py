"""Cost against load: throughput over the settings of a sweep, and where it bends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from .bare_stage import mean_tokens
from .results import Figures
from .sections import closed_loop as closed
from .sections import sweeps as sweep

# Less is no gain: about what repeats of one window differ by.
_STEP = 0.05
_TEXTS = ("short", "mixed", "long")


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a sweep.

    Attributes:
        name: of the setting.
        rates_rps: throughput of every repeat, ascending.
        cores: that the server kept busy; None: not measured.
        tokens: of a row, padded; None: not known.
    """

    name: str
    rates_rps: tuple[float, ...]
    cores: float | None = None
    tokens: float | None = None

    @property
    def rate_rps(self) -> float:
        """Median over the repeats."""
        return median(self.rates_rps)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Throughput over one thing that changes.

    Attributes:
        section: unlike any other's of the scene.
        scene: pair/corpus, or the pair where texts are compared.
        title: of the plot.
        points: lightest first, where they have an order.
        bend: in sentences.
    """

    section: str
    scene: str
    title: str
    points: tuple[Point, ...]
    bend: str


def sweeps_of(figures: Figures, scene: str) -> list[Sweep]:
    """Every sweep of a scene."""
    own: list[tuple[str, str, Callable[[Sequence[Point]], str], str]] = [
        (sweep.CORES, "Throughput against cores of the server", where_it_bends,
         " The load generator may use all cores, those beside the server's too."),
        (sweep.INSTANCES, "Throughput against instances", which_is_best, ""),
        (sweep.BATCHES, "Throughput against tokens in one call", where_it_bends, ""),
        (sweep.CALLS, "Throughput by how rows of unlike lengths are called", which_is_best, ""),
    ]  # fmt: skip
    found = [_of_clients(figures, scene)]
    for section, title, in_words, note in own:
        points = tuple(_swept(figures, section, scene))
        if in_words is where_it_bends:  # "512 tokens a call": an order, however they were measured
            points = tuple(sorted(points, key=lambda point: int(point.name.split()[0])))
        found.append(Sweep(section, scene, title, points, in_words(points) + note))
    return [of_one for of_one in found if of_one.points]


def texts_of_pairs(figures: Figures) -> list[Sweep]:
    """Throughput against length of text, for every pair that has more than one."""
    texts: dict[str, list[str]] = {}
    for scene in figures.scenes(closed.SECTION):
        pair, _, text = scene.partition("/")
        if text in _TEXTS and figures.best_load(closed.SECTION, scene, "cascade"):
            texts.setdefault(pair, []).append(text)
    found: list[Sweep] = []
    for pair, names in texts.items():
        if len(names) > 1:
            points = tuple(
                _of_text(figures, f"{pair}/{text}", text)
                for text in sorted(names, key=_TEXTS.index)
            )
            title = "Throughput against length of text"
            found.append(Sweep("texts", pair, title, points, what_length_costs(points)))
    return found


def where_it_bends(points: Sequence[Point]) -> str:
    """From which setting on another step gains little, and how busy the server is there."""
    if len(points) < 2:
        return "One setting was measured: nothing to compare."
    rates = [point.rate_rps for point in points]
    steps = [after / before for before, after in pairwise(rates)]
    gaining = [i for i, step in enumerate(steps) if step >= 1 + _STEP]
    bend = gaining[-1] + 1 if gaining else 0
    last = points[-1]
    if bend == len(points) - 1:
        words = (
            f"No bend up to {last.name}: the last step still gains {steps[-1] - 1:.0%}, to "
            f"{last.rate_rps:.0f} requests/s."
        )
    else:
        words = (
            f"It bends at {points[bend].name}, {rates[bend]:.0f} requests/s: from there another "
            f"step gains less than {_STEP:.0%}."
        )
        if rates[-1] < (1 - _STEP) * rates[bend]:
            words += f" {last.name} has {rates[-1] / rates[bend]:.2f} of that."
    return words + _busy(points[bend])


def which_is_best(points: Sequence[Point]) -> str:
    """The setting with the highest throughput, and those that have nearly as much."""
    if len(points) < 2:
        return "One setting was measured: nothing to compare."
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


def what_length_costs(points: Sequence[Point]) -> str:
    """Throughput over tokens, against the shortest text's."""
    first = points[0]
    words: list[str] = []
    for point in points[1:]:
        share = point.rate_rps / first.rate_rps
        line = f"{point.name} text has {share:.2f} of the throughput of {first.name} text"
        if point.tokens is not None and first.tokens is not None:
            times = point.tokens / first.tokens
            line += f" at {times:.2f} times its tokens: each costs {1 / (share * times):.2f} times"
            line += " as much"
        words.append(line[0].upper() + line[1:] + ".")
    return " ".join(words)


def _of_clients(figures: Figures, scene: str) -> Sweep:
    loads = figures.loads(closed.SECTION, scene, "cascade")
    points = tuple(
        point
        for load in loads
        if (point := _point(figures, closed.SECTION, scene, "cascade", load=load, name=load))
    )
    title = "Throughput against clients at a time"
    return Sweep(closed.SECTION, scene, title, points, where_it_bends(points))


def _swept(figures: Figures, section: str, scene: str) -> Iterator[Point]:
    for name in figures.contenders(section, scene):
        load = figures.best_load(section, scene, name)
        if load and (point := _point(figures, section, scene, name, load=load, name=name)):
            yield point


def _of_text(figures: Figures, scene: str, text: str) -> Point:
    load = figures.best_load(closed.SECTION, scene, "cascade")
    assert load is not None
    point = _point(figures, closed.SECTION, scene, "cascade", load=load, name=text)
    assert point is not None
    return replace(point, tokens=mean_tokens(figures, scene))


def _point(
    figures: Figures, section: str, scene: str, contender: str, *, load: str, name: str
) -> Point | None:
    rates = figures.throughput(section, scene, contender, load)
    if not rates:
        return None
    cpu_ms = figures.median(section, scene, contender, load, "server_cpu_ms")
    cores = None if cpu_ms is None else cpu_ms * median(rates.values()) / 1000
    return Point(name, tuple(sorted(rates.values())), cores)


def _busy(point: Point) -> str:
    return "" if point.cores is None else f" The server keeps {point.cores:.1f} cores busy there."
