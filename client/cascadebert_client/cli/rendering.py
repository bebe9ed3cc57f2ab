"""Classifications and status as text, for people and for programs."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Protocol

from .._audit import PointAudit, sentence
from .._operating_points import OperatingPoint
from .._requests import Row
from .._types import Classification, ModelStatus, ServerStatus

_NARROWEST_LABEL = 10


class Renderer(Protocol):
    """Turns answers into lines, one by one."""

    def header(self) -> str:
        """Return what comes before any answer: a whole line, or nothing."""
        ...

    def line(self, index: int, row: Row, answer: Classification) -> str:
        """Return the line of one answer.

        Args:
            index: Position of the row among the inputs (0-based).
            row: The row.
            answer: Its answer.
        """
        ...


class Table:
    """Aligned columns, for people."""

    def __init__(self, width: int | None):
        """Start a table.

        Args:
            width: Characters that a line may have; None for as many as it takes.
        """
        self._width = width
        self._label_width = _NARROWEST_LABEL

    def header(self) -> str:
        """Return nothing: the names of the columns come with the first answer, if one comes."""
        return ""

    def line(self, index: int, row: Row, answer: Classification) -> str:
        """Return one answer, the text last and shortened to the width."""
        # Answers come one by one, so the column can only grow.
        self._label_width = max(self._label_width, len(answer.label))
        text = " | ".join(row) if isinstance(row, tuple) else row
        degraded = "(degraded) " if answer.degraded else ""
        line = _printable(
            f"{answer.label:<{self._label_width}}  {answer.confidence:>10.4f}  "
            f"{answer.exit_stage:>5}  {degraded}{text}"
        )
        if self._width is not None and len(line) > self._width:
            line = line[: max(0, self._width - 1)] + "…"
        if index == 0:
            return f"{'label':<{self._label_width}}  confidence  stage  text\n{line}"
        return line


class JsonLines:
    """One JSON object per line, for programs."""

    def __init__(self, *, ascii_only: bool):
        """Start.

        Args:
            ascii_only: Whether to escape all else, for an output of unknown encoding.
        """
        self._ascii_only = ascii_only

    def header(self) -> str:
        """Return nothing: the lines name their fields."""
        return ""

    def line(self, index: int, row: Row, answer: Classification) -> str:
        """Return one answer with its row."""
        text, pair = row if isinstance(row, tuple) else (row, None)
        inputs = {"text": text} if pair is None else {"text": text, "text_pair": pair}
        fields = {"row": index, **inputs, **dataclasses.asdict(answer)}
        return json.dumps(fields, ensure_ascii=self._ascii_only)


class TabSeparated:
    """A header and tab-separated values. White space inside a text becomes a single space."""

    def header(self) -> str:
        """Return the names of the columns."""
        return "row\tlabel\tconfidence\texit_stage\tdegraded\tpolicy\ttext\ttext_pair\n"

    def line(self, index: int, row: Row, answer: Classification) -> str:
        """Return one answer with its row; confidence with all its digits."""
        text, pair = row if isinstance(row, tuple) else (row, "")
        fields = (
            str(index),
            answer.label,
            repr(answer.confidence),
            str(answer.exit_stage),
            "true" if answer.degraded else "false",
            answer.policy,
            text,
            pair,
        )
        return "\t".join(" ".join(field.split()) for field in fields)


def status_text(status: ServerStatus) -> str:
    """Return the status as lines for people."""
    server = " ".join(part for part in (status.name, status.version) if part) or "server"
    lines = [
        f"server  {server} at {status.url}: "
        f"{'live' if status.live else 'NOT LIVE'}, {'ready' if status.ready else 'NOT READY'}"
    ]
    if status.problem is not None:
        lines.append(f"        {status.problem}")
    lines.append(f"model   {_model_text(status.model)}")
    if status.model.problem is not None:
        lines.append(f"        {status.model.problem}")
    lines += _point_lines(status.model.operating_points)
    if status.statistics:
        rows = [("", "version", "inferences", "executions", "failures", "mean ms")]
        rows += [
            (
                each.name,
                each.version,
                str(each.inference_count),
                str(each.execution_count),
                str(each.failure_count),
                "-" if each.mean_ms is None else f"{each.mean_ms:.2f}",
            )
            for each in status.statistics
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines.append("")
        for name, *values in rows:
            cells = [f"{value:>{width}}" for value, width in zip(values, widths[1:], strict=True)]
            lines.append("  ".join([f"{name:<{widths[0]}}", *cells]))
    return _printable("\n".join(lines), keep="\n")


def _point_lines(points: Sequence[OperatingPoint]) -> list[str]:
    if not points:
        return []
    rows = [("operating point", "thresholds", "deferred", "speed-up", "")]
    for point in points:
        thresholds = ", ".join(
            "/".join(f"{t:.4f}" for t in (each if isinstance(each, tuple) else (each,)))
            for each in point.thresholds
        )
        rows.append(
            (
                f"{point.name}{' (default)' if point.default else ''}",
                thresholds or "-",
                "-" if point.deferral is None else f"{point.deferral:.1%}",
                "-" if point.speedup is None else f"{point.speedup:.2f}",
                point.goal or "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "",
        *(
            "  ".join(
                [f"{row[0]:<{widths[0]}}"]
                + [f"{row[i]:>{widths[i]}}" for i in range(1, 4)]
                + [row[4]]
            ).rstrip()
            for row in rows
        ),
    ]


def status_json(status: ServerStatus) -> str:
    """Return the status as one JSON object."""
    return json.dumps({**dataclasses.asdict(status), "serving": status.serving})


def audit_text(model: str, points: Sequence[PointAudit]) -> str:
    """Return what audits found, as lines for people.

    Args:
        model: The cascade.
        points: At least one.
    """
    lines: list[str] = []
    for point in points:
        counts = point.counts
        lines += [
            f"{model}, operating point {point.operating_point} (policy {point.policy[:12]})",
            f"  {_rows(counts.audited)} audited, {counts.disagreed:,} answered otherwise than by "
            "the last stage" + (f" ({point.estimate:.3%})" if point.estimate is not None else ""),
            f"  of all rows {point.interval.low:.3%} to {point.interval.high:.3%}, "
            f"with {100 * point.confidence:.4g}% confidence however often you look",
        ]
        if counts.dropped:
            lines.append(f"  {_rows(counts.dropped)} not audited for want of spare capacity")
        if counts.errors:
            lines.append(f"  {_rows(counts.errors)} that the last stage could not be asked about")
        lines.append(f"  {sentence(point)}")
    return _printable("\n".join(lines), keep="\n")


def audit_json(model: str, points: Sequence[PointAudit]) -> str:
    """Return what audits found as one JSON object."""
    return json.dumps(
        {
            "model": model,
            "operating_points": [
                {
                    **dataclasses.asdict(point),
                    "estimate": point.estimate,
                    "sentence": sentence(point),
                }
                for point in points
            ],
        }
    )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _model_text(model: ModelStatus) -> str:
    parts = [f"{model.name}: {'ready' if model.ready else 'NOT READY'}"]
    if model.versions:
        parts.append(f"version {', '.join(model.versions)}")
    if model.max_batch_size is not None:
        parts.append(f"up to {model.max_batch_size} rows per request")
    return "; ".join(parts)


def _printable(text: str, keep: str = "") -> str:
    """Replace what could steer a terminal (escapes, line breaks) by spaces."""
    return "".join(each if each.isprintable() or each in keep else " " for each in text)
