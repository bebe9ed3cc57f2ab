"""How an answer came about: when each stage had a row, and what it said.

A request has a timeline only if it asks for the output TIMELINE, so others pay for a look at None.
Times are milliseconds since the request was received.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contract import EXPLAIN, OUTPUTS, TIMELINE
from .errors import InvalidArgument
from .gate import Decision
from .policy import Policy
from .route import Route

# Triton's HTTP endpoint passes strings on as strings.
_TRUTH = {"true": True, "false": False}


def wants_timeline(requested: Collection[str], parameters: Mapping[str, object]) -> bool:
    """Return whether a request gets the output TIMELINE.

    A request that names no output gets all of them, and looks here as if it had named them all. So
    all outputs together include TIMELINE only if the parameter `explain` is true.

    Args:
        requested: Names of the requested outputs.
        parameters: The request's parameters.

    Raises:
        InvalidArgument: `explain` is no boolean.
    """
    value = parameters.get(EXPLAIN, False)
    explain = _TRUTH.get(value, value) if isinstance(value, str) else value
    if not isinstance(explain, bool):
        raise InvalidArgument(f"{EXPLAIN} is {str(value)[:60]!r}: give true or false")
    return TIMELINE in requested and (explain or len(requested) <= len(OUTPUTS))


@dataclass(slots=True)
class _Visit:
    """A row at a stage. Times are on the clock of `time.monotonic`; None if it did not happen."""

    tokenised: tuple[float, float] | None = None
    queued_s: float | None = None
    called: tuple[float, float] | None = None
    batch_rows: int = 0
    confidence: float = 0.0
    probabilities: list[float] = field(default_factory=list)
    exits: bool = False


class Timeline:
    """The events of one request's rows. A row is at one stage at a time, so no lock is needed."""

    def __init__(self, rows: int) -> None:
        """Start without events.

        Args:
            rows: Rows of the request.
        """
        self._visits: list[dict[int, _Visit]] = [{} for _ in range(rows)]

    def _visit(self, row: int, stage: int) -> _Visit:
        return self._visits[row].setdefault(stage, _Visit())

    def tokenised(self, stage: int, row: int, began_s: float, ended_s: float) -> None:
        """Note that a row was tokenised for a stage, perhaps together with others."""
        self._visit(row, stage).tokenised = (began_s, ended_s)

    def queued(self, stage: int, rows: Sequence[int], at_s: float) -> None:
        """Note that rows wait for a stage."""
        for row in rows:
            self._visit(row, stage).queued_s = at_s

    def called(
        self,
        stage: int,
        rows: Sequence[int],
        positions: Sequence[int],
        decision: Decision,
        *,
        began_s: float,
        ended_s: float,
    ) -> None:
        """Note a call of a stage and what it said.

        Args:
            stage: The stage, 0-based.
            rows: The rows of this request in the call.
            positions: Their positions in the call.
            decision: Of all rows of the call.
            began_s: When the call, or its wait for an instance of the stage, began.
            ended_s: When its answer was there.
        """
        for row, i in zip(rows, positions, strict=True):
            visit = self._visit(row, stage)
            visit.called = (began_s, ended_s)
            visit.batch_rows = len(decision.exits)
            visit.confidence = float(decision.confidence[i])
            visit.probabilities = decision.probabilities[i].tolist()
            visit.exits = bool(decision.exits[i])

    def texts(self, began_s: float, route: Route, policy: Policy) -> list[bytes]:
        """Return the output TIMELINE of a request that has ended: a JSON object for each row.

        Args:
            began_s: When it was received, on the clock of `time.monotonic`.
            route: Its stages and thresholds.
            policy: The policy.
        """
        now_s = time.monotonic()
        received_unix_s = time.time() - (now_s - began_s)
        head = {
            "received_unix_s": round(received_unix_s, 6),
            "operating_point": route.operating_point,
            "answered_ms": _milliseconds(now_s, began_s),
        }
        return [
            json.dumps(
                {
                    **head,
                    "stages": [
                        _stage(began_s, route, policy, visits[i], i) for i in sorted(visits)
                    ],
                }
            ).encode()
            for visits in self._visits
        ]


def _stage(
    began_s: float, route: Route, policy: Policy, visit: _Visit, stage: int
) -> dict[str, Any]:
    """Return one stage of a row's timeline as JSON."""
    settings = policy.stages[stage]
    found: dict[str, Any] = {
        "stage": stage,
        "model": settings.model,
        "version": settings.version,
        "tokenised_ms": None
        if visit.tokenised is None
        else [_milliseconds(at_s, began_s) for at_s in visit.tokenised],
        "queued_ms": None if visit.queued_s is None else _milliseconds(visit.queued_s, began_s),
        "called_ms": None,
        "returned_ms": None,
        "batch_rows": None,
        "confidence": None,
        "probabilities": None,
        "threshold": None,
        "exit": visit.exits,
    }
    if visit.called is not None:
        called_s, returned_s = visit.called
        found["called_ms"] = _milliseconds(called_s, began_s)
        found["returned_ms"] = _milliseconds(returned_s, began_s)
        found["batch_rows"] = visit.batch_rows
        # JSON has no NaN: a stage with broken logits has said nothing.
        if np.isfinite(visit.confidence):
            found["confidence"] = visit.confidence
            found["probabilities"] = visit.probabilities
            if stage != route.last:
                found["threshold"] = _threshold(route.thresholds[stage], visit.probabilities)
    return found


def _threshold(
    threshold: np.float32 | NDArray[np.float32], probabilities: Sequence[float]
) -> float:
    if isinstance(threshold, np.ndarray):  # one for each label that the stage may predict
        return float(threshold[int(np.argmax(probabilities))])
    return float(threshold)


def _milliseconds(at_s: float, began_s: float) -> float:
    return round(1000 * (at_s - began_s), 3)
