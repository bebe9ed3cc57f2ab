"""A measured window from perf_analyzer's profile export: every request, its times and answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_build.errors import CheckFailed
from cascadebert_core.contract import EXIT_STAGE

from .window import Window, window_of_requests


def window_from_export(path: Path, ramp_s: float, command: str = "") -> Window:
    """Read a profile export with one experiment.

    Args:
        path: The file that `--profile-export-file` wrote.
        ramp_s: Answers within this time after the first request are left out. In that time the
            connections are new, the clients are still in step, and the queue of deferred rows is
            still growing.
        command: The command line of perf_analyzer.

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
    first_ns = int(sent_ns.min())
    ends_ns: list[int] = experiments[0].get("window_boundaries") or [int(answered_ns.max())]
    # Seconds from the first request on: a float has no room for the digits of the clock.
    sent_s, answered_s = (1e-9 * (times - first_ns) for times in (sent_ns, answered_ns))
    end_s = 1e-9 * (ends_ns[-1] - first_ns)
    last_stage = np.array([_last_stage(request) for request in requests])
    window = window_of_requests(sent_s, answered_s, last_stage, ramp_s, end_s)
    return replace(window, command=command)


def _last_stage(request: dict[str, Any]) -> int:
    """Return the last exit stage of a request's rows: Triton's output, or an answer in JSON.

    It is -1 if the model has no such output.
    """
    output = (request.get("response_outputs") or [{}])[-1]
    if "response" in output:
        return last_stage_of_json(output["response"])
    return _last(output.get(EXIT_STAGE, []))


def last_stage_of_json(text: str) -> int:
    """Return the last exit stage in the JSON that a server answered.

    mosec and LitServe have a column `exit_stage`, Triton's `generate` the output by name, and
    KServe's `infer` a list of outputs. A server of one model has a list `data` without stages, and
    the result is -1.

    Raises:
        CheckFailed: It is none of these.
    """
    try:
        of = json.loads(text)
        if EXIT_STAGE.lower() in of:
            return _last(of[EXIT_STAGE.lower()])
        if EXIT_STAGE in of:
            return _last(of[EXIT_STAGE])
        if "outputs" in of:
            (stages,) = (out["data"] for out in of["outputs"] if out["name"] == EXIT_STAGE)
            return _last(stages)
        if of["data"]:
            return -1
    except (ValueError, TypeError, KeyError) as exc:
        raise CheckFailed(f"the server answered {text!r:.200}") from exc
    raise CheckFailed(f"the server answered {text!r:.200}, without a row")


def _last(stages: Any) -> int:
    # One row comes as a number.
    return int(stages) if isinstance(stages, int) else max(stages, default=-1)
