"""Probes the cascades of a server until too many probes in a row have failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from .probe import Probe, ProbeResult
from .repository import ServedCascade

_READY_INTERVAL_S = 0.5
# Seconds between two rounds of probes if something may have happened.
_HURRIED_INTERVAL_S = 0.5


class FailureCount:
    """How many probes of each cascade have failed in a row.

    One failure says little. A success resets the count, however late it came: probes wait in the
    queues of a loaded server, and a loaded server is not a broken one.
    """

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}

    def add(self, cascade: str, *, ok: bool) -> int:
        """Count one probe; return the failures in a row, 0 after a success."""
        self._failures[cascade] = 0 if ok else self._failures.get(cascade, 0) + 1
        return self._failures[cascade]


class Watch:
    """A thread that probes, so that a hung server cannot hold up the thread that decides.

    Attributes:
        ready: Whether the server was ready to be probed.
        verdict: Why the server must be replaced; None while it works.
    """

    def __init__(
        self,
        probe: Probe,
        cascades: Callable[[], Sequence[ServedCascade]],
        *,
        interval_s: float,
        failures: int,
        first_failures: int | None = None,
        start_timeout_s: float | None = None,
        on_ready: Callable[[], object] = lambda: None,
        on_result: Callable[[str, int, ProbeResult], object] = lambda *_: None,
    ) -> None:
        """Prepare, but do not start.

        Args:
            probe: The probe of this server.
            cascades: Returns the cascades to probe; called once a round.
            interval_s: Seconds from the end of a round of probes to the next.
            failures: Failed probes in a row that are too many.
            first_failures: The same until all cascades have answered once; default: `failures`.
            start_timeout_s: Seconds until the server must be ready. No probe is sent before it is:
                engines of gigabytes take minutes to load. None: it is ready.
            on_ready: Called once, when the server is ready.
            on_result: Called with the cascade, its failures in a row and the result of each probe.
        """
        self._probe = probe
        self._cascades = cascades
        self._interval_s = interval_s
        self._failures = failures
        self._limit = failures if first_failures is None else first_failures
        self._start_timeout_s = start_timeout_s
        self._on_ready = on_ready
        self._on_result = on_result
        self._count = FailureCount()
        self._stopped = threading.Event()
        self._woken = threading.Event()
        self._hurried_rounds = 0
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.verdict: str | None = None
        self.ready = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Send no further probes. A probe that is under way ends by itself, without a verdict."""
        self._stopped.set()
        self._woken.set()

    def hurry(self) -> None:
        """Probe now, and then as often as a verdict takes, half a second apart.

        The verdict still takes as many failures as ever, since nothing may be wrong.
        """
        self._hurried_rounds = self._failures
        self._woken.set()

    def _run(self) -> None:
        try:
            verdict = self._await_ready() or self._probe_in_rounds()
        except Exception as exc:  # noqa: BLE001 - a thread that ends in silence would watch nothing
            verdict = f"the watch over the server failed ({type(exc).__name__}: {exc})"
        if not self._stopped.is_set():
            self.verdict = verdict

    def _await_ready(self) -> str | None:
        if self._start_timeout_s is not None:
            deadline_s = time.monotonic() + self._start_timeout_s
            while not self._probe.ready():
                if time.monotonic() > deadline_s:
                    return f"tritonserver was not ready after {self._start_timeout_s:g} s"
                if self._stopped.wait(min(_READY_INTERVAL_S, self._interval_s)):
                    return None
        self.ready = True
        self._on_ready()
        return None

    def _probe_in_rounds(self) -> str | None:
        while not self._stopped.is_set():
            broken: list[str] = []
            all_answered = True
            for cascade in self._cascades():
                result = self._probe.classify(cascade)
                if self._stopped.is_set():
                    return None
                failures = self._count.add(cascade.name, ok=result.ok)
                self._on_result(cascade.name, failures, result)
                all_answered = all_answered and result.ok
                if failures >= self._limit:
                    probes = "a probe" if failures == 1 else f"{failures} probes in a row"
                    broken.append(f"{cascade.name} does not answer ({probes}: {result.detail})")
            if broken:
                return "; ".join(broken)
            if all_answered:
                self._limit = self._failures
            self._pause()
        return None

    def _pause(self) -> None:
        if self._hurried_rounds:
            self._hurried_rounds -= 1
            self._stopped.wait(min(_HURRIED_INTERVAL_S, self._interval_s))
        else:
            self._woken.wait(self._interval_s)
        self._woken.clear()
