"""Brings back what died inside a running server, which tritonserver itself does not.

A stub that was killed is never started again: 2.51 goes on calling its model ready, and answers
each call of it with an error after a second. A stage is loaded anew, beside which everything else
goes on. A cascade takes with it the requests that it had deferred: nobody can answer them any
more, and only the end of their connections tells their callers so; then, as where loading does
not help, the server is restarted on the same ports. So it is where it ends itself with an error.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from cascadebert_supervisor.stubs import Stub

from ..errors import CheckFailed
from .probe import Probe
from .tritonserver import TritonServer

_RELOAD_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How closely a server is watched.

    Attributes:
        poll_s: seconds from one look at the processes to the next.
        probe_s: seconds from one probe of the cascades to the next.
        probe_timeout_s: seconds that a probe waits for its answer.
        failed_probes: in a row that are too many.
        recoveries: in a row that are too many.
        quiet_s: seconds after which the next recovery is the first of a new row.
    """

    poll_s: float = 0.25
    probe_s: float = 10.0
    probe_timeout_s: float = 10.0
    failed_probes: int = 3
    recoveries: int = 5
    quiet_s: float = 60.0


class Watchdog:
    """Watches one server from the thread that calls `run`."""

    def __init__(
        self,
        server: TritonServer,
        settings: WatchSettings = WatchSettings(),
        say: Callable[[str], object] = lambda line: sys.stderr.write(f"{line}\n"),
    ) -> None:
        """Prepare, but do not watch.

        Args:
            server: started, with its models loaded.
            settings: how closely.
            say: told, in a sentence, what was found and what was done.
        """
        self._server = server
        self._settings = settings
        self._say = say
        self._suspects: set[int] = set()
        self._given_up: set[int] = set()
        self._recoveries = 0
        # None while a recovery is under way, however long it takes.
        self._quiet_since_s: float | None = None

    def run(self, stopped: Event | None = None) -> int | None:
        """Watch until the server ends in order, which nobody here asks it to do.

        Args:
            stopped: ends the watch, from another thread.

        Returns:
            The server's exit code; None where `stopped` was set.

        Raises:
            BuildError: it does not come back, or what came back died again and again.
        """
        stopped = stopped or Event()
        with _Probing(self._server, self._settings) as probing:
            while not stopped.wait(self._settings.poll_s):
                code = self._server.poll()
                if code == 0:
                    return code
                if code is not None:
                    how = signal.Signals(-code).name if code < 0 else f"with code {code}"
                    self._begin_recovery(f"tritonserver ended by itself: {how}")
                    self._restart()
                elif dead := self._new_dead():
                    self._recover(dead)
                elif failure := probing.failure():
                    self._begin_recovery(failure)
                    self._restart()
                else:
                    continue
                self._quiet_since_s = time.monotonic()
                probing.begin_anew()
        return None

    def _new_dead(self) -> list[Stub]:
        """Stubs that died since the last look."""
        dead = [s for s in self._server.stubs() if s.death and s.pid not in self._given_up]
        # One that the server is about to collect, after a load that failed, is gone at next look.
        found = [stub for stub in dead if stub.pid in self._suspects]
        self._suspects = {stub.pid for stub in dead}
        self._given_up |= {stub.pid for stub in found}
        return found

    def _recover(self, dead: list[Stub]) -> None:
        deaths = {stub.model: f"{stub.death}" for stub in dead}
        models = [model for model in deaths if model is not None]
        self._begin_recovery(
            "; ".join(f"a stub of {model or 'a model'} {death}" for model, death in deaths.items())
        )
        try:
            cascades = self._server.cascades()
            if len(models) == len(deaths) and not set(models) & set(cascades):
                start_s = time.monotonic()
                for model in models:
                    self._server.reload(model, timeout_s=_RELOAD_TIMEOUT_S)
                seconds = time.monotonic() - start_s
                self._say(f"{', '.join(models)} loaded anew in {seconds:.1f} s")
                return
        except CheckFailed as exc:
            self._say(str(exc))
        self._restart()

    def _restart(self) -> None:
        """Restart the server; again, where something dies while it starts."""
        while True:
            start_s = time.monotonic()
            self._suspects.clear()
            self._given_up.clear()
            try:
                self._server.restart()
            except CheckFailed as exc:
                self._begin_recovery(str(exc))
            else:
                self._say(f"tritonserver restarted in {time.monotonic() - start_s:.1f} s")
                return

    def _begin_recovery(self, why: str) -> None:
        """Say what was found.

        Raises:
            CheckFailed: it was found too often.
        """
        self._say(why)
        since_s, self._quiet_since_s = self._quiet_since_s, None
        if since_s is not None and time.monotonic() - since_s > self._settings.quiet_s:
            self._recoveries = 0
        self._recoveries += 1
        if self._recoveries > self._settings.recoveries:
            raise CheckFailed(
                f"{why}; {self._settings.recoveries} recoveries in a row did not last: see "
                "whether the machine has memory enough (dmesg, docs/sizing.md), and the log\n"
                f"{self._server.log_excerpt()}"
            )


class _Probing:
    """Probes the cascades from a thread, so that a slow answer does not hide a dead stub."""

    def __init__(self, server: TritonServer, settings: WatchSettings) -> None:
        self._server = server
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "probe")
        self._probes: dict[str, Probe] = {}
        self._failures: dict[str, int] = {}
        self._round: Future[dict[str, str | None]] | None = None
        self._next_s = time.monotonic() + settings.probe_s
        self._proven = True

    def __enter__(self) -> _Probing:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def begin_anew(self) -> None:
        """After a recovery: ask at once, and take the first failure for an answer."""
        self._close()
        self._failures = {}
        self._round = None
        self._next_s = time.monotonic()
        self._proven = False

    def failure(self) -> str | None:
        """Why a cascade counts as broken; None while none does."""
        if self._round is None:
            if time.monotonic() >= self._next_s:
                self._round = self._thread.submit(self._ask_all)
            return None
        if not self._round.done():
            return None
        try:
            failures = self._round.result()
        except CheckFailed as exc:
            failures: dict[str, str | None] = {"tritonserver": str(exc)}
        self._round = None
        self._next_s = time.monotonic() + self._settings.probe_s
        limit = self._settings.failed_probes if self._proven else 1
        for name, failure in failures.items():
            self._failures[name] = self._failures.get(name, 0) + 1 if failure else 0
            if failure and self._failures[name] >= limit:
                return f"{name} failed {self._failures[name]} probes in a row: {failure}"
        self._proven = True
        return None

    def _ask_all(self) -> dict[str, str | None]:
        """Why each cascade does not answer; None where it does."""
        probes = self._probes
        names = self._server.cascades()
        for name in names:
            if name not in probes:
                probes[name] = Probe(self._server.url, name, self._settings.probe_timeout_s)
        return {name: probes[name].failure() for name in names}

    def _close(self) -> None:
        for probe in self._probes.values():
            probe.close()
        self._probes = {}
