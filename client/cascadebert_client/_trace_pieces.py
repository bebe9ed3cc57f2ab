"""Timelines as the pieces of a trace: what becomes a span, without OpenTelemetry."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ._timeline import StageTimeline, Timeline

Value = str | int | float | bool

PREFIX = "cascadebert."


@dataclass(slots=True)
class Piece:
    """A part of the time of a request, which rows may share.

    Attributes:
        name: "tokenise", "wait", or the model of a stage.
        began_ms: Its start, in milliseconds since the server received the request.
        ended_ms: Its end.
        attributes: What a span tells of it. No text is in it.
        rows: Rows of the request in it.
        exits: How many of them the stage answered.
    """

    name: str
    began_ms: float
    ended_ms: float
    attributes: dict[str, Value] = field(default_factory=dict[str, Value])
    rows: int = 0
    exits: int = 0


def pieces_of(timelines: Sequence[Timeline]) -> list[Piece]:
    """Return the pieces of one request in the order of their start.

    Rows that were tokenised, waited or ran together are one piece.

    Args:
        timelines: Of all rows of the request.
    """
    found: dict[tuple[str, int, float, float], Piece] = {}

    def add(name: str, stage: StageTimeline, began_ms: float, ended_ms: float) -> Piece:
        key = (name, stage.stage, began_ms, ended_ms)
        piece = found.get(key)
        if piece is None:
            piece = found[key] = Piece(name, began_ms, ended_ms)
            piece.attributes |= {
                f"{PREFIX}stage": stage.stage,
                f"{PREFIX}model": stage.model,
                f"{PREFIX}version": stage.version,
            }
        piece.rows += 1
        return piece

    for timeline in timelines:
        for stage in timeline.stages:
            if stage.tokenised_ms is not None:
                add("tokenise", stage, *stage.tokenised_ms)
            if stage.queued_ms is not None and stage.called_ms is not None:
                add("wait", stage, stage.queued_ms, stage.called_ms)
            if stage.called_ms is not None and stage.returned_ms is not None:
                piece = add(stage.model, stage, stage.called_ms, stage.returned_ms)
                piece.exits += stage.exit
                _describe(piece, stage)
    for piece in found.values():
        piece.attributes[f"{PREFIX}rows"] = piece.rows
        if piece.name not in ("tokenise", "wait"):
            piece.attributes[f"{PREFIX}exits"] = piece.exits
    return sorted(found.values(), key=lambda piece: (piece.began_ms, piece.ended_ms))


def _describe(piece: Piece, stage: StageTimeline) -> None:
    """Add what a call said. Of several rows there is no one confidence."""
    if stage.batch_rows is not None:
        piece.attributes[f"{PREFIX}batch_rows"] = stage.batch_rows
    values = {"confidence": stage.confidence, "threshold": stage.threshold}
    for name, value in values.items():
        if piece.rows > 1:
            piece.attributes.pop(PREFIX + name, None)
        elif value is not None:
            piece.attributes[PREFIX + name] = value


def began_at_ns(timeline: Timeline, sent_ns: int, answered_ns: int) -> int:
    """Return when the server received a request, on the client's clock.

    The server's clock is believed if it places the whole request between the call and its answer.
    If not, the clocks differ, and the request is placed in the middle.

    Args:
        timeline: Of a row.
        sent_ns: When the call began, in nanoseconds since 1970.
        answered_ns: When its answer was there.
    """
    received_ns = int(1e9 * timeline.received_unix_s)
    took_ns = int(1e6 * timeline.answered_ms)
    if sent_ns <= received_ns and received_ns + took_ns <= answered_ns:
        return received_ns
    return sent_ns + max(0, answered_ns - sent_ns - took_ns) // 2
