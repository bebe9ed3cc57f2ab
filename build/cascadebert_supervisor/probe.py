"""One row classified by a cascade, over loopback.

A model that is loaded does not always answer: up to 26.03 Triton calls a cascade ready after its
BLS process has died. So the probe asks for an answer, with a threshold of 1, which no confidence
exceeds: the row passes every stage, and a dead stage cannot hide behind the ones before it.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
from dataclasses import dataclass
from typing import Any, cast

from cascadebert_core.contract import DEGRADED, LABEL, TEXT, TEXT_PAIR, THRESHOLD
from cascadebert_core.metric_names import EXITED

from .loopback import FAILURES, opened
from .repository import ServedCascade

_TEXT = "a health check"  # a constant: no user's text
_METRICS_TIMEOUT_S = 5.0
_LOOK_S = 0.5  # between two looks at what the last stage has answered
_LARGEST_ANSWER_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of one probe.

    Attributes:
        ok: Whether the cascade works.
        detail: Why it does not, or that it is busy; otherwise empty.
        seconds: How long the probe took.
    """

    ok: bool
    detail: str
    seconds: float


class Probe:
    """Asks one server. Use it from one thread."""

    def __init__(self, http_port: int, metrics_port: int, timeout_s: float) -> None:
        """Describe the server; nothing is sent yet.

        Args:
            http_port: The server's HTTP port.
            metrics_port: The server's metrics port.
            timeout_s: Seconds to wait for an answer.
        """
        self._http_port = http_port
        self._metrics_port = metrics_port
        self._timeout_s = timeout_s
        # By cascade, the rows that its last stage had answered when its probes began to fail.
        self._before: dict[str, float] = {}

    def ready(self) -> bool:
        """Return whether the server has loaded its models."""
        try:
            with opened(self._http_port, "/v2/health/ready", self._timeout_s):
                return True
        except OSError:
            return False

    def classify(self, cascade: ServedCascade) -> ProbeResult:
        """Have one row classified.

        A probe waits in the same queues as all requests. If it gets no answer in time or is
        rejected while the last stage does answer other rows, the server is busy, and a restart
        would make that worse: the probe counts as a success. The same holds for an answer from an
        earlier stage, which a policy with `degrade` allows if the last stage is busy or dead.

        A busy stage may need longer for one call than a probe waits, so what counts is what it has
        answered since the probes began to fail.
        """
        start_s = time.monotonic()
        before = self._before.pop(cascade.name, None)
        if before is None:
            before = self._rows_of_last_stage(cascade)
        failure, may_be_busy = self._ask(cascade)
        seconds = time.monotonic() - start_s
        while failure and may_be_busy and before is not None:
            after = self._rows_of_last_stage(cascade)
            if after is not None and after > before:
                detail = f"busy: {failure}, while other rows were answered"
                return ProbeResult(True, detail, seconds)
            if after is not None:  # it is smaller if the model was loaded again
                before = after
            self._before[cascade.name] = before
            # A rejected probe keeps looking: counts arrive a moment later, and a call of a large
            # stage takes time.
            if time.monotonic() > start_s + self._timeout_s:
                break
            time.sleep(min(_LOOK_S, self._timeout_s))
        return ProbeResult(not failure, failure, seconds)

    def _ask(self, cascade: ServedCascade) -> tuple[str, bool]:
        """Return what went wrong ("" for nothing), and whether much load could explain it."""
        path = f"/v2/models/{cascade.name}/infer"
        try:
            with opened(self._http_port, path, self._timeout_s, _request_body(cascade)) as response:
                answer = json.loads(response.read(_LARGEST_ANSWER_BYTES))
        except urllib.error.HTTPError as exc:
            return f"HTTP {exc.code}: {_reason(exc)}", exc.code in (429, 503)
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s", True
        except FAILURES as exc:
            timed_out = isinstance(getattr(exc, "reason", None), TimeoutError)
            return f"no answer ({type(exc).__name__}: {exc})", timed_out
        if not _values(answer, LABEL):
            return "an answer without a label", False
        if _values(answer, DEGRADED) == [True]:
            return "it answers without its last stage (DEGRADED)", True
        return "", False

    def _rows_of_last_stage(self, cascade: ServedCascade) -> float | None:
        """Rows that the last stage has answered so far; None if the metrics cannot be read."""
        timeout_s = min(_METRICS_TIMEOUT_S, self._timeout_s)
        try:
            with opened(self._metrics_port, "/metrics", timeout_s) as response:
                text = response.read().decode("utf-8", "replace")
            return rows_of_stage(text, cascade.name, len(cascade.stages) - 1)
        except FAILURES:
            return None


def rows_of_stage(metrics: str, model: str, stage: int) -> float:
    """Read how many rows a stage has answered from a page of metrics, over all versions."""
    line = re.compile(rf"^{EXITED}\{{([^}}]*)\}} (\S+)", re.MULTILINE)
    wanted = {f'model="{model}"', f'stage="{stage}"'}
    return sum(
        float(value) for labels, value in line.findall(metrics) if wanted <= set(labels.split(","))
    )


def _request_body(cascade: ServedCascade) -> bytes:
    names = [TEXT, TEXT_PAIR] if cascade.pair else [TEXT]
    return json.dumps(
        {
            "inputs": [
                {"name": name, "datatype": "BYTES", "shape": [1, 1], "data": [_TEXT]}
                for name in names
            ],
            "outputs": [{"name": LABEL}, {"name": DEGRADED}],
            "parameters": {THRESHOLD: "1"},
        }
    ).encode()


def _values(answer: Any, name: str) -> list[Any]:
    outputs = cast("dict[str, Any]", answer).get("outputs") if isinstance(answer, dict) else None
    for output in cast("list[Any]", outputs) if isinstance(outputs, list) else []:
        if isinstance(output, dict) and cast("dict[str, Any]", output).get("name") == name:
            return cast("list[Any]", cast("dict[str, Any]", output).get("data") or [])
    return []


def _reason(exc: urllib.error.HTTPError) -> str:
    """The server's message, which is about our own row."""
    try:
        text = str(json.loads(exc.read(_LARGEST_ANSWER_BYTES))["error"])
    except (*FAILURES, KeyError, TypeError):
        text = exc.reason
    return " ".join(text.split())[:300]
