"""Answers, status and audits as text, for people and for programs."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Protocol

from tabulate import tabulate

from cascadebert_core.task import MULTI_LABEL

from .._audit import PointAudit, sentence
from .._operating_points import OperatingPoint
from .._rows import Row
from .._timeline import StageTimeline, Timeline
from .._types import Classification, ModelStatus, ServerStatus
from ..csv_records import csv_record

_NARROWEST_LABEL = 10
_COLUMNS = (
    "row", "label", "confidence", "exit_stage", "degraded", "policy", "text", "text_pair",
)  # fmt: skip


class Renderer(Protocol):
    """Turns answers into lines, one by one."""

    def header(self) -> str:
        """Return the text before the first answer: a whole line, or nothing."""
        ...

    def line(self, index: int, row: Row, answer: Classification) -> str:
        """Return the line of one answer.

        Args:
            index: The row's position among the inputs, from 0.
            row: The row.
            answer: The answer.
        """
        ...


class Table:
    """Aligned columns, for people."""

    # Not made with tabulate: it needs all rows at once, and answers come one by one.

    def __init__(self, width: int | None):
        """Start a table.

        Args:
            width: The most characters in a line; None for no limit.
        """
        self._width = width
        self._label_width = _NARROWEST_LABEL
        self._begun = False

    def header(self) -> str:
        """Return nothing: the column names come with the first answer."""
        return ""

    def line(self, index: int, row: Row, answer: Classification) -> str:
        """Return one answer. The text comes last and is cut at the width."""
        # The column can only grow: earlier lines are already printed.
        label = ", ".join(answer.labels) or "(no label)"
        self._label_width = max(self._label_width, len(label))
        text = " | ".join(row) if isinstance(row, tuple) else row
        degraded = "(degraded) " if answer.degraded else ""
        line = _printable(
            f"{label:<{self._label_width}}  {answer.confidence:>10.4f}  "
            f"{answer.exit_stage:>5}  {degraded}{text}"
        )
        if self._width is not None and len(line) > self._width:
            line = line[: max(0, self._width - 1)] + "…"
        if answer.timeline is not None:
            line = "\n".join([line, *map(_printable, timeline_lines(answer.timeline))])
        if not self._begun:
            self._begun = True
            return f"{'label':<{self._label_width}}  confidence  stage  text\n{line}"
        return line


class JsonLines:
    """One JSON object per line, for programs."""

    def __init__(self, *, ascii_only: bool):
        """Start.

        Args:
            ascii_only: Whether to escape all other characters, for an output of unknown encoding.
        """
        self._ascii_only = ascii_only

    def header(self) -> str:
        """Return nothing: each line names its fields."""
        return ""

    def line(self, index: int, row: Row, answer: Classification) -> str:
        """Return one answer with its row."""
        text, pair = row if isinstance(row, tuple) else (row, None)
        inputs = {"text": text} if pair is None else {"text": text, "text_pair": pair}
        fields = {"row": index, **inputs, **dataclasses.asdict(answer), "labels": answer.labels}
        del fields["label_order"]  # the same in every line; `status` has it
        for name in ("timeline", "operating_point"):  # most answers have none
            if fields[name] is None:
                del fields[name]
        return json.dumps(fields, ensure_ascii=self._ascii_only)


class CommaSeparated:
    """CSV with a header. Texts are as they were, in quotes if need be."""

    def header(self) -> str:
        """Return the column names."""
        return f"{','.join(_COLUMNS)}\n"

    def line(self, index: int, row: Row, answer: Classification) -> str:
        """Return one answer with its row. The confidence has all digits."""
        return csv_record(_cells(index, row, answer))


class TabSeparated:
    """A header and tab-separated values. White space in a text becomes a single space."""

    def header(self) -> str:
        """Return the column names."""
        return "\t".join(_COLUMNS) + "\n"

    def line(self, index: int, row: Row, answer: Classification) -> str:
        """Return one answer with its row. The confidence has all digits."""
        return "\t".join(" ".join(cell.split()) for cell in _cells(index, row, answer))


def _cells(index: int, row: Row, answer: Classification) -> tuple[str, ...]:
    text, pair = row if isinstance(row, tuple) else (row, "")
    return (
        str(index),
        answer.label,
        repr(answer.confidence),
        str(answer.exit_stage),
        "true" if answer.degraded else "false",
        answer.policy,
        text,
        pair,
    )


def timeline_lines(timeline: Timeline) -> list[str]:
    """Return how an answer came about: a line for each stage, and one for the whole."""
    lines = [
        f"    stage {each.stage} ({each.model}): {_stage_text(each)}" for each in timeline.stages
    ]
    point = timeline.operating_point
    how = "" if point is None else f", operating point {point}"
    return [*lines, f"    answered after {timeline.answered_ms:.2f} ms{how}"]


def _stage_text(stage: StageTimeline) -> str:
    parts: list[str] = []
    if stage.tokenised_ms is not None:
        began_ms, ended_ms = stage.tokenised_ms
        parts.append(f"tokenised in {ended_ms - began_ms:.2f} ms")
    if stage.waited_ms is not None:
        parts.append(f"waited {stage.waited_ms:.2f} ms")
    if stage.took_ms is None:
        return ", ".join([*parts, "not called"])
    rows = "alone" if stage.batch_rows == 1 else f"in a call of {stage.batch_rows} rows"
    parts.append(f"ran {stage.took_ms:.2f} ms {rows}")
    if stage.confidence is None:
        return ", ".join([*parts, "its logits are not finite"])
    said = f"confidence {stage.confidence:.4f}"
    if stage.threshold is not None and stage.threshold >= 0:
        said += f" {'>' if stage.exit else '<='} {stage.threshold:.4f}"
    return ", ".join([*parts, f"{said}: {'it answers' if stage.exit else 'deferred'}"])


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
    lines += _table(
        ("operating point", "thresholds", "deferred", "speed-up", "computations", ""),
        [_point_cells(point) for point in status.model.operating_points],
        ("left", *["right"] * 4, "left"),
    )
    if status.model.verdicts:
        lines.append("")
    lines += [f"WARNING: {verdict.text} {verdict.help}" for verdict in status.model.verdicts]
    lines += _table(
        ("", "version", "inferences", "executions", "failures", "mean ms"),
        [
            (
                each.name,
                each.version,
                str(each.inference_count),
                str(each.execution_count),
                str(each.failure_count),
                "-" if each.mean_ms is None else f"{each.mean_ms:.2f}",
            )
            for each in status.statistics
        ],
        ("left", *["right"] * 5),
    )
    return "\n".join(map(_printable, lines))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> list[str]:
    """Return the lines of a table after a blank line, or nothing for a table without rows."""
    if not rows:
        return []
    cells = [[_printable(cell) for cell in row] for row in rows]
    text = tabulate(cells, header, "plain", colalign=align, disable_numparse=True)
    return ["", *(line.rstrip() for line in text.split("\n"))]


def _point_cells(point: OperatingPoint) -> tuple[str, ...]:
    thresholds = ", ".join(
        "/".join(f"{t:.4f}" for t in (each if isinstance(each, tuple) else (each,)))
        for each in point.thresholds
    )
    spread = ""
    if point.speedup_spread is not None:
        low, high = point.speedup_spread
        spread = f" [{low:.2f}, {high:.2f}]"
    return (
        point.name + _mark(point),
        thresholds or "-",
        "-" if point.deferral is None else f"{point.deferral:.1%}",
        "-" if point.speedup is None else f"{point.speedup:.2f}{spread}",
        "-" if point.computations is None else f"{point.computations:.2f}",
        point.goal or "",
    )


def _mark(point: OperatingPoint) -> str:
    if point.default:
        return "" if point.name == "default" else " (default)"
    return " (under load)" if point.under_load else ""


def status_json(status: ServerStatus) -> str:
    """Return the status as one JSON object."""
    return json.dumps({**dataclasses.asdict(status), "serving": status.serving})


def audit_text(model: str, points: Sequence[PointAudit]) -> str:
    """Return the audits of a cascade as lines for people.

    Args:
        model: The cascade.
        points: At least one.
    """
    lines: list[str] = []
    for point in points:
        counts = point.counts
        share = "" if point.estimate is None else f" ({point.estimate:.3%})"
        lines += [
            f"{model}, operating point {point.operating_point} (policy {point.policy[:12]})",
            f"  {_rows(counts.audited)} audited, {counts.disagreed:,} with another answer than the "
            f"last stage's{share}",
            f"  {point.interval.low:.3%} to {point.interval.high:.3%} of all rows, with "
            f"{100 * point.confidence:.4g}% confidence however often you look",
        ]
        if counts.dropped:
            lines.append(f"  {_rows(counts.dropped)} not audited because the audit queue was full")
        if counts.errors:
            lines.append(f"  {_rows(counts.errors)} whose audit failed")
        lines.append(f"  {sentence(point)}")
    return "\n".join(map(_printable, lines))


def audit_json(model: str, points: Sequence[PointAudit]) -> str:
    """Return the audits of a cascade as one JSON object."""
    return json.dumps({"model": model, "operating_points": [_point_json(p) for p in points]})


def _point_json(point: PointAudit) -> dict[str, object]:
    fields = dataclasses.asdict(point)
    fields["promise"] = fields.pop("guarantee")  # the key's name from before the field's
    return {**fields, "estimate": point.estimate, "sentence": sentence(point)}


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _model_text(model: ModelStatus) -> str:
    parts = [f"{model.name}: {'ready' if model.ready else 'NOT READY'}"]
    if model.versions:
        parts.append(f"version {', '.join(model.versions)}")
    if model.task == MULTI_LABEL:
        parts.append("multi-label")
    if model.max_batch_size is not None:
        parts.append(f"up to {model.max_batch_size} rows per request")
    if model.instances is not None and model.instances > 1:
        parts.append(f"{model.instances} instances")
    return "; ".join(parts)


def _printable(text: str) -> str:
    """Replace characters that can control a terminal (escapes, line breaks) by spaces."""
    return "".join(each if each.isprintable() else " " for each in text)
