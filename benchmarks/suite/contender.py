"""One way of answering, and how it is put under load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..perf_analyzer import Load
from ..progress import say
from .record import Key, Record

_WARM_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of answering.

    Attributes:
        name: on every plot.
        settings: what it runs with, for people.
        measure: puts it under a load; the figures as JSON-able values, `throughput_rps` among them.
        warm_up: whether a short load goes before the first measurement.
    """

    name: str
    settings: str
    measure: Callable[[Load], Mapping[str, Any]]
    warm_up: bool = True


def take_turns(
    record: Record,
    section: str,
    scene: str,
    *,
    contenders: Sequence[Contender],
    loads: Sequence[Load],
    repeats: int,
) -> None:
    """Measure every contender under every load, in turn; who is first changes each time.

    So what disturbs the machine for a while disturbs all, and ratios are taken turn by turn.
    What the record has already is not measured again.
    """
    warm: set[str] = set()
    for repeat in range(repeats):
        for turn, load in enumerate(loads):
            first = (repeat + turn) % len(contenders)
            for contender in (*contenders[first:], *contenders[:first]):
                key = Key(section, scene, contender.name, str(load), repeat)
                if key in record:
                    continue
                if contender.warm_up and contender.name not in warm:
                    contender.measure(Load(8, window_s=_WARM_UP_S, ramp_s=0.0))
                    warm.add(contender.name)
                figures = dict(contender.measure(load))
                record.add(
                    key, {"settings": contender.settings, "of_load": asdict(load), **figures}
                )
                turn_of = f"{repeat + 1}/{repeats}"
                say(f"{section:9} {scene:15} {load!s:16} {turn_of}  {_line(contender, figures)}")


def _line(contender: Contender, figures: Mapping[str, Any]) -> str:
    words = f"{contender.name:20} {figures['throughput_rps']:8.1f} requests/s"
    for kind in ("exited", "deferred", "all"):
        if latency := figures.get(kind):
            words += f"  {kind} {latency['p50_ms']:.1f} ms"
    if others := figures.get("others_cores"):
        words += f"  others {others:.2f} cores"
    return words
