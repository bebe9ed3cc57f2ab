"""A contender: one way to answer requests, and how it is put under load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from math import sqrt
from typing import Any

from cascadebert_build.errors import CheckFailed

from ..tools.command import say
from ..tools.machine import CpuMeter, quiet_meter
from ..tools.perf_analyzer import Load
from .record import Key, Record

# The window of a slow contender is at most this many times the plan's.
_LONGEST = 6
# A window should have this many answers. With fewer, the median is unstable.
_ANSWERS = 300
# The ramp in 99th percentiles. By then the queue of deferred rows has its final length.
_RAMP = 3
# A closed loop's window should have this many deferred answers for each client. With fewer,
# throughput depends on the queue: as many rows as there are clients may wait at one end of a window
# and not at the other, and a deferred row costs up to a hundred times as much as an exited one.
_DEFERRED = 16
# An open loop must reach this share of its rate.
_HELD = 0.97
# The share of deferred requests may differ from that of the rows by this much, and by this many
# standard deviations of a sample.
_SHARE_OFF = 0.02
_DEVIATIONS = 3


@dataclass(slots=True)
class Contender:
    """One way to answer requests.

    Attributes:
        name: Its name on every plot.
        settings: What it runs with, for people. `measure` may return more exact settings.
        measure: Puts it under a load and returns figures for JSON, `throughput_rps` among them.
        warm_up: Whether a short look comes before the first window of a load. It warms the
            contender up and determines the length of its windows.
        check: Raises CheckFailed if its answers are wrong.
        pids: Returns the ids of its servers' first processes; None: it has no server.
        deferred_share: The share of its rows that it defers; None: not known.
        checked: Whether its answers were checked.
        sized: The loads with the windows that it needs, by the plan's loads.
    """

    name: str
    settings: str
    measure: Callable[[Load], Mapping[str, Any]]
    warm_up: bool = True
    check: Callable[[], None] | None = None
    pids: Callable[[], Sequence[int]] | None = None
    deferred_share: float | None = None
    checked: bool = False
    sized: dict[Load, Load] = field(default_factory=dict[Load, Load])


def take_turns(
    record: Record,
    section: str,
    workload: str,
    *,
    contenders: Sequence[Contender],
    loads: Sequence[Load],
    repeats: Sequence[int],
    look_s: float = 2.0,
    wait_quiet_s: float = 0.0,
) -> None:
    """Measure every contender under every load, in turn. Another one is first each time.

    So a disturbance of the machine affects all contenders, and ratios are taken turn by turn. What
    the record has is not measured again. If a window fails, its row has an `error` and no figures,
    and the other contenders are still measured.

    Args:
        record: The rows.
        section: The section of the bench.
        workload: pair/text.
        contenders: Each is checked once, before its first window.
        loads: The loads of the plan.
        repeats: The numbers of the repeats, from 0.
        look_s: The first look at a contender under a load.
        wait_quiet_s: How long each window may wait until other processes are idle.

    Raises:
        CheckFailed: A contender gives wrong answers.
    """
    for repeat in repeats:
        for turn, load in enumerate(loads):
            first = (repeat + turn) % len(contenders)
            for contender in (*contenders[first:], *contenders[:first]):
                key = Key(section, workload, contender.name, str(load), repeat)
                if key in record:
                    continue
                if contender.check is not None and not contender.checked:
                    contender.check()
                    contender.checked = True
                row = _row(contender, load, look_s, wait_quiet_s)
                record.add(key, row)
                say(f"{section:9} {workload:15} {load!s:16} {repeat + 1}  {_line(contender, row)}")


def sized(load: Load, look: Mapping[str, Any], *, defers: bool = False) -> Load:
    """Return a load with the ramp and the window that a contender needs.

    `look` has the figures of a short window under that load of the plan. `defers` says whether some
    answers are deferred, even if the look has none.
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
    """Return one window as a row, or its error."""
    row: dict[str, Any] = {"settings": contender.settings, "of_load": asdict(planned)}
    try:
        load = _looked_at(contender, planned, look_s)
        row["of_load"] = asdict(load)
        row["date"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        pids = () if contender.pids is None else contender.pids()
        with quiet_meter(pids, wait_quiet_s) as cpu:
            figures = contender.measure(load)
        row["others_cores"] = cpu.others_cores
        if load.rate_rps is not None:
            row |= {"asked_rps": load.rate_rps, "achieved_rps": figures["throughput_rps"]}
            _require_rate(load.rate_rps, figures)
        if contender.deferred_share is not None and load.rows == 1:
            _require_share(contender.deferred_share, figures)
        if pids:
            row |= cpu_of_request(cpu, figures)
        return row | dict(figures)
    except CheckFailed as exc:
        return row | {"error": str(exc)}


def cpu_of_request(cpu: CpuMeter, figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the CPU time of a request in ms: the server's and the load generator's.

    More requests may be answered than exported (`unexported`): with 64 clients and slow answers, a
    twelfth.
    """
    answered = figures["total"] + figures.get("unexported", 0)
    return {
        "server_cpu_ms": 1000 * cpu.server_s / answered,
        "client_cpu_ms": 1000 * cpu.own_s / answered,
    }


def _looked_at(contender: Contender, load: Load, look_s: float) -> Load:
    """Return the load sized for a contender, after a short look at the first time."""
    if not contender.warm_up:
        return load
    if load not in contender.sized:
        try:
            look = contender.measure(replace(load, window_s=look_s, ramp_s=0.0))
        except CheckFailed:  # it is so slow that a part of the look had no answer
            look = contender.measure(replace(load, window_s=_LONGEST * look_s, ramp_s=0.0))
        contender.sized[load] = sized(load, look, defers=bool(contender.deferred_share))
    return contender.sized[load]


def _require_rate(asked_rps: float, figures: Mapping[str, Any]) -> None:
    """Refuse an open loop whose rate was not sent or not answered: its latencies only grow."""
    sent_rps, answered_rps = figures["sent_rps"], figures["throughput_rps"]
    # A Poisson process of n requests has a standard deviation of sqrt(n).
    noise_rps = 2 * sqrt(asked_rps / figures["duration_s"])
    if sent_rps < _HELD * asked_rps - noise_rps or answered_rps < _HELD * sent_rps:
        raise CheckFailed(
            f"the rate was not held: {asked_rps:g} requests/s asked, {sent_rps:.1f} sent, "
            f"{answered_rps:.1f} answered"
        )


def _require_share(expected: float, figures: Mapping[str, Any]) -> None:
    """Refuse a window whose share of deferred requests is not that of the rows."""
    found = figures["deferred_share"]
    noise = _DEVIATIONS * sqrt(expected * (1 - expected) / figures["total"])
    if abs(found - expected) > _SHARE_OFF + noise:
        raise CheckFailed(
            f"{found:.1%} of {figures['total']} requests were deferred, but {expected:.1%} of the "
            "rows are: the requests are not like the rows"
        )


def _line(contender: Contender, row: Mapping[str, Any]) -> str:
    if "error" in row:
        return f"{contender.name:20} failed: {row['error'][:300]}"
    words = f"{contender.name:20} {row['throughput_rps']:8.1f} requests/s"
    for kind in ("exited", "deferred", "all"):
        if latency := row.get(kind):
            words += f"  {kind} {latency['p50_ms']:.1f} ms"
    return words + f"  others {row['others_cores']:.2f} cores"
