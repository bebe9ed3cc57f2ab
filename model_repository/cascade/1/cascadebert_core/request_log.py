"""A line for every request that failed, or for all, that programs can read."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

from .job import Job
from .metrics import kind_of_error

# What is logged: nothing, errors, or every request.
NONE = "none"
ERRORS = "errors"
ALL = "all"
LEVELS = (NONE, ERRORS, ALL)

# Errors come in floods; of each kind so many lines a second say enough.
_LINES_PER_S = 10
_LONGEST_ID = 200  # characters of a request's id, which is the caller's to choose


class RequestLog:
    """Writes one JSON object a line: ids, counts and reasons, and the text only where told to."""

    def __init__(
        self,
        model: str,
        version: str,
        *,
        level: str = ERRORS,
        with_text: bool = False,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            model: name of the cascade.
            version: of the cascade.
            level: one of `LEVELS`.
            with_text: whether lines hold the texts of the request.
            write: takes one line.
            clock: seconds that never run backwards.

        Raises:
            ValueError: an unknown level.
        """
        if level not in LEVELS:
            raise ValueError(f"log_requests is {level!r}: give one of {', '.join(LEVELS)}")
        self._head = {"model": model, "version": version}
        self._level = level
        self._with_text = with_text
        self._write = write
        self._clock = clock
        self._lock = threading.Lock()
        self._second = 0
        self._written: dict[str, int] = {}
        self._held_back: dict[str, int] = {}

    def ended(self, job: Job) -> None:
        """A request has its answer, or its error; a listener of jobs."""
        if self._level == NONE or (job.error is None and self._level == ERRORS):
            return
        event = "request_answered" if job.error is None else "request_failed"
        kind = event if job.error is None else kind_of_error(job.error)
        held_back: int | None = 0 if self._level == ALL else self._held_back_before(kind)
        if held_back is None:
            return
        line: dict[str, object] = {"event": event, **self._head}
        line["request_id"] = job.request_id[:_LONGEST_ID]
        line["rows"] = len(job.texts)
        line["milliseconds"] = round(1000 * (time.monotonic() - job.began_s), 3)
        if job.error is None:
            line["exit_stages"] = job.exit_stage.tolist()
            line["degraded_rows"] = int(job.degraded.sum())
        else:
            # The messages of errors name rows and values of parameters, never what stands in a row.
            line |= {"kind": kind, "reason": str(job.error)}
        if held_back:
            line["held_back"] = held_back
        if self._with_text:
            line["texts"] = list(job.texts)
        self._write(json.dumps(line, ensure_ascii=False))

    def _held_back_before(self, kind: str) -> int | None:
        """Lines of this kind held back before this one; None: hold this one back too."""
        with self._lock:
            second = int(self._clock())
            if second != self._second:
                self._second, self._written = second, {}
            if self._written.get(kind, 0) >= _LINES_PER_S:
                self._held_back[kind] = self._held_back.get(kind, 0) + 1
                return None
            self._written[kind] = self._written.get(kind, 0) + 1
            return self._held_back.pop(kind, 0)
