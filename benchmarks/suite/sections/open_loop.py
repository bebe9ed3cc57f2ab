"""An open loop at half of what the cascade can hold: what exited requests wait for."""

from __future__ import annotations

from statistics import median

from cascadebert_build.errors import UsageError

from ...tools.perf_analyzer import Load
from ..bench import TritonSide
from ..cascade_settings import CASCADE
from ..contender import Contender
from ..record import Record
from ..results import Figures
from . import closed_loop as closed

SECTION = "open"
RATE_OF_SATURATION = 0.5


def measure_mixed_load(side: TritonSide, others: list[Contender]) -> None:
    """The cascade, the blocking one and the members alone at the same rate.

    Whoever cannot hold it leaves rows with an error: latencies would only say how long it was
    tried.

    Args:
        side: the server.
        others: the cascade at other settings.
    """
    contenders = [side.cascade(), *others, side.blocking(), side.small(), side.large()]
    side.bench.take_turns(SECTION, side.scene, contenders, [load_of_scene(side)])


def load_of_scene(side: TritonSide) -> Load:
    """The one load of the section: of a run that goes on, the one that it had before.

    Raises:
        UsageError: no window of the closed loops was measured.
    """
    for row in side.bench.record.rows():
        if (row["section"], row["scene"]) == (SECTION, side.scene.name):
            return side.bench.open(row["of_load"]["rate_rps"])
    saturation = saturation_rps(side.bench.record, side.scene.name)
    return side.bench.open(float(f"{RATE_OF_SATURATION * saturation:.2g}"))


def saturation_rps(record: Record, scene: str) -> float:
    """The cascade's best throughput in the closed loops: the median of its best concurrency.

    Args:
        record: of the run.
        scene: pair/corpus.

    Raises:
        UsageError: no window of its closed loops was measured.
    """
    rates = Figures(record.rows()).best_throughput(closed.SECTION, scene, CASCADE)
    if not rates:
        raise UsageError(
            f"the open loop of {scene} has half of the rate that its closed loops reach at best, "
            "and this run has none of them: --only closed open"
        )
    return median(rates.values())
