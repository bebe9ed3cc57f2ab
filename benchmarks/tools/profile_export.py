"""One measured window, from perf_analyzer's profile export: every request, its times and answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_build.errors import CheckFailed
from cascadebert_core.contract import EXIT_STAGE

from .latency import Latency, latency_of, latency_or_none

_NS_PER_MS = 1e6
_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class Window:
    """The figures of one run of perf_analyzer.

    Attributes:
        model: The model that was asked.
        command: The command line of perf_analyzer.
        duration_s: The time measured, without the ramp.
        throughput_rps: Answers per second of that time.
        sent_rps: Requests sent per second: the actual rate of an open loop.
        total: The requests of the whole run, the ramp included.
        run_s: The whole run, from its first request to its last answer.
        all: The latencies of all requests.
        exited: The latencies of requests whose rows were all answered by the first stage; None if
            there are none.
        deferred: The latencies of requests with a row that went further; None if there are none.
        deferred_share: The share of these in all requests.
    """

    model: str
    command: str
    duration_s: float
    throughput_rps: float
    sent_rps: float
    total: int
    run_s: float
    all: Latency
    exited: Latency | None
    deferred: Latency | None
    deferred_share: float


def window_from_export(path: Path, ramp_s: float, model: str = "", command: str = "") -> Window:
    """Read a profile export with one experiment.

    Requests count by the time of their answer. If the time of sending had to be in the window too,
    more slow requests than fast ones would be left out.

    Args:
        path: The file that `--profile-export-file` wrote.
        ramp_s: Answers within this time after the first request are left out. In that time the
            connections are new, the clients are still in step, and the queue of deferred rows is
            still growing.
        model: The model that was asked.
        command: The command line.

    Raises:
        CheckFailed: The file has nothing to measure, or a request has no answer.
    """
    experiments = json.loads(path.read_text(encoding="utf-8"))["experiments"]
    if len(experiments) != 1 or not experiments[0]["requests"]:
        raise CheckFailed(f"{path} has {len(experiments)} experiments: expected one with requests")
    requests: list[dict[str, Any]] = experiments[0]["requests"]
    if not all(request["response_timestamps"] for request in requests):
        raise CheckFailed("perf_analyzer exported a request without an answer")
    sent_ns = np.array([request["timestamp"] for request in requests])
    answered_ns = np.array([request["response_timestamps"][-1] for request in requests])
    stages = [_exit_stages(request) for request in requests]
    # A model without this output has neither exited nor deferred requests.
    exited = np.array([bool(of) and max(of) == 0 for of in stages])
    deferred = np.array([bool(of) and max(of) > 0 for of in stages])

    first_ns, last_ns = int(sent_ns.min()), int(answered_ns.max())
    start_ns = first_ns + round(ramp_s * _NS_PER_S)
    boundaries: list[int] = experiments[0].get("window_boundaries") or []
    end_ns = boundaries[-1] if boundaries else last_ns
    measured = (start_ns <= answered_ns) & (answered_ns <= end_ns)
    if not measured.any() or end_ns <= start_ns:
        raise CheckFailed(f"no answer of {path} falls after the ramp of {ramp_s} s")
    duration_s = (end_ns - start_ns) / _NS_PER_S
    latencies_ms = (answered_ns - sent_ns) / _NS_PER_MS
    return Window(
        model=model,
        command=command,
        duration_s=duration_s,
        throughput_rps=int(measured.sum()) / duration_s,
        sent_rps=int(((start_ns <= sent_ns) & (sent_ns <= end_ns)).sum()) / duration_s,
        total=len(requests),
        run_s=(last_ns - first_ns) / _NS_PER_S,
        all=latency_of(latencies_ms[measured]),
        exited=latency_or_none(latencies_ms[measured & exited]),
        deferred=latency_or_none(latencies_ms[measured & deferred]),
        deferred_share=float(deferred[measured].mean()),
    )


def _exit_stages(request: dict[str, Any]) -> list[int]:
    """Return the exit stages of a request's rows: Triton's output, or JSON of another server."""
    output = (request.get("response_outputs") or [{}])[-1]
    if "response" in output:
        try:
            return json.loads(output["response"])[EXIT_STAGE.lower()]
        except (ValueError, TypeError, KeyError) as exc:
            raise CheckFailed(f"the server answered {output['response']!r:.200}") from exc
    stages = output.get(EXIT_STAGE, [])
    return [stages] if isinstance(stages, int) else stages  # one row comes as a number
