"""Questions to the rows of a run: medians, best loads, ratios turn by turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..tools.ratio import Ratio, ratio_of
from .cascade_settings import CASCADE

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """The rows of a run.

    Attributes:
        rows: in the order in which they were measured; one with an `error` has no figures.
    """

    rows: Sequence[Row]

    def failures(self) -> list[Row]:
        """Rows with an error, but for those that were measured after all."""
        measured = {_key(row) for row in self.rows if "error" not in row}
        failed = {_key(row): row for row in self.rows if "error" in row}
        return [row for key, row in failed.items() if key not in measured]

    def scenes(self, *sections: str) -> list[str]:
        """Scenes of these sections, in order."""
        return list(dict.fromkeys(r["scene"] for s in sections for r in self.measured(s)))

    def contenders(self, section: str, scene: str) -> list[str]:
        """Contenders of a scene, in order of their names' first appearance, ours first."""
        names = dict.fromkeys(r["contender"] for r in self.measured(section, scene))
        return sorted(names, key=lambda name: (name != CASCADE, list(names).index(name)))

    def loads(self, section: str, scene: str, contender: str) -> list[str]:
        """Loads of a contender, lightest first."""
        rows = self.measured(section, scene, contender)
        weight = {row["load"]: _weight(row) for row in rows}
        return sorted(weight, key=lambda load: weight[load])

    def values(
        self, section: str, scene: str, contender: str, load: str | None, figure: str
    ) -> dict[int, float]:
        """One figure of every repeat.

        Args:
            section: of the rows.
            scene: likewise.
            contender: likewise.
            load: likewise; None: any, where there is but one.
            figure: a key, or several with dots between: "exited.p50_ms", "row_ms.0".
        """
        found: dict[int, float] = {}
        for row in self.measured(section, scene, contender):
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

    def heaviest_load(self, section: str, scene: str, contenders: Sequence[str]) -> str | None:
        """The heaviest load that all of these contenders have, of those that were measured."""
        loads = [self.loads(section, scene, name) for name in contenders]
        known = [of_one for of_one in loads if of_one]
        if not known:
            return None
        return next((load for load in reversed(known[0]) if all(load in of for of in known)), None)

    def ratio(self, ours: Mapping[int, float], theirs: Mapping[int, float]) -> Ratio | None:
        """Ours over theirs, turn by turn; None where no turn has both."""
        turns = sorted(set(ours) & set(theirs))
        if not turns:
            return None
        return ratio_of([ours[turn] for turn in turns], [theirs[turn] for turn in turns])

    def best_throughput(self, section: str, scene: str, contender: str) -> dict[int, float]:
        """Throughput of every repeat at the contender's best load."""
        load = self.best_load(section, scene, contender)
        return {} if load is None else self.throughput(section, scene, contender, load)

    def throughput(self, section: str, scene: str, contender: str, load: str) -> dict[int, float]:
        """Throughput of every repeat at a load."""
        return self.values(section, scene, contender, load, "throughput_rps")

    def measured(
        self, section: str, scene: str | None = None, contender: str | None = None
    ) -> Iterable[Row]:
        """Rows with figures, in order; None: any."""
        return (
            r
            for r in self.rows
            if r["section"] == section
            and (scene is None or r["scene"] == scene)
            and (contender is None or r["contender"] == contender)
            and "error" not in r
        )


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("section", "scene", "contender", "load", "repeat"))


def _weight(row: Row) -> tuple[float, int, int]:
    """How heavy a row's load is, to compare it with others of the same section."""
    load = row.get("of_load") or {}
    return load.get("rate_rps") or 0.0, load.get("concurrency", 0), load.get("rows", 1)


def _figure(row: Row, name: str) -> float | None:
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = None
    return None if value is None else float(value)
