"""One way of answering, and how it is put under load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from math import sqrt
from typing import Any

from cascadebert_build.errors import CheckFailed

from ..tools.machine import CpuMeter, quiet_meter
from ..tools.perf_analyzer import Load
from ..tools.progress import say
from .record import Key, Record

# A window is this much longer at most than the plan's, where a contender is slow.
_LONGEST = 6
# Answers that a window should have: below it a median wanders.
_ANSWERS = 300
# Of the 99th percentile: by then the queue of deferred rows is as long as it will be.
_RAMP = 3
# Deferred answers that a closed loop's window should have, for each of its clients. As many rows as
# there are clients may wait at one end of a window and not at the other, and a deferred row costs
# up to a hundred times an exited one: below it, throughput goes up and down with the queue.
_DEFERRED = 16
# Of the rate that an open loop asks for.
_HELD = 0.97
# By how much the deferred requests' share may miss that of the rows, and by how many standard
# deviations of a sample of so many requests.
_SHARE_OFF = 0.02
_CHANCES = 3


@dataclass(slots=True)
class Known:
    """What is known of a contender since it was started.

    Attributes:
        checked: whether it answers as it should.
        loads: with windows of the length that it needs, by the plan's.
    """

    checked: bool = False
    loads: dict[Load, Load] = field(default_factory=dict[Load, Load])


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of answering.

    Attributes:
        name: on every plot.
        settings: what it runs with, for people; `measure` may say it better.
        measure: puts it under a load; the figures as JSON-able values, `throughput_rps` among them.
        warm_up: whether a short look goes before the first window of a load, which warms it up
            and says how long its windows must be.
        check: raises CheckFailed where it answers otherwise than it should.
        pid: of its server; None: it has none.
        deferred_share: of the rows that it answers; None: not known.
        known: kept here from one turn to the next.
    """

    name: str
    settings: str
    measure: Callable[[Load], Mapping[str, Any]]
    warm_up: bool = True
    check: Callable[[], None] | None = None
    pid: Callable[[], int] | None = None
    deferred_share: float | None = None
    known: Known = field(default_factory=Known)


def take_turns(
    record: Record,
    section: str,
    scene: str,
    *,
    contenders: Sequence[Contender],
    loads: Sequence[Load],
    repeats: Sequence[int],
    look_s: float = 2.0,
    wait_quiet_s: float = 0.0,
) -> None:
    """Measure every contender under every load, in turn; who is first changes each time.

    So what disturbs the machine for a while disturbs all, and ratios are taken turn by turn.
    What the record has already is not measured again. A window that fails leaves a row with its
    `error` and no figures, and the others are measured all the same.

    Args:
        record: for the rows.
        section: of the bench.
        scene: pair/corpus.
        contenders: each checked once, before its first window.
        loads: of the plan.
        repeats: their numbers, from 0 on.
        look_s: of the first look at a contender under a load.
        wait_quiet_s: how long each window may wait for other processes to leave the machine.

    Raises:
        CheckFailed: a contender answers otherwise than it should.
    """
    for repeat in repeats:
        for turn, load in enumerate(loads):
            first = (repeat + turn) % len(contenders)
            for contender in (*contenders[first:], *contenders[:first]):
                key = Key(section, scene, contender.name, str(load), repeat)
                if key in record:
                    continue
                if contender.check is not None and not contender.known.checked:
                    contender.check()
                    contender.known.checked = True
                row = _row(contender, load, look_s, wait_quiet_s)
                record.add(key, row)
                say(f"{section:9} {scene:15} {load!s:16} {repeat + 1}  {_line(contender, row)}")


def sized(load: Load, look: Mapping[str, Any], *, defers: bool = False) -> Load:
    """A load with the ramp and the window that a contender needs.

    Args:
        load: of the plan.
        look: the figures of a short window under that load.
        defers: whether some answers are deferred, though the look may have had none of them yet.
    """
    longest_s = _LONGEST * load.window_s
    ramp_s = min(max(load.ramp_s, _RAMP * look["all"]["p99_ms"] / 1000), longest_s / 2)
    measured_s = max(load.window_s - load.ramp_s, _ANSWERS / look["throughput_rps"])
    deferred = look.get("deferred")
    if load.rate_rps is None and (deferred or defers):
        deferred_rps = (deferred["requests"] if deferred else 1) / look["duration_s"]
        measured_s = max(measured_s, _DEFERRED * load.concurrency / deferred_rps)
    window_s = min(ramp_s + measured_s, longest_s)
    return replace(load, window_s=round(window_s, 2), ramp_s=round(ramp_s, 2))


def _row(contender: Contender, planned: Load, look_s: float, wait_quiet_s: float) -> dict[str, Any]:
    """One window as a row, or what went wrong."""
    row: dict[str, Any] = {"settings": contender.settings, "of_load": asdict(planned)}
    try:
        load = _looked_at(contender, planned, look_s)
        row["of_load"] = asdict(load)
        row["date"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        pid = None if contender.pid is None else contender.pid()
        with quiet_meter(pid, wait_quiet_s) as cpu:
            figures = contender.measure(load)
        row["others_cores"] = cpu.others_cores
        if load.rate_rps is not None:
            row |= {"asked_rps": load.rate_rps, "achieved_rps": figures["throughput_rps"]}
            _require_rate(load.rate_rps, figures)
        if contender.deferred_share is not None and load.rows == 1:
            _require_share(contender.deferred_share, figures)
        if pid is not None:
            row |= cpu_of_request(cpu, figures)
        return row | dict(figures)
    except CheckFailed as exc:
        return row | {"error": str(exc)}


def cpu_of_request(cpu: CpuMeter, figures: Mapping[str, Any]) -> dict[str, float]:
    """CPU of a request, in ms: of the server and of the load generator.

    Args:
        cpu: of the whole run.
        figures: `total` requests of it, and how many more were answered that nobody reported
            (`unexported`): with 64 clients and slow answers, a twelfth.
    """
    answered = figures["total"] + figures.get("unexported", 0)
    return {
        "server_cpu_ms": 1000 * cpu.server_s / answered,
        "client_cpu_ms": 1000 * cpu.own_s / answered,
    }


def _looked_at(contender: Contender, load: Load, look_s: float) -> Load:
    """The load sized for a contender, by a short look at the first time."""
    if not contender.warm_up:
        return load
    if load not in contender.known.loads:
        try:
            look = contender.measure(replace(load, window_s=look_s, ramp_s=0.0))
        except CheckFailed:  # so slow that a part of the look had no answer
            look = contender.measure(replace(load, window_s=_LONGEST * look_s, ramp_s=0.0))
        contender.known.loads[load] = sized(load, look, defers=bool(contender.deferred_share))
    return contender.known.loads[load]


def _require_rate(asked_rps: float, figures: Mapping[str, Any]) -> None:
    """Refuse an open loop whose rate was not sent or not answered: its latencies only grow."""
    sent_rps, answered_rps = figures["sent_rps"], figures["throughput_rps"]
    # A Poisson process of n requests has a standard deviation of sqrt(n).
    chance_rps = 2 * sqrt(asked_rps / figures["duration_s"])
    if sent_rps < _HELD * asked_rps - chance_rps or answered_rps < _HELD * sent_rps:
        raise CheckFailed(
            f"the rate was not held: {asked_rps:g} requests/s asked, {sent_rps:.1f} sent, "
            f"{answered_rps:.1f} answered"
        )


def _require_share(expected: float, figures: Mapping[str, Any]) -> None:
    """Refuse a window in which other rows were answered than the contender was given."""
    found = figures["deferred_share"]
    chance = _CHANCES * sqrt(expected * (1 - expected) / figures["total"])
    if abs(found - expected) > _SHARE_OFF + chance:
        raise CheckFailed(
            f"{found:.1%} of {figures['total']} requests were deferred, where it is {expected:.1%} "
            "of the rows: the requests are not like the rows"
        )


def _line(contender: Contender, row: Mapping[str, Any]) -> str:
    if "error" in row:
        return f"{contender.name:20} failed: {row['error'][:300]}"
    words = f"{contender.name:20} {row['throughput_rps']:8.1f} requests/s"
    for kind in ("exited", "deferred", "all"):
        if latency := row.get(kind):
            words += f"  {kind} {latency['p50_ms']:.1f} ms"
    return words + f"  others {row['others_cores']:.2f} cores"
