"""One row sent through every stage of a cascade, to see whether it answers."""

from __future__ import annotations

from types import TracebackType

from cascadebert_client import CascadeClient, CascadeClientError, InvalidRequest

_TEXT = "a health check"  # a constant: nothing of a user is in it
# No confidence exceeds it, so that a stage that is stuck cannot hide behind those before it.
_THRESHOLD = 1.0


class Probe:
    """Asks one cascade. A context manager that closes the connection."""

    def __init__(self, url: str, cascade: str, timeout_s: float) -> None:
        """Ask `cascade` at `url`, and give it `timeout_s` seconds each time."""
        self._client = CascadeClient(url, cascade, channels=1)
        self._timeout_s = timeout_s
        self._pairs = False

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
        self._client.close()

    def failure(self) -> str | None:
        """Why the cascade does not work; None where it does.

        A probe waits in the queues of everybody's requests. One that got no answer while every
        stage answered rows of others has met a server that is busy, not one that is broken.
        """
        before = self._rows()
        try:
            self._ask()
        except CascadeClientError as exc:
            after = self._rows()
            if before and all(after.get(stage, 0) > rows for stage, rows in before.items()):
                return None
            return str(exc)
        return None

    def _ask(self) -> None:
        text = (_TEXT, _TEXT) if self._pairs else _TEXT
        try:
            self._client.classify(text, threshold=_THRESHOLD, timeout_s=self._timeout_s)
        except InvalidRequest:
            if self._pairs:
                raise
            self._pairs = True
            self._ask()

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
