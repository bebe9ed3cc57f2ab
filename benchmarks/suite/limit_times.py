"""What the limit says of one stage in the bare runtime: no server, no gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import numpy as np

from .results import Results
from .sections import limit
from .sections.shares import name_of_share

# This row of the limit keeps the times of all buckets, because all rows reach all stages.
_ALL_DEFERRED = name_of_share(1.0)


def small_stage_ms(results: Results, workload: str, rows: int) -> dict[int, float]:
    """Return the milliseconds of one call of the small stage, by repeat.

    The call has the machine to itself and uses one thread. For one row, this is the mean over the
    lengths of the corpus. For several rows, it is the time in the bucket with most rows, because
    the gate's requests are made from that bucket.

    Args:
        results: The results of the run.
        workload: The workload of the limit.
        rows: The rows of the call. A repeat that did not time this many rows is left out.
    """
    found = {
        repeat: _call_ms(stage, processes, rows)
        for repeat, stage, processes in _small_stages(results, workload)
    }
    return {repeat: ms for repeat, ms in found.items() if ms is not None}


def mean_tokens(results: Results, workload: str) -> float | None:
    """Return the mean padded length of a row in the small stage; None: no limit was measured."""
    means = [
        _mean(stage["buckets"], [bucket["length"] for bucket in stage["buckets"]])
        for _, stage, _ in _small_stages(results, workload)
    ]
    return median(means) if means else None


def _small_stages(results: Results, workload: str) -> Iterator[tuple[int, Mapping[str, Any], int]]:
    """Yield (repeat, stage, processes) of every limit."""
    for line in results.lines(limit.SECTION, workload, _ALL_DEFERRED):
        if isinstance(stages := line.get("limit.stages"), list):
            yield int(line["repeat"]), stages[0], int(line["limit.processes"])


def _call_ms(stage: Mapping[str, Any], processes: int, rows: int) -> float | None:
    buckets = stage["buckets"]
    if rows > 1:
        buckets = [max(buckets, key=lambda bucket: bucket["share"])]
    rates = [bucket["tried"].get(str(rows)) for bucket in buckets]
    if None in rates:
        return None
    # The batch sizes were tried on all cores at once. One process alone is faster by the factor
    # that was measured at the best batch size of the bucket.
    times = [
        bucket["row_alone_ms"] / bucket["row_ms"] * 1000 * processes * rows / rate
        for bucket, rate in zip(buckets, rates, strict=True)
    ]
    return _mean(buckets, times)


def _mean(buckets: list[Mapping[str, Any]], values: list[float]) -> float:
    """Return the mean over the rows of the buckets."""
    return float(np.average(values, weights=[bucket["share"] for bucket in buckets]))
