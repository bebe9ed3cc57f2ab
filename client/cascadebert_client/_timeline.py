"""How an answer came about, as the server's output TIMELINE tells it."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StageTimeline:
    """What one stage did for a row. Times are milliseconds since the server received the request.

    Attributes:
        stage: Position of the stage, from 0.
        model: The stage's model on the server.
        version: Its version.
        tokenised_ms: Start and end of the tokenising for this stage; None if it took the tokens of
            the stage before.
        queued_ms: When the row was queued for the stage; None if it did not wait in a queue.
        called_ms: When the call, or its wait for an instance of the stage, began; None if the row
            never got that far.
        returned_ms: When the stage's answer was there.
        batch_rows: Rows in the call, those of other requests too.
        confidence: The stage's confidence; None if it was not called or its logits were broken.
        probabilities: One value per label, in the order of the policy's labels; None likewise.
        threshold: What the confidence had to be above; None at the last stage.
        exit: Whether the stage answered the row.
    """

    stage: int
    model: str
    version: int
    tokenised_ms: tuple[float, float] | None
    queued_ms: float | None
    called_ms: float | None
    returned_ms: float | None
    batch_rows: int | None
    confidence: float | None
    probabilities: tuple[float, ...] | None
    threshold: float | None
    exit: bool

    @property
    def waited_ms(self) -> float | None:
        """Milliseconds in the queue of the stage; None if it was not queued and then called."""
        if self.queued_ms is None or self.called_ms is None:
            return None
        return self.called_ms - self.queued_ms

    @property
    def took_ms(self) -> float | None:
        """Milliseconds of the call; None without one."""
        if self.called_ms is None or self.returned_ms is None:
            return None
        return self.returned_ms - self.called_ms


@dataclass(frozen=True, slots=True)
class Timeline:
    """How the answer for one row came about.

    Attributes:
        received_unix_s: When the cascade got the request, on the server's clock, in seconds since
            1970. The time that the request waited in Triton's own queue is before it.
        operating_point: The operating point that decided; None if the caller chose thresholds or a
            stage.
        answered_ms: When the answer of the whole request was made, in milliseconds since then.
        stages: The stages that the row reached, in order.
    """

    received_unix_s: float
    operating_point: str | None
    answered_ms: float
    stages: tuple[StageTimeline, ...]


def timeline_from_json(text: str) -> Timeline:
    """Parse one row of the output TIMELINE. Fields that this release does not know are ignored.

    Raises:
        ValueError: It is no timeline.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        return Timeline(
            float(found["received_unix_s"]),
            found.get("operating_point"),
            float(found["answered_ms"]),
            tuple(_stage(each) for each in found["stages"]),
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"{type(exc).__name__}: {exc}") from exc


def _stage(found: dict[str, Any]) -> StageTimeline:
    return StageTimeline(
        stage=int(found["stage"]),
        model=str(found["model"]),
        version=int(found["version"]),
        tokenised_ms=None if found["tokenised_ms"] is None else _pair(found["tokenised_ms"]),
        queued_ms=found["queued_ms"],
        called_ms=found["called_ms"],
        returned_ms=found["returned_ms"],
        batch_rows=found["batch_rows"],
        confidence=found["confidence"],
        probabilities=None if found["probabilities"] is None else tuple(found["probabilities"]),
        threshold=found["threshold"],
        exit=bool(found["exit"]),
    )


def _pair(values: Any) -> tuple[float, float]:
    began, ended = values
    return began, ended
