"""A JSON line in the server's log for each request that fails, or for each request."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

from .job import Job
from .metrics import kind_of_error
from .shares import share_of_limit

# Levels: no request is logged, those that fail, or all.
NONE = "none"
ERRORS = "errors"
ALL = "all"
LEVELS = (NONE, ERRORS, ALL)

# Under overload most requests fail, so only this many lines of each kind are written a second.
_LINES_PER_S = 10
_LONGEST_ID = 200  # characters of a request's id, which the caller chooses
_STDERR = 2
# W3C's traceparent: version, trace, span, flags. What is not of this form is not logged.
_TRACE_ID = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")


class RequestLog:
    """Writes one JSON object a line: ids, counts and reasons, and texts only if told to."""

    def __init__(
        self,
        model: str,
        version: str,
        *,
        level: str = ERRORS,
        with_text: bool = False,
        write: Callable[[str], None],
        instances: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Check the level.

        Args:
            model: The cascade's name.
            version: The cascade's version.
            level: One of `LEVELS`.
            with_text: Whether lines hold the texts of the request.
            write: Writes one line.
            instances: How many processes write lines of this cascade. Each writes its share.
            clock: Returns seconds and never runs backwards.

        Raises:
            ValueError: The level is unknown.
        """
        if level not in LEVELS:
            raise ValueError(f"log_requests is {level!r}: give one of {', '.join(LEVELS)}")
        self._head = {"model": model, "version": version}
        self._level = level
        self._with_text = with_text
        self._write = write
        self._lines_per_s = share_of_limit(_LINES_PER_S, instances)
        self._clock = clock
        self._lock = threading.Lock()
        self._second = 0
        self._written: dict[str, int] = {}
        self._held_back: dict[str, int] = {}

    def ended(self, job: Job) -> None:
        """Log a job that has ended; this is a listener of jobs."""
        if self._level == NONE or (job.error is None and self._level == ERRORS):
            return
        event = "request_answered" if job.error is None else "request_failed"
        kind = event if job.error is None else kind_of_error(job.error)
        held_back: int | None = 0 if self._level == ALL else self._held_back_before(kind)
        if held_back is None:
            return
        line: dict[str, object] = {"event": event, "time": _now(), **self._head}
        line["request_id"] = job.request_id[:_LONGEST_ID]
        if trace := _TRACE_ID.match(job.traceparent):
            line["trace_id"] = trace[1]
        line["rows"] = len(job.texts)
        line["milliseconds"] = round(1000 * (time.monotonic() - job.began_s), 3)
        if job.error is None:
            line["exit_stages"] = job.exit_stage.tolist()
            line["degraded_rows"] = int(job.degraded.sum())
        else:
            # Error messages name rows and values of parameters, never the text of a row.
            line |= {"kind": kind, "reason": str(job.error)}
        if held_back:
            line["held_back"] = held_back
        if self._with_text:
            line["texts"] = list(job.texts)
        self._write(json.dumps(line, ensure_ascii=False))

    def event(self, fields: Mapping[str, object]) -> None:
        """Write a line about the cascade itself, at every level: it happens rarely."""
        first = {"event": fields["event"], "time": _now(), **self._head}
        self._write(json.dumps({**first, **fields}, ensure_ascii=False))

    def _held_back_before(self, kind: str) -> int | None:
        """Return how many lines of this kind were held back; None to hold this one back too."""
        with self._lock:
            second = int(self._clock())
            if second != self._second:
                self._second, self._written = second, {}
            if self._written.get(kind, 0) >= self._lines_per_s:
                self._held_back[kind] = self._held_back.get(kind, 0) + 1
                return None
            self._written[kind] = self._written.get(kind, 0) + 1
            return self._held_back.pop(kind, 0)


def write_line(line: str) -> None:
    """Write a line to stderr, which is the server's log.

    Triton's own logger would write the line as a JSON string inside a line of its own, and a reader
    would have to parse it twice.
    """
    content = f"{line}\n".encode()
    with contextlib.suppress(OSError):  # a log that takes nothing must not fail a request
        while content:  # in one piece if it is short, so that no other line gets into it
            content = content[os.write(_STDERR, content) :]


def _now() -> str:
    now = datetime.now(timezone.utc)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z"
