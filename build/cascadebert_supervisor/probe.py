"""One row classified by a cascade, over loopback.

A model that is loaded is not one that answers: up to 26.03 Triton calls a cascade ready whose BLS
process has died. So the probe asks for an answer, and with a threshold of 1, which no confidence
exceeds: the row passes every stage, and a dead one cannot hide behind those before it.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from .repository import ServedCascade

_HOST = "127.0.0.1"
_TEXT = "a health check"  # a constant: nothing of a user is in it
_METRICS_TIMEOUT_S = 5.0
_LOOK_S = 0.5  # between two looks at what the last stage has answered
_LARGEST_ANSWER_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe saw.

    Attributes:
        ok: whether the cascade works.
        detail: why not, or that it is busy; empty otherwise.
        seconds: that the probe took.
    """

    ok: bool
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks the server of this container.

    Attributes:
        http_port: of the server.
        metrics_port: of the server.
        timeout_s: seconds to wait for an answer.
    """

    http_port: int
    metrics_port: int
    timeout_s: float

    def ready(self) -> bool:
        """Whether the server has loaded its models."""
        try:
            with _opened(f"http://{_HOST}:{self.http_port}/v2/health/ready", self.timeout_s):
                return True
        except OSError:
            return False

    def classify(self, cascade: ServedCascade) -> ProbeResult:
        """Have one row classified.

        A probe waits in the same queues as everybody's requests. One that got no answer in time,
        or was turned away, while rows of others did pass the last stage, has met a server that is
        busy, and a restart would make that worse: it counts as working. So is one that is answered
        by an earlier stage, as a policy with `degrade` allows: the last one may be busy, or dead.
        """
        before = self._rows_of_last_stage(cascade)
        start_s = time.monotonic()
        failure, may_be_busy = self._ask(cascade)
        seconds = time.monotonic() - start_s
        while failure and may_be_busy and before is not None:
            after = self._rows_of_last_stage(cascade)
            if after is not None and after > before:
                return ProbeResult(
                    True, f"busy: {failure}, while other rows were answered", seconds
                )
            # Who is turned away at once must look for longer: counts take a moment to arrive, and a
            # call of a large stage takes its time.
            if time.monotonic() > start_s + self.timeout_s:
                break
            time.sleep(min(_LOOK_S, self.timeout_s))
        return ProbeResult(not failure, failure, seconds)

    def _ask(self, cascade: ServedCascade) -> tuple[str, bool]:
        """What went wrong ("" for nothing), and whether much load could explain it."""
        url = f"http://{_HOST}:{self.http_port}/v2/models/{cascade.name}/infer"
        try:
            with _opened(url, self.timeout_s, _request_body(cascade)) as response:
                answer = json.loads(response.read(_LARGEST_ANSWER_BYTES))
        except urllib.error.HTTPError as exc:
            return f"HTTP {exc.code}: {_reason(exc)}", exc.code in (429, 503)
        except TimeoutError:
            return f"no answer within {self.timeout_s:g} s", True
        except (OSError, ValueError, http.client.HTTPException) as exc:
            timed_out = isinstance(getattr(exc, "reason", None), TimeoutError)
            return f"no answer ({type(exc).__name__}: {exc})", timed_out
        if not _values(answer, "LABEL"):
            return "an answer without a label", False
        if _values(answer, "DEGRADED") == [True]:
            return "it answers without its last stage (DEGRADED)", True
        return "", False

    def _rows_of_last_stage(self, cascade: ServedCascade) -> float | None:
        """Rows that the last stage has answered so far; None where the metrics do not come."""
        url = f"http://{_HOST}:{self.metrics_port}/metrics"
        try:
            with _opened(url, min(_METRICS_TIMEOUT_S, self.timeout_s)) as response:
                text = response.read().decode("utf-8", "replace")
            return rows_of_stage(text, cascade.name, len(cascade.stages) - 1)
        except (OSError, ValueError, http.client.HTTPException):
            return None


def rows_of_stage(metrics: str, model: str, stage: int) -> float:
    """The counter of the rows that a stage has answered, in Prometheus' text format."""
    line = re.compile(r"^cascadebert_exited_rows_total\{([^}]*)\} (\S+)", re.MULTILINE)
    wanted = {f'model="{model}"', f'stage="{stage}"'}
    return sum(
        float(value) for labels, value in line.findall(metrics) if wanted <= set(labels.split(","))
    )


@contextmanager
def _opened(
    url: str, timeout_s: float, body: bytes | None = None
) -> Generator[http.client.HTTPResponse, None, None]:
    # No proxy of the environment stands between a container and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        url, data=body, headers={"Content-Type": "application/json"} if body else {}
    )
    with opener.open(request, timeout=timeout_s) as response:
        yield response


def _request_body(cascade: ServedCascade) -> bytes:
    names = ["TEXT", "TEXT_PAIR"] if cascade.pair else ["TEXT"]
    return json.dumps(
        {
            "inputs": [
                {"name": name, "datatype": "BYTES", "shape": [1, 1], "data": [_TEXT]}
                for name in names
            ],
            "outputs": [{"name": "LABEL"}, {"name": "DEGRADED"}],
            "parameters": {"threshold": "1"},
        }
    ).encode()


def _values(answer: Any, name: str) -> list[Any]:
    outputs = cast("dict[str, Any]", answer).get("outputs") if isinstance(answer, dict) else None
    for output in cast("list[Any]", outputs) if isinstance(outputs, list) else []:
        if isinstance(output, dict) and cast("dict[str, Any]", output).get("name") == name:
            return cast("list[Any]", cast("dict[str, Any]", output).get("data") or [])
    return []


def _reason(exc: urllib.error.HTTPError) -> str:
    """The server's sentence; it is about our own row."""
    try:
        body = json.loads(exc.read(_LARGEST_ANSWER_BYTES))
        text = str(body["error"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        text = exc.reason
    return " ".join(text.split())[:300]
