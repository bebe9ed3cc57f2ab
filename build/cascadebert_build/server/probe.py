"""One row sent through every stage of a cascade, to see whether it answers."""

from __future__ import annotations

import time
from threading import Event
from types import TracebackType

from cascadebert_client import CascadeClient, CascadeClientError, InvalidRequest

_TEXT = "a health check"  # a constant: nothing of a user is in it
# No confidence exceeds it, so that a stage that is stuck cannot hide behind those before it.
_THRESHOLD = 1.0
_LOOK_S = 0.5  # between two looks at what the stages have answered


class Probe:
    """Asks one cascade. A context manager that closes the connection."""

    def __init__(self, url: str, cascade: str, timeout_s: float) -> None:
        """Ask `cascade` at `url`, and give it `timeout_s` seconds each time."""
        self._client = CascadeClient(url, cascade, channels=1)
        self._timeout_s = timeout_s
        self._pairs = False
        self._closed = Event()
        # Rows that each stage had answered when the probes began to fail.
        self._before: dict[str, int] | None = None

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a question that is under way ends."""
        self._closed.set()
        self._client.close()

    def failure(self) -> str | None:
        """Why the cascade does not work; None where it does.

        A probe waits in the queues of everybody's requests, and is turned away like them. One that
        got no answer while every stage answers rows of others has met a server that is busy, not
        one that is broken. A busy stage may take longer for a call than a probe has time, so what
        counts is what it has answered since the probes began to fail.
        """
        end_s = time.monotonic() + self._timeout_s
        before = self._before or self._rows()
        try:
            problem = self._ask()
        except CascadeClientError as exc:
            problem = str(exc)
        self._before = None
        while problem and before:
            after = self._rows()
            if all(after.get(stage, 0) > rows for stage, rows in before.items()):
                return None
            if any(after.get(stage, 0) < rows for stage, rows in before.items()):
                before = after  # the server has started anew
            self._before = before
            if time.monotonic() > end_s or self._closed.wait(_LOOK_S):
                break
        return problem

    def _ask(self) -> str | None:
        text = (_TEXT, _TEXT) if self._pairs else _TEXT
        try:
            answer = self._client.classify(text, threshold=_THRESHOLD, timeout_s=self._timeout_s)
        except InvalidRequest:
            if self._pairs:
                raise
            self._pairs = True
            return self._ask()
        return "it answers without its last stage (DEGRADED)" if answer.degraded else None

    def _rows(self) -> dict[str, int]:
        """Rows that each stage has answered; empty where the server does not say."""
        try:
            status = self._client.status(timeout_s=self._timeout_s)
        except CascadeClientError:
            return {}
        return {
            model.name: model.inference_count
            for model in status.statistics
            if model.name != status.model.name
        }
