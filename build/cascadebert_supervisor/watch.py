"""Watches a server: waits until it is ready, then probes it for as long as it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from . import log
from .probe import Probe, ProbeResult
from .repository import ServedCascade

_READY_INTERVAL_S = 0.5


class FailureCount:
    """How often in a row the probes of each cascade have failed.

    One failure says little, a few in a row do. An answer wipes them out, however late it came:
    probes wait in the queues of a loaded server, and a loaded server is not a broken one.
    """

    def __init__(self, limit: int) -> None:
        """Count up to `limit`, at least 1."""
        self._limit = limit
        self._failures: dict[str, int] = {}

    def add(self, cascade: str, *, ok: bool) -> int:
        """Count one probe; the failures in a row, 0 after a success."""
        self._failures[cascade] = 0 if ok else self._failures.get(cascade, 0) + 1
        return self._failures[cascade]

    @property
    def broken(self) -> list[str]:
        """Cascades that have reached the limit."""
        return [name for name, count in self._failures.items() if count >= self._limit]


class Watch:
    """A thread that probes, so that a hung server cannot hold up a signal."""

    def __init__(
        self,
        probe: Probe,
        cascades: Sequence[ServedCascade],
        *,
        interval_s: float,
        failures: int,
        start_timeout_s: float,
        on_ready: Callable[[], None],
    ) -> None:
        """Prepare, but do not start.

        Args:
            probe: of this server.
            cascades: that it serves.
            interval_s: from the end of a round of probes to the next, in seconds.
            failures: in a row that are too many.
            start_timeout_s: seconds until the server must be ready. Before it is, nothing
                counts: engines of gigabytes take minutes to load.
            on_ready: called once, when it is.
        """
        self._probe = probe
        self._cascades = tuple(cascades)
        self._interval_s = interval_s
        self._count = FailureCount(failures)
        self._start_timeout_s = start_timeout_s
        self._on_ready = on_ready
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.verdict: str | None = None
        self.ready = False

    def start(self) -> None:
        """Begin; `verdict` is a sentence as soon as the server must go."""
        self._thread.start()

    def stop(self) -> None:
        """No further probes. One that is under way ends by itself."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as exc:  # noqa: BLE001 - a thread that ends unheard would watch nothing
            self.verdict = f"the watch over the server failed ({type(exc).__name__}: {exc})"

    def _watch(self) -> None:
        if not self._await_ready():
            return
        self.ready = True
        self._on_ready()
        while True:
            for cascade in self._cascades:
                result = self._probe.classify(cascade)
                if self._stopped.is_set():
                    return
                self._note(cascade.name, result)
            if self._count.broken:
                names = ", ".join(self._count.broken)
                self.verdict = f"{names} does not answer: the container ends, to be started anew"
                return
            if self._stopped.wait(self._interval_s):
                return

    def _await_ready(self) -> bool:
        deadline_s = time.monotonic() + self._start_timeout_s
        while not self._probe.ready():
            if time.monotonic() > deadline_s:
                self.verdict = (
                    f"tritonserver was not ready after {self._start_timeout_s:g} s: see its log "
                    "above, or give it longer with CASCADEBERT_START_TIMEOUT_S"
                )
                return False
            if self._stopped.wait(_READY_INTERVAL_S):
                return False
        return True

    def _note(self, name: str, result: ProbeResult) -> None:
        failures = self._count.add(name, ok=result.ok)
        took = f"{result.seconds:.1f}s"
        if not result.ok:
            log.warning(
                "probe failed", cascade=name, in_a_row=failures, took=took, reason=result.detail
            )
        elif result.detail:
            log.warning("probe waited", cascade=name, took=took, reason=result.detail)
