"""The tables of the bench's report, for the page and for its summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from ..tools.ratio import ratio_by_repeat
from .cascade_settings import CASCADE, EQUAL_SHARES
from .ratios import COMPARED, LIMIT, difference_in_words, limit_rows_per_s
from .results import KEYS, Results, is_known
from .sections import (
    accuracy,
    closed_loop,
    gate,
    limit,
    open_loop,
    rows_per_request,
    shares,
    startup,
)
from .speedups import LARGE, share_in_words, speedups_of
from .targets import Verdict, elsewhere_of

# The sections whose rows are listed: contenders under load.
_LOADED = {
    closed_loop.SECTION: "Closed loops",
    open_loop.SECTION: "Open loop",
    shares.SECTION: "Deferral rates",
    rows_per_request.SECTION: "Rows per request",
    gate.SECTION: "The gate",
}
_WORKLOAD = "pair/text"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of plain text.

    Attributes:
        title: The title.
        note: A paragraph above the table, or "".
        names: The names of the columns. Several may be alike.
        words: The number of columns with words, from the first on. The others have figures.
        lines: The cells.
    """

    title: str
    note: str
    names: tuple[str, ...]
    words: int
    lines: tuple[tuple[str, ...], ...]

    @property
    def markdown(self) -> str:
        """The table as Markdown."""
        cells = [[cell.replace("|", "\\|") for cell in line] for line in self.lines]
        align = ["left" if i < self.words else "right" for i in range(len(self.names))]
        frame: Any = pd.DataFrame(cells, columns=range(len(self.names)))
        return frame.to_markdown(
            index=False, headers=self.names, colalign=align, disable_numparse=True
        )


def target_tables(verdicts: Sequence[Verdict], results: Results) -> list[Table]:
    """Return the targets that are ratios, and where the figures of the others are."""
    note = (
        "Median of the repeats, with the lowest and the highest. The median is judged. Throughput "
        "is judged with each contender at its own best load. Beside it is the same ratio at one "
        "load, the heaviest that all compared contenders have. The median time to tokenise a "
        "request is compared with the small stage in the limit's calls of as many rows: for one "
        "row, the mean over the lengths of the text; for 32, the bucket that the requests are made "
        "from. These calls were timed on all cores at once. They are scaled to one process alone "
        "by the gain at the bucket's best batch size."
    )
    asked = [verdict for verdict in verdicts if verdict.asked]
    elsewhere = tuple((str(number), about, where) for number, about, where in elsewhere_of(results))
    return [
        _verdict_table("Targets 1 to 5", note, asked),
        Table("Targets 6 to 9", "", ("", "about", "where"), 3, elsewhere),
    ]


def information_tables(verdicts: Sequence[Verdict]) -> list[Table]:
    """Return the ratios that are for information; empty if none was measured."""
    found = [verdict for verdict in verdicts if not verdict.asked]
    title = "The same ratios of other pairs, texts and settings"
    return [_verdict_table(title, "For information: they have no target.", found)] if found else []


def tables_of_run(results: Results) -> list[Table]:
    """Return all other tables that have a line, in the order of the report."""
    found = [
        _saturated(results),
        _exited(results),
        _operating_points(results),
        _limits(results),
        _settings(results),
        _other_processes(results),
        _stages(results),
        _startup(results),
        *_loaded(results),
        _failures(results),
    ]
    return [table for table in found if table.lines]


def _verdict_table(title: str, note: str, verdicts: Sequence[Verdict]) -> Table:
    lines = tuple(
        (str(v.number), v.workload, v.claim, v.word, v.wanted, _text(v.measured), v.beside)
        for v in verdicts
    )
    names = ("", _WORKLOAD, "ratio", "", "wanted", "measured", "beside it")
    return Table(title, note, names, 4, lines)


def _saturated(results: Results) -> Table:
    """Every contender's best throughput, and its throughput at one load for all."""
    section = closed_loop.SECTION
    lines: list[tuple[str, ...]] = []
    for workload in results.workloads(section):
        load = results.heaviest_common_load(section, workload, COMPARED)
        ours = results.throughput(section, workload, CASCADE)
        there = results.throughput(section, workload, CASCADE, load) if load else {}
        for name in results.contenders(section, workload):
            theirs = results.throughput(section, workload, name)
            same = results.throughput(section, workload, name, load) if load else {}
            is_ours = name == CASCADE
            lines.append(
                (
                    workload,
                    name,
                    results.best_load(section, workload, name) or "",
                    _range(theirs.values()),
                    "" if is_ours else _text(ratio_by_repeat(ours, theirs)),
                    load or "",
                    _range(same.values()),
                    "" if is_ours else _text(ratio_by_repeat(there, same)),
                )
            )
        bare = limit_rows_per_s(results, workload)
        if bare:
            over, there_over = (_text(ratio_by_repeat(of, bare)) for of in (ours, there))
            lines.append(
                (workload, LIMIT, "", _range(bare.values()), over, load or "", "", there_over)
            )
    return Table(
        "Saturated throughput",
        "Requests per second in closed loops: at each contender's best load, and at the heaviest "
        "load that the cascade and the contenders it is judged against all have.",
        (
            _WORKLOAD, "contender", "best load", "requests/s", "cascade over it",
            "one load", "requests/s", "cascade over it",
        ),
        3,
        tuple(lines),
    )  # fmt: skip


def _exited(results: Results) -> Table:
    """The exited median over the blocking cascade's, at every load."""
    section = closed_loop.SECTION
    lines: list[tuple[str, ...]] = []
    for workload in results.workloads(section):
        best = results.best_load(section, workload, CASCADE)
        for setting in (CASCADE, EQUAL_SHARES):
            for load in results.loads(section, workload, setting):
                ours, theirs = (
                    results.values(section, workload, name, "exited.p50_ms", load)
                    for name in (setting, "blocking")
                )
                ratio = ratio_by_repeat(ours, theirs)
                if ratio is None:
                    continue
                name = f"{load}, judged" if (setting, load) == (CASCADE, best) else load
                medians = (_range(ours.values()), _range(theirs.values()), str(ratio))
                lines.append((workload, setting, name, *medians))
    return Table(
        "Exited requests, over the blocking cascade's",
        "Median latency in ms at every concurrency. Target 1 is judged at the best load of "
        "`cascade`, and so is its throughput.",
        (_WORKLOAD, "setting", "load", "cascade", "blocking", "ratio"),
        3,
        tuple(lines),
    )


def _operating_points(results: Results) -> Table:
    """Accuracy and speed-up of the trained pair."""
    lines: list[tuple[str, ...]] = []
    for workload in results.workloads(accuracy.SECTION):
        speedups = {speedup.name: speedup for speedup in speedups_of(results, workload)}
        large = results.throughput(shares.SECTION, workload, LARGE)
        for name in results.contenders(accuracy.SECTION, workload):
            right, deferred = (
                results.median(accuracy.SECTION, workload, name, figure)
                for figure in ("accuracy", "deferral_rate")
            )
            at = speedups.get(name)
            alone = results.throughput(shares.SECTION, workload, name)
            asked = share_in_words(name)
            lines.append(
                (
                    workload,
                    CASCADE if asked else name,
                    asked,
                    _text(deferred, ".1%"),
                    _text(at and at.share, ".1%"),
                    _text(at.measured if at else ratio_by_repeat(alone, large)),
                    _text(at and at.expected, ".2f"),
                    _text(right, ".1%"),
                    "" if name == LARGE else difference_in_words(results, workload, name),
                )
            )
    return Table(
        "Operating points: accuracy and speed-up",
        "Accuracy is counted on each half of the rows with thresholds chosen on the other half. "
        "The difference from the large member is paired, row by row, with a 95% bootstrap "
        "interval. Deferred: the share asked for; the share in those halves; the share as served "
        "under load, with thresholds chosen on all rows. Speed-up: throughput over the large "
        "member alone, with many clients. Expected: by the cost of the stages.",
        (
            _WORKLOAD, "contender", "deferred: asked", "counted", "served", "speed-up",
            "expected", "accuracy", "difference, points",
        ),
        2,
        tuple(lines),
    )  # fmt: skip


def _limits(results: Results) -> Table:
    lines = _medians(results, limit.SECTION)
    if "row_ms.1" in lines:
        lines = lines.assign(cost_ratio=lines["row_ms.1"] / lines["row_ms.0"])
    return Table(
        "The limit",
        "The bare runtime on all cores, each bucket of lengths at its best batch size: no server, "
        "no tokenising, no gate. “Computed over measured” compares the sum of the times with real "
        "passes over the text. The last column is the cost of a row in the large member over its "
        "cost in the small one.",
        (_WORKLOAD, "", "rows/s", "expected speed-up", "computed over measured", "cost ratio"),
        2,
        _cells(
            lines,
            {"workload": "", "contender": "", "rows_per_s": ".1f", "promised_speedup": ".2f",
             "computed_over_measured": ".2f", "cost_ratio": ".2f"},
        ),
    )  # fmt: skip


def _settings(results: Results) -> Table:
    """What every contender ran with, and on which workloads."""
    frame = results.frame
    used = frame[frame["section"].isin([*_LOADED, limit.SECTION])].copy()
    if "settings" not in used:
        used["settings"] = None
    used["settings"] = used["settings"].fillna("not recorded")
    used.loc[used["section"] == limit.SECTION, "contender"] = LIMIT
    # The operating points are one model.
    of_cascade = used["contender"].str.startswith("cascade, ") & (used["section"] == shares.SECTION)
    used.loc[of_cascade, "contender"] = CASCADE
    lines = [
        (*key, ", ".join(dict.fromkeys(group["workload"])))
        for key, group in used.groupby(["contender", "settings"])
    ]
    names = ("contender", "settings", _WORKLOAD)
    return Table("Contenders and their settings", "", names, 3, tuple(lines))


def _other_processes(results: Results) -> Table:
    """How much of the machine other processes used."""
    frame = results.frame
    lines: tuple[tuple[str, ...], ...] = ()
    if "others_cores" in frame:
        windows = frame.dropna(subset=["others_cores"]).copy()
        # One measurement of the limit makes the rows of all shares.
        windows.loc[windows["section"] == limit.SECTION, ["contender", "load"]] = ""
        windows = windows.drop_duplicates([*KEYS, "repeat"], keep="last")
        used = windows.groupby("workload", sort=False)["others_cores"]
        lines = _cells(
            used.agg(["size", "median", "max"]).reset_index(),
            {"workload": "", "size": "", "median": ".2f", "max": ".2f"},
        )
    return Table(
        "Other processes",
        "The cores that processes outside the bench used during a window, on average.",
        (_WORKLOAD, "windows", "median", "maximum"),
        1,
        lines,
    )


def _stages(results: Results) -> Table:
    """How busy the stages were, and with how many rows per call."""
    lines: list[tuple[str, ...]] = []
    columns = [name for name in results.medians if name.startswith("stages.")]
    stages = dict.fromkeys(name.split(".")[1] for name in columns)
    for section in (closed_loop.SECTION, rows_per_request.SECTION):
        for of in _medians(results, section).to_dict("records"):
            for stage in stages:
                calls, rows, busy, instances = (
                    of[f"stages.{stage}.{figure}"]
                    for figure in ("calls", "rows_per_call", "busy", "instances")
                )
                if is_known(calls):
                    lines.append(
                        (
                            of["workload"],
                            of["contender"],
                            of["load"],
                            stage,
                            _text(instances, ".0f"),
                            _text(calls / of["run_s"], ".1f"),
                            _text(rows, ".1f"),
                            _text(busy, ".1%"),
                            _text(max(0.0, 1 - busy), ".1%"),
                        )
                    )
    return Table(
        "Stages at work",
        "By Triton's own statistics, over all instances of a stage and the whole window: the share "
        "of their time in a call, and the rest, which was lost between calls. On a CPU the "
        "instances share the cores, and a call's time includes waiting for one. On a GPU with one "
        "instance of each stage, the rest is the device's idle time, except for what the other "
        "stage used.",
        (
            _WORKLOAD, "contender", "load", "stage", "instances", "calls/s", "rows per call",
            "at work", "between calls",
        ),
        4,
        tuple(lines),
    )  # fmt: skip


def _startup(results: Results) -> Table:
    """The time before the first answer in seconds, and sizes in MB."""
    lines: list[tuple[str, ...]] = []
    for line in _medians(results, startup.SECTION).to_dict("records"):
        size = line.get("bytes", float("nan"))
        shown = _text(line.get("seconds"), ".1f", " s") or _text(size / 1e6, ".0f", " MB")
        lines.append((line["workload"] or "any", line["contender"], shown))
    return Table(
        "Before the first answer",
        "The build started from nothing. The server's files had been read before. Memory is "
        "proportional: shared pages are divided among the processes that share them.",
        (_WORKLOAD, "what", ""),
        2,
        tuple(lines),
    )


def _loaded(results: Results) -> Iterator[Table]:
    names = (
        "contender", "load", "requests/s", "all, ms", "exited, ms", "deferred, ms", "deferred",
        "server's CPU, ms per request", "client's",
    )  # fmt: skip
    for section, title in _LOADED.items():
        medians = _medians(results, section)
        for workload in results.workloads(section):
            lines = tuple(_window(w) for w in medians[medians["workload"] == workload].to_dict(
                "records"))  # fmt: skip
            note = "Medians over the repeats. Latencies are medians, with the 99th percentile."
            yield Table(f"{title}: {workload}", note, names, 2, lines)


def _window(of: dict[str, Any]) -> tuple[str, ...]:
    achieved = _text(of.get("achieved_rps"), ".4g")
    latencies = [
        f"{_text(p50, '.1f')} ({_text(of.get(f'{kind}.p99_ms'), '.1f')})"
        if _text(p50 := of.get(f"{kind}.p50_ms"))
        else ""
        for kind in ("all", "exited", "deferred")
    ]
    return (
        of["contender"],
        f"{of['load']} asked, {achieved} achieved" if achieved else of["load"],
        _text(of.get("throughput_rps"), ".1f"),
        *latencies,
        _text(of.get("deferred_share"), ".1%"),
        _text(of.get("server_cpu_ms"), ".2f"),
        _text(of.get("client_cpu_ms"), ".2f"),
    )


def _failures(results: Results) -> Table:
    lines = [
        (row["section"], row["scene"], row["contender"], row["load"], str(row["repeat"] + 1),
         f"not measured: {' '.join(str(row['error']).split())}")
        for row in results.failures()
    ]  # fmt: skip
    names = ("section", _WORKLOAD, "contender", "load", "repeat", "error")
    return Table("Not measured", "Windows that failed.", names, 6, tuple(lines))


def _medians(results: Results, section: str) -> Any:
    """Return the medians of a section, its keys as columns."""
    medians = results.medians.reset_index()
    return medians[medians["section"] == section]


def _cells(lines: Any, formats: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return the columns of a frame as text; a column that is missing is empty."""
    return tuple(
        tuple(_text(line.get(name), form) for name, form in formats.items())
        for line in lines.to_dict("records")
    )


def _range(values: Iterable[float]) -> str:
    """Return the median, with the lowest and the highest."""
    known = sorted(values)
    if len(known) < 2:
        return "".join(f"{value:.1f}" for value in known)
    return f"{median(known):.1f} ({known[0]:.1f}–{known[-1]:.1f})"


def _text(value: Any, form: str = "", unit: str = "") -> str:
    """Return a value as text; None and NaN are empty."""
    if not is_known(value):
        return ""
    return f"{value:{form}}{unit}" if form else str(value)
