"""The rows of a run as a pandas frame: medians, best loads, figures by repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd

from .names import CASCADE
from .record import Key

Row = Mapping[str, Any]
Repeats = dict[int, float]

# What identifies a measurement, with its repeat.
KEYS = ["section", "workload", "contender", "load"]
_CONTENDER = KEYS[:3]
# Columns by which loads are ordered, lightest first.
_WEIGHT = ["of_load.rate_rps", "of_load.concurrency", "of_load.rows"]


class Results:
    """What a run measured.

    Attributes:
        rows: The recorded rows in the order of their measurement. A row with an `error` has no
            figures.
        frame: One line for each row that has figures. Nested figures are columns with dots:
            `exited.p50_ms`, `row_ms.0`. The recorded key `scene` is the column `workload`.
        medians: The numeric columns of `frame`, medians over the repeats, indexed by `KEYS`:
            `cascade` before other contenders, light loads before heavy ones.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        """Make the frame of recorded rows."""
        self.rows = list(rows)
        measured = [_flat(row) for row in self.rows if "error" not in row]
        frame: Any = pd.json_normalize(measured).rename(columns={"scene": "workload"})
        self.frame: Any = frame.reindex(
            columns=list(dict.fromkeys([*KEYS, "repeat", *_WEIGHT, *frame.columns]))
        )
        self.frame[KEYS] = self.frame[KEYS].astype(object)  # an empty frame has numbers
        self.frame[_WEIGHT] = self.frame[_WEIGHT].astype(float).fillna(0.0)
        self.medians: Any = _ordered(self.frame.groupby(KEYS, sort=False).median(numeric_only=True))
        self._lines: dict[Any, Any] = dict(iter(self.frame.groupby(_CONTENDER, sort=False)))
        self._loads: dict[Any, Any] = {
            key: of.droplevel(_CONTENDER)
            for key, of in self.medians.groupby(level=_CONTENDER, sort=False)
        }

    def failures(self) -> list[Row]:
        """Return the failed rows whose measurement never succeeded."""
        measured = {Key.of_row(row) for row in self.rows if "error" not in row}
        failed = {Key.of_row(row): row for row in self.rows if "error" in row}
        return [row for key, row in failed.items() if key not in measured]

    def workloads(self, *sections: str) -> list[str]:
        """Return the workloads of some sections, in order of measurement."""
        return list(self.frame.loc[self.frame["section"].isin(sections), "workload"].unique())

    def contenders(self, section: str, workload: str) -> list[str]:
        """Return the contenders of a workload in order of measurement, `cascade` first."""
        names = [c for s, w, c in self._lines if (s, w) == (section, workload)]
        return sorted(names, key=lambda name: name != CASCADE)

    def lines(self, section: str, workload: str, contender: str) -> Any:
        """Return the lines of a contender in `frame`, in order of measurement."""
        return self._lines.get((section, workload, contender), self.frame[:0])

    def loads(self, section: str, workload: str, contender: str) -> Any:
        """Return the medians of a contender by load, lightest first."""
        return self._loads.get((section, workload, contender), self.frame[:0])

    def values(
        self, section: str, workload: str, contender: str, figure: str, load: str | None = None
    ) -> Repeats:
        """Return one figure (a column of `frame`) of every repeat under a load; None: any."""
        lines = self.lines(section, workload, contender)
        if figure not in lines:
            return {}
        known = lines if load is None else lines[lines["load"] == load]
        known = known.dropna(subset=[figure])
        return dict(zip(known["repeat"].astype(int), known[figure].astype(float), strict=True))

    def median(
        self, section: str, workload: str, contender: str, figure: str, load: str | None = None
    ) -> float | None:
        """Return the median of a figure over the repeats, or None if it was not measured."""
        values = self.values(section, workload, contender, figure, load)
        return median(values.values()) if values else None

    def best_load(self, section: str, workload: str, contender: str) -> str | None:
        """Return the load with the highest throughput."""
        loads = self.loads(section, workload, contender)
        rates = loads.reindex(columns=["throughput_rps"])["throughput_rps"].dropna()
        return rates.idxmax() if len(rates) else None

    def heaviest_common_load(
        self, section: str, workload: str, contenders: Sequence[str]
    ) -> str | None:
        """Return the heaviest load that all of these contenders have, if they were measured."""
        known = [of for name in contenders if len(of := self.loads(section, workload, name))]
        common = (
            [load for load in known[0].index if all(load in of.index for of in known)]
            if known
            else []
        )
        return common[-1] if common else None

    def throughput(
        self, section: str, workload: str, contender: str, load: str | None = None
    ) -> Repeats:
        """Return the throughput of every repeat under a load; None: under the best one."""
        load = load or self.best_load(section, workload, contender)
        return self.values(section, workload, contender, "throughput_rps", load) if load else {}


def _ordered(medians: Any) -> Any:
    """Sort medians as `Results.medians` says."""
    places: Any = medians.index.to_frame(index=False)[_CONTENDER]
    for name in _CONTENDER:
        places[name] = pd.factorize(places[name])[0]
    places.loc[medians.index.get_level_values("contender") == CASCADE, "contender"] = -1
    places[_WEIGHT] = medians[_WEIGHT].to_numpy()
    return medians.iloc[places.sort_values(list(places.columns), kind="stable").index]


def _flat(row: Row) -> dict[str, Any]:
    """Give every element of the list `row_ms` a column of its own."""
    times = {f"row_ms.{i}": value for i, value in enumerate(row.get("row_ms", ()))}
    return {**{k: v for k, v in row.items() if k != "row_ms"}, **times}
