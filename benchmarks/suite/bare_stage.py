"""The small stage in the bare runtime, as the limit has timed it: no server, no gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from .results import Figures
from .sections import limit
from .sections.shares import name_of_share

# The limit's row that keeps the times of all buckets, since all rows reach all stages.
_ALL_DEFERRED = 1.0


def small_stage_ms(figures: Figures, scene: str, rows: int) -> dict[int, float]:
    """Milliseconds of one call of the small stage in every repeat; none where it was not timed.

    One process that has the machine to itself, one thread. Calls of one row take the mean over the
    lengths of the corpus; larger ones have rows of the fullest bucket, as the gate's requests have.

    Args:
        figures: of the run.
        scene: of the limit.
        rows: of the call.
    """
    found = {
        repeat: _call_ms(stage, processes, rows)
        for repeat, stage, processes in _small_stages(figures, scene)
    }
    return {repeat: ms for repeat, ms in found.items() if ms is not None}


def mean_tokens(figures: Figures, scene: str) -> float | None:
    """Tokens of a row in the small stage, padded to its bucket; None where there is no limit."""
    means = [
        _mean(stage["buckets"], [bucket["length"] for bucket in stage["buckets"]])
        for _, stage, _ in _small_stages(figures, scene)
    ]
    return median(means) if means else None


def _small_stages(figures: Figures, scene: str) -> Iterable[tuple[int, Mapping[str, Any], int]]:
    """(repeat, stage, processes) of every limit."""
    for row in figures.measured(limit.SECTION, scene, name_of_share(_ALL_DEFERRED)):
        whole = row.get("limit")
        if whole is not None:
            yield row["repeat"], whole["stages"][0], whole["processes"]


def _call_ms(stage: Mapping[str, Any], processes: int, rows: int) -> float | None:
    buckets = stage["buckets"]
    if rows > 1:
        buckets = [max(buckets, key=lambda bucket: bucket["share"])]
    times: list[float] = []
    for bucket in buckets:
        rate = bucket["tried"].get(str(rows))
        if rate is None:
            return None
        # The sizes were tried on all cores at once; one alone is faster by as much as it is at the
        # bucket's best size, where both were timed.
        alone = bucket["row_alone_ms"] / bucket["row_ms"]
        times.append(alone * 1000 * processes * rows / rate)
    return _mean(buckets, times)


def _mean(buckets: Iterable[Mapping[str, Any]], values: Iterable[float]) -> float:
    """Weighted by the buckets' shares of the rows."""
    shares = [bucket["share"] for bucket in buckets]
    return sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares)
