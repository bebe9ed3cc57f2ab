"""Questions to the rows of a run: medians, best loads, ratios turn by turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..report import Ratio, ratio_of

Row = Mapping[str, Any]
# A share of the best throughput from which on more clients bring latency and little else.
_KNEE = 0.95


@dataclass(frozen=True, slots=True)
class Figures:
    """The rows of a run.

    Attributes:
        rows: in the order in which they were measured.
    """

    rows: Sequence[Row]

    def scenes(self, section: str) -> list[str]:
        """Scenes of a section, in order."""
        return list(dict.fromkeys(r["scene"] for r in self.rows if r["section"] == section))

    def contenders(self, section: str, scene: str) -> list[str]:
        """Contenders of a scene, in order of their names' first appearance, ours first."""
        names = dict.fromkeys(r["contender"] for r in self._of(section, scene))
        return sorted(names, key=lambda name: (name != "cascade", list(names).index(name)))

    def loads(self, section: str, scene: str, contender: str) -> list[str]:
        """Loads of a contender, lightest first."""
        rows = self._of(section, scene, contender)
        weight = {r["load"]: (r["of_load"]["concurrency"], r["of_load"]["rows"]) for r in rows}
        return sorted(weight, key=lambda load: weight[load])

    def values(
        self, section: str, scene: str, contender: str, load: str | None, figure: str
    ) -> dict[int, float]:
        """One figure of every repeat.

        Args:
            section: of the rows.
            scene: likewise.
            contender: likewise.
            load: likewise; None: any.
            figure: a key, or two with a dot between: "exited.p50_ms".
        """
        found: dict[int, float] = {}
        for row in self._of(section, scene, contender):
            value = _figure(row, figure)
            if (load is None or row["load"] == load) and value is not None:
                found[row["repeat"]] = value
        return found

    def median(
        self, section: str, scene: str, contender: str, load: str | None, figure: str
    ) -> float | None:
        """Median over the repeats; None where there is no such figure."""
        values = self.values(section, scene, contender, load, figure)
        return median(values.values()) if values else None

    def best_load(self, section: str, scene: str, contender: str) -> str | None:
        """The load with the highest throughput."""
        loads = self.loads(section, scene, contender)
        rates = {
            load: self.median(section, scene, contender, load, "throughput_rps") for load in loads
        }
        known = {load: rate for load, rate in rates.items() if rate is not None}
        return max(known, key=lambda load: known[load]) if known else None

    def knee(self, section: str, scene: str, contender: str) -> str | None:
        """The lightest load with nearly the highest throughput."""
        loads = self.loads(section, scene, contender)
        rates = [self.median(section, scene, contender, load, "throughput_rps") for load in loads]
        known = [rate for rate in rates if rate is not None]
        if not known:
            return None
        return next(
            load
            for load, rate in zip(loads, rates, strict=True)
            if rate is not None and rate >= _KNEE * max(known)
        )

    def ratio(self, ours: Mapping[int, float], theirs: Mapping[int, float]) -> Ratio | None:
        """Ours over theirs, turn by turn; None where no turn has both."""
        turns = sorted(set(ours) & set(theirs))
        if not turns:
            return None
        return ratio_of([ours[turn] for turn in turns], [theirs[turn] for turn in turns])

    def best_throughput(self, section: str, scene: str, contender: str) -> dict[int, float]:
        """Throughput of every repeat at the contender's best load."""
        load = self.best_load(section, scene, contender)
        return self.values(section, scene, contender, load, "throughput_rps") if load else {}

    def _of(self, section: str, scene: str, contender: str | None = None) -> Iterable[Row]:
        return (
            r
            for r in self.rows
            if r["section"] == section
            and r["scene"] == scene
            and (contender is None or r["contender"] == contender)
        )


def _figure(row: Row, name: str) -> float | None:
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else float(value)
