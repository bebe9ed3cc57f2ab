"""perf_analyzer's profile export: every request with its times and its answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.errors import CheckFailed
from cascadebert_core.contract import EXIT_STAGE

_NS_PER_MS = 1e6
_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """One request as the client saw it.

    Attributes:
        start_ns, end_ns: when it was sent and when its answer had come, on the client's clock.
        exit_stages: the stage that answered each of its rows; empty where the model has no such
            output.
    """

    start_ns: int
    end_ns: int
    exit_stages: tuple[int, ...]

    @property
    def latency_ms(self) -> float:
        """From sending to the whole answer."""
        return (self.end_ns - self.start_ns) / _NS_PER_MS

    @property
    def deferred(self) -> bool | None:
        """Whether a row of it went beyond the first stage; None where nobody said."""
        return any(stage > 0 for stage in self.exit_stages) if self.exit_stages else None


@dataclass(frozen=True, slots=True)
class Profile:
    """One run of perf_analyzer at one concurrency.

    Attributes:
        requests: those answered between `start_ns` and `end_ns`, whenever they were sent: to ask
            for both ends would leave out more of the slow ones.
        sent: how many were sent in that time.
        total: requests of the whole run, the ramp included.
        start_ns, end_ns: the time measured, on the client's clock.
        run_s: from the first request of the whole run to its last answer.
    """

    requests: tuple[TimedRequest, ...]
    sent: int
    total: int
    start_ns: int
    end_ns: int
    run_s: float

    @property
    def duration_s(self) -> float:
        """The time measured."""
        return (self.end_ns - self.start_ns) / _NS_PER_S

    @property
    def throughput_rps(self) -> float:
        """Answers per second. perf_analyzer prints one too, over whole windows with the ramp."""
        return len(self.requests) / self.duration_s

    @property
    def sent_rps(self) -> float:
        """Requests sent per second: the rate of an open loop, as it came about."""
        return self.sent / self.duration_s

    @property
    def deferred_share(self) -> float:
        """Share of the requests that went beyond the first stage, as measured."""
        return sum(request.deferred is True for request in self.requests) / len(self.requests)

    def latencies_ms(self, *, deferred: bool | None = None) -> NDArray[np.float64]:
        """Latencies of the deferred or the exited requests, or of all; shape (n,)."""
        return np.array(
            [r.latency_ms for r in self.requests if deferred is None or r.deferred == deferred]
        )


def profile_from_export(path: Path, ramp_s: float) -> Profile:
    """Read a profile export with one experiment.

    Args:
        path: what `--profile-export-file` wrote.
        ramp_s: answers within this time after the first request are left out: connections are
            new then, the clients still in step, and the queue of deferred rows not yet as long
            as it will be.

    Raises:
        CheckFailed: there is nothing to measure in it, or a request has no answer.
    """
    experiments = json.loads(path.read_text(encoding="utf-8"))["experiments"]
    if len(experiments) != 1 or not experiments[0]["requests"]:
        raise CheckFailed(f"{path} has {len(experiments)} experiments: expected one with requests")
    requests = [_request(raw) for raw in experiments[0]["requests"]]
    first_ns = min(request.start_ns for request in requests)
    last_ns = max(request.end_ns for request in requests)
    start_ns = first_ns + round(ramp_s * _NS_PER_S)
    boundaries: list[int] = experiments[0].get("window_boundaries") or []
    end_ns = boundaries[-1] if boundaries else last_ns
    answered = tuple(r for r in requests if start_ns <= r.end_ns <= end_ns)
    if not answered or end_ns <= start_ns:
        raise CheckFailed(f"no answer of {path} falls after the ramp of {ramp_s} s")
    sent = sum(start_ns <= r.start_ns <= end_ns for r in requests)
    run_s = (last_ns - first_ns) / _NS_PER_S
    return Profile(answered, sent, len(requests), start_ns, end_ns, run_s)


def _request(raw: dict[str, Any]) -> TimedRequest:
    if not raw["response_timestamps"]:
        raise CheckFailed("perf_analyzer exported a request without an answer")
    outputs = raw.get("response_outputs") or [{}]
    stages = _stages(outputs[-1])
    # One row comes as a number, several as a list.
    return TimedRequest(
        raw["timestamp"],
        raw["response_timestamps"][-1],
        (stages,) if isinstance(stages, int) else tuple(stages),
    )


def _stages(output: dict[str, Any]) -> int | list[int] | tuple[int, ...]:
    """Exit stages in an answer of Triton, or in the JSON text of another server."""
    if "response" not in output:
        return output.get(EXIT_STAGE, ())
    try:
        return json.loads(output["response"])[EXIT_STAGE.lower()]
    except (ValueError, TypeError, KeyError) as exc:
        raise CheckFailed(f"the server answered {output['response']!r:.200}") from exc
