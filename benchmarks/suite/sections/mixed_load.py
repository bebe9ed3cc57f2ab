"""An open loop at half of what the cascade can hold: what exited requests wait for."""

from __future__ import annotations

from statistics import median

from cascadebert_build.errors import CheckFailed

from ...perf_analyzer import Load
from ..bench import TritonSide
from ..cascade_settings import CASCADE
from ..contender import Contender
from ..figures import Figures
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


def load_of_scene(side: TritonSide) -> Load:
    """The one load of the section: of a run that goes on, the one that it had before.

    Raises:
        CheckFailed: the closed loops were not measured.
    """
    for row in side.bench.record.rows():
        if (row["section"], row["scene"]) == (SECTION, side.scene.name):
            return side.bench.open(row["of_load"]["rate_rps"])
    return side.bench.open(float(f"{RATE_OF_SATURATION * saturation_rps(side):.2g}"))


def saturation_rps(side: TritonSide) -> float:
    """The cascade's best throughput in the closed loops: the median of its best concurrency.

    Raises:
        CheckFailed: the closed loops were not measured.
    """
    figures = Figures(side.bench.record.rows())
    rates = figures.best_throughput(closed.SECTION, side.scene.name, CASCADE)
    if not rates:
        raise CheckFailed(
            "the rate of the open loop is half of the closed ones' best: measure them"
        )
    return median(rates.values())
