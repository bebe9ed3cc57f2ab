"""The tables of the bench's report, for the page and for its summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .cascade_settings import CASCADE, EQUAL_SHARES
from .plan import USUAL_SHARE
from .results import Figures
from .sections import accuracy, gate, limit, shares, startup
from .sections import closed_loop as closed
from .sections import open_loop as mixed_load
from .sections import rows_per_request as batched
from .speedups import LARGE, share_in_words, speedups_of
from .targets import COMPARED, Verdict, difference_in_words, pointers_of

# Sections whose rows are listed: contenders under load.
_LOADED = {
    closed.SECTION: "Closed loops",
    mixed_load.SECTION: "Open loop",
    shares.SECTION: "Deferral rates",
    batched.SECTION: "Rows a request",
    gate.SECTION: "The gate",
}
_LIMIT = "the limit"


@dataclass(frozen=True, slots=True)
class Table:
    """A table, as plain text.

    Attributes:
        title: of the table.
        note: a paragraph above it, or "".
        names: of the columns.
        words: how many columns, from the first on, are words; the others are figures.
        lines: cells.
    """

    title: str
    note: str
    names: tuple[str, ...]
    words: int
    lines: tuple[tuple[str, ...], ...]


def target_tables(verdicts: Sequence[Verdict], figures: Figures) -> list[Table]:
    """What is asked for: targets 1 to 5 as ratios, and where the others are."""
    note = (
        "Median of the repeats, with the lowest and the highest; the median is judged. Throughput "
        "is judged with each contender at its own best load; beside it stands the same ratio at "
        "one load, the heaviest that all compared were put under. Tokenising the median request is "
        "set against the small stage in the limit's calls of as many rows: of one, the mean over "
        "the lengths of the text; of 32, in the fullest bucket, as the requests. Those calls were "
        "timed on all cores at once, and are scaled to one process alone by what that gained at "
        "the bucket's best batch."
    )
    asked = [verdict for verdict in verdicts if verdict.target.asked]
    elsewhere = tuple((str(number), about, where) for number, about, where in pointers_of(figures))
    return [
        _verdicts("Targets 1 to 5", note, asked),
        Table("Targets 6 to 9", "", ("", "about", "where"), 3, elsewhere),
    ]


def information_tables(verdicts: Sequence[Verdict]) -> list[Table]:
    """The ratios of the targets where nothing is asked; none where none was measured."""
    found = [verdict for verdict in verdicts if not verdict.target.asked]
    note = "For information: nothing is asked of them, and “wanted” is what is asked of others."
    return [_verdicts("The same ratios of other pairs and texts", note, found)] if found else []


def _verdicts(title: str, note: str, verdicts: Sequence[Verdict]) -> Table:
    lines = tuple(
        (
            str(v.target.number),
            v.target.scene,
            v.target.claim,
            v.word,
            v.wanted,
            "" if v.measured is None else str(v.measured),
            v.beside,
        )
        for v in verdicts
    )
    names = ("", "pair/text", "ratio", "", "wanted", "measured", "beside it")
    return Table(title, note, names, 4, lines)


def tables_of_run(figures: Figures) -> list[Table]:
    """All other tables that have a line, in the order of the report."""
    found = [
        _saturated(figures),
        _exited(figures),
        _operating_points(figures),
        _limits(figures),
        _settings(figures),
        _others(figures),
        _stages(figures),
        _start(figures),
        *_loaded(figures),
        _failures(figures),
    ]
    return [table for table in found if table.lines]


def _saturated(figures: Figures) -> Table:
    """Every contender's best throughput, and its throughput at one load for all."""
    lines: list[tuple[str, ...]] = []
    for scene in figures.scenes(closed.SECTION):
        names = figures.contenders(closed.SECTION, scene)
        load = figures.heaviest_load(closed.SECTION, scene, (CASCADE, *COMPARED))
        ours = figures.best_throughput(closed.SECTION, scene, CASCADE)
        there = {} if load is None else figures.throughput(closed.SECTION, scene, CASCADE, load)
        for name in names:
            best = figures.best_load(closed.SECTION, scene, name)
            theirs = figures.best_throughput(closed.SECTION, scene, name)
            same = {} if load is None else figures.throughput(closed.SECTION, scene, name, load)
            lines.append(
                (
                    scene,
                    name,
                    best or "",
                    _range(theirs.values()),
                    "" if name == CASCADE else _or_nothing(figures.ratio(ours, theirs)),
                    load or "",
                    _range(same.values()),
                    "" if name == CASCADE else _or_nothing(figures.ratio(there, same)),
                )
            )
        usual = shares.name_of_share(USUAL_SHARE)
        bare = figures.values(limit.SECTION, scene, usual, None, "rows_per_s")
        if bare:
            over_it = _or_nothing(figures.ratio(ours, bare))
            there_over_it = _or_nothing(figures.ratio(there, bare))
            lines.append(
                (scene, _LIMIT, "", _range(bare.values()), over_it, load or "", "", there_over_it)
            )
    return Table(
        "Saturated throughput",
        "Requests a second in closed loops: at each contender's best load, and at the heaviest "
        "load that the cascade and those it is judged against all had.",
        (
            "pair/text", "contender", "best load", "requests/s", "cascade over it",
            "one load", "requests/s", "cascade over it",
        ),
        3,
        tuple(lines),
    )  # fmt: skip


def _exited(figures: Figures) -> Table:
    """The exited median over the blocking cascade's, at every load."""
    lines: list[tuple[str, ...]] = []
    for scene in figures.scenes(closed.SECTION):
        best = figures.best_load(closed.SECTION, scene, CASCADE)
        for setting in (CASCADE, EQUAL_SHARES):
            for load in figures.loads(closed.SECTION, scene, setting):
                ours, theirs = (
                    figures.values(closed.SECTION, scene, name, load, "exited.p50_ms")
                    for name in (setting, "blocking")
                )
                ratio = figures.ratio(ours, theirs)
                if ratio is None:
                    continue
                name = f"{load}, judged" if (setting, load) == (CASCADE, best) else load
                medians = (_range(ours.values()), _range(theirs.values()), str(ratio))
                lines.append((scene, setting, name, *medians))
    return Table(
        "Exited requests, over the blocking cascade's",
        "Median latency in ms at every concurrency. Target 1 is judged at the best load of the "
        "setting that answers exited requests first, and so is its throughput.",
        ("pair/text", "setting", "load", "cascade", "blocking", "ratio"),
        3,
        tuple(lines),
    )


def _operating_points(figures: Figures) -> Table:
    """Accuracy and speed-up of the trained pair."""
    lines: list[tuple[str, ...]] = []
    for scene in figures.scenes(accuracy.SECTION):
        speedups = {speedup.name: speedup for speedup in speedups_of(figures, scene)}
        large = figures.best_throughput(shares.SECTION, scene, LARGE)
        for name in figures.contenders(accuracy.SECTION, scene):
            right, deferred = (
                figures.median(accuracy.SECTION, scene, name, None, figure)
                for figure in ("accuracy", "deferral_rate")
            )
            at = speedups.get(name)
            alone = figures.best_throughput(shares.SECTION, scene, name)
            asked = share_in_words(name) if name.startswith("cascade, ") else ""
            lines.append(
                (
                    scene,
                    name if not asked else "cascade",
                    asked,
                    _percent(deferred),
                    _percent(None if at is None else at.share),
                    _or_nothing(figures.ratio(alone, large) if at is None else at.measured),
                    "" if at is None or at.expected is None else f"{at.expected:.2f}",
                    _percent(right),
                    "" if name == LARGE else difference_in_words(figures, scene, name),
                )
            )
    return Table(
        "Operating points: accuracy and speed-up",
        "Accuracy is counted on one half of the rows with thresholds chosen on the other, and the "
        "other way round; the difference from the large member is paired, row by row, with a 95% "
        "bootstrap interval. "
        "Deferred: asked for; in those halves; as served under load, where thresholds are those of "
        "all rows. Speed-up: throughput over the large member alone, at many clients.",
        (
            "pair/text", "contender", "deferred: asked", "counted", "served", "speed-up",
            "promised", "accuracy", "difference, points",
        ),
        2,
        tuple(lines),
    )  # fmt: skip


def _limits(figures: Figures) -> Table:
    lines: list[tuple[str, ...]] = []
    for scene in figures.scenes(limit.SECTION):
        for name in figures.contenders(limit.SECTION, scene):
            rate, guarantee, check, small, large = (
                figures.median(limit.SECTION, scene, name, None, figure)
                for figure in (
                    "rows_per_s", "promised_speedup", "computed_over_measured",
                    "row_ms.0", "row_ms.1",
                )
            )  # fmt: skip
            ratio = large / small if small and large else None
            times = (_number(value) for value in (guarantee, check, ratio))
            lines.append((scene, name, _number(rate, 1), *times))
    return Table(
        "The limit",
        "The bare runtime on all cores, each bucket of lengths at its best batch: no server, no "
        "tokenising, no gate. “Computed over measured” compares the sum of the times with passes "
        "that were really made; the last column is the cost of a row in the large member over its "
        "cost in the small one.",
        ("pair/text", "", "rows/s", "promised speed-up", "computed over measured", "cost ratio"),
        2,
        tuple(lines),
    )


def _settings(figures: Figures) -> Table:
    """What every contender ran with, and where."""
    scenes: dict[tuple[str, str], dict[str, None]] = {}
    for section in (*_LOADED, limit.SECTION):
        for row in figures.measured(section):
            name = row["contender"]
            if section == limit.SECTION:
                name = _LIMIT
            elif section == shares.SECTION and name.startswith("cascade, "):
                name = "cascade"  # one model, whatever it defers
            where = scenes.setdefault((name, row.get("settings", "not recorded")), {})
            where[row["scene"]] = None
    lines = sorted((name, settings, ", ".join(where)) for (name, settings), where in scenes.items())
    return Table(
        "Contenders and their settings", "", ("contender", "settings", "pair/text"), 3, tuple(lines)
    )


def _others(figures: Figures) -> Table:
    """How much of the machine other processes had meanwhile."""
    busy: dict[str, dict[tuple[Any, ...], float]] = {}
    for row in figures.rows:
        cores = row.get("others_cores")
        if cores is not None:
            # One limit makes the rows of all shares.
            what = () if row["section"] == limit.SECTION else (row["contender"], row["load"])
            window = (row["section"], row["repeat"], *what)
            busy.setdefault(row["scene"], {})[window] = float(cores)
    return Table(
        "Other processes",
        "Cores that processes outside the bench kept busy during a window, on average over it.",
        ("pair/text", "windows", "median", "maximum"),
        1,
        tuple(
            (scene, str(len(of)), f"{median(of.values()):.2f}", f"{max(of.values()):.2f}")
            for scene, of in busy.items()
        ),
    )


def _stages(figures: Figures) -> Table:
    """How busy stages were, and with how many rows a call: the rest was lost between calls."""
    lines: list[tuple[str, ...]] = []
    for section in (closed.SECTION, batched.SECTION):
        for scene in figures.scenes(section):
            for name in figures.contenders(section, scene):
                for load in figures.loads(section, scene, name):
                    for stage in _stages_at_work(figures, section, scene, name, load):
                        calls, rows, busy, instances = (
                            figures.median(section, scene, name, load, f"stages.{stage}.{figure}")
                            for figure in ("calls", "rows_per_call", "busy", "instances")
                        )
                        run_s = figures.median(section, scene, name, load, "run_s")
                        rate = calls / run_s if calls and run_s else None
                        lines.append(
                            (
                                scene,
                                name,
                                load,
                                stage,
                                _number(instances, 0),
                                _number(rate, 1),
                                _number(rows, 1),
                                _percent(busy),
                                _percent(None if busy is None else max(0.0, 1 - busy)),
                            )
                        )
    return Table(
        "Stages at work",
        "By Triton's own statistics, over all instances of a stage and the whole of a window: the "
        "share of their time that they were in a call, and the rest, lost between calls. On a "
        "CPU instances share the cores, and a call's time has the waits for one in it; on a GPU "
        "with one instance of each stage, the rest is the device's idle time but for what the "
        "other stage had of it.",
        (
            "pair/text", "contender", "load", "stage", "instances", "calls a second",
            "rows a call", "at work", "between calls",
        ),
        4,
        tuple(lines),
    )  # fmt: skip


def _stages_at_work(
    figures: Figures, section: str, scene: str, contender: str, load: str
) -> list[str]:
    """Stages that did anything in windows of a contender under a load, in their order."""
    windows = figures.measured(section, scene, contender)
    return list(
        dict.fromkeys(
            stage for row in windows if row["load"] == load for stage in row.get("stages", {})
        )
    )


def _start(figures: Figures) -> Table:
    """What it takes before the first answer, in seconds and MB."""
    lines: list[tuple[str, ...]] = []
    for scene in figures.scenes(startup.SECTION):
        for name in figures.contenders(startup.SECTION, scene):
            seconds, size = (
                figures.median(startup.SECTION, scene, name, None, figure)
                for figure in ("seconds", "bytes")
            )
            if seconds is not None:
                lines.append((scene or "any", name, f"{seconds:.1f} s"))
            elif size is not None:
                lines.append((scene or "any", name, f"{size / 1e6:.0f} MB"))
    return Table(
        "Before the first answer",
        "The build began with nothing; the server's files had been read before; memory is "
        "proportional (shared pages are divided among those who share them).",
        ("pair/text", "what", ""),
        2,
        tuple(lines),
    )


def _loaded(figures: Figures) -> Iterator[Table]:
    for section, title in _LOADED.items():
        for scene in figures.scenes(section):
            yield Table(
                f"{title}: {scene}",
                "Medians over the repeats; latencies are medians, with the 99th percentile.",
                (
                    "contender", "load", "requests/s", "all, ms", "exited, ms", "deferred, ms",
                    "deferred", "server's CPU, ms a request", "client's",
                ),
                2,
                tuple(_rows(figures, section, scene)),
            )  # fmt: skip


def _rows(figures: Figures, section: str, scene: str) -> Iterator[tuple[str, ...]]:
    for name in figures.contenders(section, scene):
        for load in figures.loads(section, scene, name):

            def of(figure: str, name: str = name, load: str = load) -> float | None:
                return figures.median(section, scene, name, load, figure)

            achieved = of("achieved_rps")
            latencies = [
                (of(f"{kind}.p50_ms"), of(f"{kind}.p99_ms"))
                for kind in ("all", "exited", "deferred")
            ]
            yield (
                name,
                load if achieved is None else f"{load} asked, {achieved:.4g} achieved",
                _number(of("throughput_rps"), 1),
                *(
                    "" if p50 is None or p99 is None else f"{p50:.1f} ({p99:.1f})"
                    for p50, p99 in latencies
                ),
                _percent(of("deferred_share")),
                _number(of("server_cpu_ms")),
                _number(of("client_cpu_ms")),
            )


def _failures(figures: Figures) -> Table:
    return Table(
        "Not measured",
        "Windows that failed, with the words of the failure.",
        ("section", "pair/text", "contender", "load", "repeat", "words"),
        6,
        tuple(
            (
                row["section"],
                row["scene"],
                row["contender"],
                row["load"],
                str(row["repeat"] + 1),
                f"not measured: {' '.join(str(row['error']).split())}",
            )
            for row in figures.failures()
        ),
    )


def _range(values: Iterable[float]) -> str:
    """The median, with the lowest and the highest."""
    known = sorted(values)
    if len(known) < 2:
        return "".join(f"{value:.1f}" for value in known)
    return f"{median(known):.1f} ({known[0]:.1f}–{known[-1]:.1f})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _number(value: float | None, places: int = 2) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _or_nothing(value: object) -> str:
    return "" if value is None else str(value)
