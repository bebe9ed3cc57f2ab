"""An open loop at half of what the cascade can hold: what exited requests wait for."""

from __future__ import annotations

from statistics import median

from cascadebert_build.errors import CheckFailed

from ..bench import TritonSide
from ..contender import take_turns
from . import closed

SECTION = "open"
RATE_OF_SATURATION = 0.5


def measure_mixed_load(side: TritonSide) -> None:
    """The cascade, the blocking one and the small member alone at the same rate."""
    bench = side.bench
    load = bench.open(RATE_OF_SATURATION * saturation_rps(side))
    contenders = [side.cascade(), side.blocking(), side.small()]
    take_turns(
        bench.record,
        SECTION,
        side.scene.name,
        contenders=contenders,
        loads=[load],
        repeats=bench.plan.repeats,
    )


def saturation_rps(side: TritonSide) -> float:
    """The cascade's best throughput in the closed loops: the median of its best concurrency.

    Raises:
        CheckFailed: the closed loops were not measured.
    """
    by_load: dict[str, list[float]] = {}
    for row in side.bench.record.rows():
        if (row["section"], row["scene"], row["contender"]) == (
            closed.SECTION,
            side.scene.name,
            "cascade",
        ):
            by_load.setdefault(row["load"], []).append(row["throughput_rps"])
    if not by_load:
        raise CheckFailed(
            "the rate of the open loop is half of the closed ones' best: measure them"
        )
    # Two digits, so that an interrupted run asks for the same load again.
    return float(f"{max(median(values) for values in by_load.values()):.2g}")
