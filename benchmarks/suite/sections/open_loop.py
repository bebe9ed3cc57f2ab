"""An open loop at half of the cascade's saturation: how long exited requests wait."""

from __future__ import annotations

from statistics import median

from cascadebert_build.errors import UsageError

from ...tools.perf_analyzer import Load
from ..bench import TritonSide
from ..cascade_settings import CASCADE
from ..contender import Contender
from ..record import Record
from ..results import Results
from . import closed_loop

SECTION = "open"
_RATE_OF_SATURATION = 0.5


def measure_open_loop(side: TritonSide, others: list[Contender]) -> None:
    """Measure the cascade, the blocking one and the members alone at the same rate.

    A contender that does not hold the rate leaves rows with an error, because its latencies only
    show how long the window was.

    Args:
        side: The server.
        others: The cascade at other settings.
    """
    contenders = [side.cascade(), *others, side.blocking(), side.small(), side.large()]
    side.bench.take_turns(SECTION, side.workload, contenders, [_load(side)])


def _load(side: TritonSide) -> Load:
    """Return the one load of the section. A continued run keeps the load that it had."""
    for row in side.bench.record.rows():
        if (row["section"], row["scene"]) == (SECTION, side.workload.name):
            return side.bench.open(row["of_load"]["rate_rps"])
    saturation = saturation_rps(side.bench.record, side.workload.name)
    return side.bench.open(float(f"{_RATE_OF_SATURATION * saturation:.2g}"))


def saturation_rps(record: Record, workload: str) -> float:
    """Return the cascade's best throughput in the closed loops, the median over the repeats.

    Raises:
        UsageError: The run has no window of these closed loops.
    """
    rates = Results(record.rows()).throughput(closed_loop.SECTION, workload, CASCADE)
    if not rates:
        raise UsageError(
            f"the open loop of {workload} runs at half of its best rate in closed loops, and this "
            "run has no closed loops: --only closed open"
        )
    return median(rates.values())
