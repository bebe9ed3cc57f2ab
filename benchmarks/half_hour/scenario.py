"""What happens in the half hour, and the samples that a server would show.

The series, their labels and the shape of every histogram are those of page.txt: the metrics page of
a real server after 4,000 rows. Each phase says how many rows come, and what is wrong. That server
audited nothing, so the gauge of its guarantee is added here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cascadebert_client._metrics_text import samples_from_text
from cascadebert_core.metric_names import BROKEN_GUARANTEE, POLICY

STEP_S = 15
INSTANCE = "triton:8002"
MODEL, LARGE = "demo", "demo_large"
_PAGE = Path(__file__).with_name("page.txt")

# The name and the sorted labels.
Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the time.

    Attributes:
        name: For people.
        minutes: How long it lasts.
        rows_per_s: Rows that callers send, one in a request.
        deferred: Share of the rows that the first stage defers.
        slower: How many times longer everything takes than in the real run.
        queue_s: Mean time of a request in Triton's queue.
        pending: Requests in that queue.
        rejected: Share of requests that are rejected because a queue is full.
        dead: Whether the large stage fails every call.
        broken: Whether audits have said that the guarantee is broken; it never goes back by itself.
    """

    name: str
    minutes: int
    rows_per_s: float
    deferred: float = 0.225
    slower: float = 1.0
    queue_s: float = 0.001
    pending: int = 0
    rejected: float = 0.0
    dead: bool = False
    broken: bool = False


# The first one fills the windows of the rules, and is not shown.
BEFORE = Phase("before", 20, 20)
SCRIPT = (
    Phase("calm", 2, 20),
    Phase("load", 2, 80),
    Phase("burst", 7, 200, slower=120, queue_s=0.6, pending=120, rejected=0.08),
    Phase("calm again", 2, 20),
    Phase("drift", 3, 20, deferred=0.75),
    Phase("broken promise", 16, 20, deferred=0.75, broken=True),
    Phase("large stage dead", 8, 20, dead=True, broken=True),
)


def phases() -> Iterator[tuple[int, Phase]]:
    """Yield the second at which each phase begins, from the start of the script."""
    start_s = -60 * BEFORE.minutes
    for phase in (BEFORE, *SCRIPT):
        yield start_s, phase
        start_s += 60 * phase.minutes


def length_s() -> int:
    """Return the seconds of the script."""
    return 60 * sum(phase.minutes for phase in SCRIPT)


def samples() -> dict[Series, list[float]]:
    """Return a value of each series for every 15 s, from the beginning of `BEFORE`."""
    run = real_run()
    values: dict[Series, list[float]] = {series: [0.0] for series in run}
    up: Series = ("up", (("instance", INSTANCE), ("job", "cascadebert")))
    values[up] = [1.0]
    steps = [p for p in (BEFORE, *SCRIPT) for _ in range(60 * p.minutes // STEP_S)]
    per_step = {phase: _added(run, phase) for phase in {*steps}}
    gauges = {series for series in run if _is_gauge(series[0])}
    for phase in steps:
        for series, column in values.items():
            if series == up:
                column.append(1.0)
            elif series in gauges:
                column.append(_gauge(series, run[series], phase))
            else:
                column.append(column[-1] + per_step[phase][series])
    for series in gauges:
        values[series][0] = values[series][1]
    return values


def real_run() -> dict[Series, float]:
    """Return the samples of the real run."""
    found: dict[Series, float] = {}
    for sample in samples_from_text(_PAGE.read_text(encoding="utf-8")):
        labels = {**sample.labels, "instance": INSTANCE, "job": "cascadebert"}
        found[sample.name, tuple(sorted(labels.items()))] = sample.value
    (policy,) = (dict(labels)["policy"] for name, labels in found if name == POLICY)
    promise = {"operating_point": "default", "action": "alarm", "policy": policy}
    found[_of(BROKEN_GUARANTEE, **promise)] = 0.0
    return found


def _is_gauge(name: str) -> bool:
    prefixes = ("nv_cpu_", "nv_pinned_", "nv_inference_pending", "cascadebert_policy_info")
    own = ("cascadebert_rows_in_flight", "cascadebert_queued_rows", BROKEN_GUARANTEE)
    return name.startswith((*prefixes, *own))


def _gauge(series: Series, real: float, phase: Phase) -> float:
    name, labels = series[0], dict(series[1])
    if name == "nv_cpu_utilization":
        return min(0.98, 0.05 + phase.rows_per_s / 200)
    if name == "nv_inference_pending_request_count":
        return float(phase.pending) if labels["model"] == MODEL else 0.0
    if name == BROKEN_GUARANTEE:
        return float(phase.broken)
    if name == "cascadebert_rows_in_flight":
        return phase.rows_per_s * 0.005 * phase.slower
    if name == "cascadebert_queued_rows":
        deferred = phase.rows_per_s * phase.deferred * 0.002 * phase.slower
        return deferred if labels["stage"] == "1" else 0.0
    return real


def _added(run: Mapping[Series, float], phase: Phase) -> dict[Series, float]:
    """What a step adds to each counter."""
    rows = phase.rows_per_s * STEP_S
    rejected = rows * phase.rejected
    deferred = (rows - rejected) * phase.deferred
    failed = deferred if phase.dead else 0.0
    exited = {"0": rows - rejected - deferred, "1": deferred - failed}
    answered = sum(exited.values())
    real_rows = {stage: run[_of("cascadebert_exited_rows_total", stage=stage)] for stage in "01"}
    real_all = sum(real_rows.values())
    flat = {
        "cascadebert_requests_total": {"answered": answered, "error": failed + rejected},
        "cascadebert_rows_total": {"answered": answered, "error": failed + rejected},
        "cascadebert_errors_total": {"unavailable": rejected, "internal": failed},
    }
    added: dict[Series, float] = {}
    for series, real in run.items():
        name, labels = series[0], dict(series[1])
        stage = labels.get("stage", "")
        if name in flat:
            kind = labels.get("outcome") or labels["kind"]
            value = flat[name].get(kind, 0.0)
        elif name == "cascadebert_exited_rows_total":
            value = exited[stage]
        elif name == "cascadebert_deferred_rows_total":
            value = deferred if stage == "0" else 0.0
        elif name.startswith("cascadebert_latency_seconds"):
            value = _histogram(run, series, exited[stage] / real_rows[stage], phase.slower)
        elif name.startswith("cascadebert_confidence"):
            seen = {"0": rows - rejected, "1": deferred}[stage]
            of_real = {"0": real_all, "1": real_rows["1"]}[stage]
            # On drift the first stage is less sure: its mass moves down.
            lower = 1.0 if stage == "1" or phase.deferred < 0.5 else 0.9
            value = _histogram(run, series, seen / of_real, lower)
        elif name.startswith("nv_inference_"):
            value = _of_triton(
                series, real, phase, exited=exited, real_rows=real_rows, errors=rejected + failed
            )
        else:
            value = 0.0
        added[series] = value
    return added


def _of_triton(
    series: Series,
    real: float,
    phase: Phase,
    *,
    exited: Mapping[str, float],
    real_rows: Mapping[str, float],
    errors: float,
) -> float:
    """What a step adds to one of Triton's counters; those of the cascade count requests."""
    name, labels = series[0], dict(series[1])
    cascade = labels["model"] == MODEL
    if name == "nv_inference_request_failure":
        # An answer that is an error counts as a failure, whatever its reason.
        failures = errors if cascade or (phase.dead and labels["model"] == LARGE) else 0.0
        return failures if labels["reason"] == "BACKEND" else 0.0
    answered = sum(exited.values())
    queue_us = 1e6 * phase.queue_s * answered if cascade else 0.0
    if name == "nv_inference_queue_duration_us" and cascade:
        return queue_us
    share = answered / sum(real_rows.values()) if cascade else exited["1"] / real_rows["1"]
    value = real * share * (phase.slower if "duration" in name else 1.0)
    return value + (queue_us if name == "nv_inference_request_duration_us" else 0.0)


def _of(name: str, **labels: str) -> Series:
    every = {"model": MODEL, "version": "2", "instance": INSTANCE, "job": "cascadebert", **labels}
    return name, tuple(sorted(every.items()))


def _histogram(run: Mapping[Series, float], series: Series, scale: float, stretch: float) -> float:
    """A sample of a histogram whose observations are all `stretch` times the real ones."""
    name, labels = series[0], dict(series[1])
    if not name.endswith("_bucket"):
        return run[series] * scale * (stretch if name.endswith("_sum") else 1.0)
    wanted = float(labels.pop("le")) / stretch
    bounds: list[tuple[float, float]] = [(0.0, 0.0)]
    for (other, other_labels), count in run.items():
        found = dict(other_labels)
        if other == name and {**found, "le": ""} == {**labels, "le": ""}:
            bounds.append((float(found["le"]), count))
    bounds.sort()
    for (low, before), (high, count) in itertools.pairwise(bounds):
        if wanted <= high:
            if high == float("inf"):
                return scale * (count if wanted == high else before)
            return scale * (before + (count - before) * (wanted - low) / (high - low))
    return scale * bounds[-1][1]
