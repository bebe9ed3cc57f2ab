"""The tables of the bench's report. `tables.toml` describes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from ..tools.ratio import ratio_by_repeat
from . import names
from .data import read_data
from .ratios import COMPARED, difference_in_words, rates_of
from .results import KEYS, Results
from .speedups import speedups_of
from .targets import Verdict, elsewhere_of

_LOADED: dict[str, str] = read_data("tables")["windows"]["sections"]


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
    asked = [verdict for verdict in verdicts if verdict.asked]
    return [_verdicts("targets", asked), _table("elsewhere", elsewhere_of(results))]


def information_tables(verdicts: Sequence[Verdict]) -> list[Table]:
    """Return the ratios that are for information; empty if none was measured."""
    found = [verdict for verdict in verdicts if not verdict.asked]
    return [_verdicts("information", found)] if found else []


def tables_of_run(results: Results) -> list[Table]:
    """Return all other tables that have a line, in the order of the report."""
    found = [
        _table("saturated", _saturated(results)),
        _table("exited", _exited(results)),
        _table("operating_points", _operating_points(results)),
        _table("limit", _limits(results)),
        _table("settings", _settings(results)),
        _table("other_processes", _other_processes(results)),
        _table("stages", _stages(results)),
        _table("startup", _startup(results)),
        *_windows(results),
        _table("failures", _failures(results)),
    ]
    return [table for table in found if table.lines]


def _table(kind: str, lines: Any, **filled: str) -> Table:
    """Make a table of lines, or of a frame that has the figures of the columns."""
    of = read_data("tables")[kind]
    if isinstance(lines, pd.DataFrame):
        columns = [_texts(lines, *figure_and_format) for _, *figure_and_format in of["columns"]]
        lines = zip(*columns, strict=True)
    return Table(
        of["title"].format(**filled),
        of["note"],
        tuple(column[0] for column in of["columns"]),
        of["words"],
        tuple(tuple(map(_text, line)) for line in lines),
    )


def _texts(lines: Any, figure: str, form: str = "") -> list[str]:
    return [_text(value, form) for value in lines.reindex(columns=[figure])[figure]]


def verdicts_table(verdicts: Sequence[Verdict]) -> Table:
    """Return verdicts as a table, for a report of another bench."""
    return _verdicts("targets", verdicts)


def _verdicts(kind: str, verdicts: Sequence[Verdict]) -> Table:
    return _table(
        kind, [(v.number, v.workload, v.claim, v.word, v.wanted, v.measured, v.beside)
               for v in verdicts]
    )  # fmt: skip


def _saturated(results: Results) -> Iterator[tuple[Any, ...]]:
    """Yield every contender's best throughput, and its throughput at one load for all."""
    for workload in results.workloads(names.CLOSED):
        one_load = results.heaviest_common_load(names.CLOSED, workload, COMPARED) or ""
        for name in (*results.contenders(names.CLOSED, workload), names.THE_LIMIT):
            line: list[Any] = []
            for load in (None, one_load):
                ours, theirs = (
                    {} if load == "" else rates_of(results, workload, of, load)
                    for of in (names.CASCADE, name)
                )
                shown = "" if load and name == names.THE_LIMIT else _range(theirs.values())
                over = None if name == names.CASCADE else ratio_by_repeat(ours, theirs)
                best = results.best_load(names.CLOSED, workload, name) if load is None else load
                line += [best, shown, over]
            if any(line[1:3]):
                yield workload, name, *line


def _exited(results: Results) -> Iterator[tuple[Any, ...]]:
    """Yield the exited median over the blocking cascade's, at every load."""
    for workload in results.workloads(names.CLOSED):
        best = results.best_load(names.CLOSED, workload, names.CASCADE)
        for load in results.loads(names.CLOSED, workload, names.CASCADE).index:
            ours, theirs = (
                results.values(names.CLOSED, workload, name, "exited.p50_ms", load)
                for name in (names.CASCADE, names.BLOCKING)
            )
            ratio = ratio_by_repeat(ours, theirs)
            if ratio is not None:
                name = f"{load}, judged" if load == best else load
                yield workload, name, _range(ours.values()), _range(theirs.values()), ratio


def _operating_points(results: Results) -> Iterator[tuple[Any, ...]]:
    """Yield accuracy and speed-up of the trained pair."""
    for workload in results.workloads(names.ACCURACY):
        speedups = {speedup.name: speedup for speedup in speedups_of(results, workload)}
        large = results.throughput(names.SHARES, workload, names.LARGE)
        for name in results.contenders(names.ACCURACY, workload):
            right, deferred = (
                results.median(names.ACCURACY, workload, name, figure)
                for figure in ("accuracy", "deferral_rate")
            )
            at, asked = speedups.get(name), names.share_in_words(name)
            alone = ratio_by_repeat(results.throughput(names.SHARES, workload, name), large)
            yield (
                workload,
                names.CASCADE if asked else name,
                asked,
                _text(deferred, ".1%"),
                _text(at and at.share, ".1%"),
                at.measured if at else alone,
                _text(at and at.expected, ".2f"),
                _text(right, ".1%"),
                "" if name == names.LARGE else difference_in_words(results, workload, name),
            )


def _limits(results: Results) -> Any:
    lines = _medians(results, names.LIMIT)
    times = lines.reindex(columns=["row_ms.0", "row_ms.1"])
    return lines.assign(cost_ratio=times["row_ms.1"] / times["row_ms.0"])


def _settings(results: Results) -> Any:
    """Return what every contender ran with, and on which workloads."""
    frame = results.frame.reindex(columns=[*KEYS, "settings"]).fillna({"settings": "not recorded"})
    used = frame[frame["section"].isin([*_LOADED, names.LIMIT])].copy()
    used.loc[used["section"] == names.LIMIT, "contender"] = names.THE_LIMIT
    # The operating points are one model.
    points = used["contender"].map(names.share_in_words).astype(bool)
    used.loc[points & (used["section"] == names.SHARES), "contender"] = names.CASCADE
    by_settings = used.groupby(["contender", "settings"])["workload"]
    return by_settings.agg(lambda of: ", ".join(of.unique())).reset_index()


def _other_processes(results: Results) -> Any:
    """Return how much of the machine other processes used."""
    frame = results.frame.reindex(columns=[*KEYS, "repeat", "others_cores"])
    windows = frame.dropna(subset=["others_cores"]).copy()
    # One measurement of the limit makes the rows of all shares.
    windows.loc[windows["section"] == names.LIMIT, ["contender", "load"]] = ""
    windows = windows.drop_duplicates([*KEYS, "repeat"], keep="last")
    used = windows.groupby("workload", sort=False)["others_cores"]
    return used.agg(["size", "median", "max"]).reset_index()


def _stages(results: Results) -> Any:
    """Return how busy the stages were, and with how many rows per call."""
    windows = results.medians.reset_index()
    windows = windows[windows["section"].isin([names.CLOSED, names.ROWS])]
    columns = [name.split(".") for name in windows if name.startswith("stages.")]
    found: list[Any] = []
    for stage in dict.fromkeys(stage for _, stage, _ in columns):
        own = {f"stages.{of}.{figure}": figure for _, of, figure in columns if of == stage}
        work = windows[[*KEYS, "run_s", *own]].rename(columns=own).dropna(subset=["calls"])
        rates = {"calls_per_s": work["calls"] / work["run_s"]}
        found.append(work.assign(stage=stage, idle=(1 - work["busy"]).clip(lower=0), **rates))
    return pd.concat(found).sort_index(kind="stable") if found else windows[:0]


def _startup(results: Results) -> Any:
    """Return the time before the first answer in seconds, and sizes in MB."""
    lines = _medians(results, names.STARTUP).replace({"workload": {"": "any"}})
    figures = lines.reindex(columns=["seconds", "bytes"])
    seconds = figures["seconds"].map("{:.1f} s".format)
    return lines.assign(shown=seconds.where(
        figures["seconds"].notna(), (figures["bytes"] / 1e6).map("{:.0f} MB".format)
    ))  # fmt: skip


def _windows(results: Results) -> Iterator[Table]:
    for section, title in _LOADED.items():
        for workload, of in _medians(results, section).groupby("workload", sort=False):
            shown: dict[str, Any] = {}
            for kind in ("all", "exited", "deferred"):
                p50, p99 = (
                    _texts(of, f"{kind}.{figure}", ".1f") for figure in ("p50_ms", "p99_ms")
                )
                shown[kind] = [f"{a} ({b})" if a else "" for a, b in zip(p50, p99, strict=True)]
            achieved = zip(of["load"], _texts(of, "achieved_rps", ".4g"), strict=True)
            shown["load"] = [f"{a} asked, {b} achieved" if b else a for a, b in achieved]
            yield _table("windows", of.assign(**shown), section=title, workload=str(workload))


def _failures(results: Results) -> Iterator[tuple[Any, ...]]:
    for row in results.failures():
        error = f"not measured: {' '.join(str(row['error']).split())}"
        yield (
            *(row[name] for name in ("section", "scene", "contender", "load")),
            row["repeat"] + 1,
            error,
        )


def _medians(results: Results, section: str) -> Any:
    """Return the medians of a section, its keys as columns."""
    medians = results.medians.reset_index()
    return medians[medians["section"] == section]


def _range(values: Iterable[float]) -> str:
    """Return the median, with the lowest and the highest."""
    known = sorted(values)
    if len(known) < 2:
        return "".join(f"{value:.1f}" for value in known)
    return f"{median(known):.1f} ({known[0]:.1f}–{known[-1]:.1f})"


def _text(value: Any, form: str = "") -> str:
    """Return a value as text; None and NaN are empty."""
    return "" if pd.isna(value) else format(value, form) if form else str(value)
