"""An open loop at half of what the cascade can hold: what exited requests wait for."""

from __future__ import annotations

from statistics import median

from cascadebert_build.errors import CheckFailed, UsageError

from ...perf_analyzer import Load
from ..bench import TritonSide
from ..cascade_settings import CASCADE
from ..contender import Contender
from ..figures import Figures
from ..record import Record
from . import closed

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


def require_closed(record: Record, scene: str) -> None:
    """Refuse an open loop that nobody can know the rate of, before anything is built for it.

    Args:
        record: of the run.
        scene: pair/corpus.

    Raises:
        UsageError: its closed loops were not measured.
    """
    if not Figures(record.rows()).best_throughput(closed.SECTION, scene, CASCADE):
        raise UsageError(
            f"the open loop of {scene} has half of the rate that its closed loops reach at best, "
            "and this run has none of them: --only closed open"
        )


def load_of_scene(side: TritonSide) -> Load:
    """The one load of the section: of a run that goes on, the one that it had before.

    Raises:
        CheckFailed: there is no window of the closed loops.
    """
    for row in side.bench.record.rows():
        if (row["section"], row["scene"]) == (SECTION, side.scene.name):
            return side.bench.open(row["of_load"]["rate_rps"])
    return side.bench.open(float(f"{RATE_OF_SATURATION * saturation_rps(side):.2g}"))


def saturation_rps(side: TritonSide) -> float:
    """The cascade's best throughput in the closed loops: the median of its best concurrency.

    Raises:
        CheckFailed: there is no window of the closed loops.
    """
    figures = Figures(side.bench.record.rows())
    rates = figures.best_throughput(closed.SECTION, side.scene.name, CASCADE)
    if not rates:
        raise CheckFailed(
            f"no closed loop of {side.scene.name} has succeeded, and half of the best throughput "
            "is the rate of the open one"
        )
    return median(rates.values())
