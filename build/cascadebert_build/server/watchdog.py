"""Repairs a running server, which tritonserver does not do itself.

2.51 never starts a killed stub again: it goes on calling the model ready, and answers each call of
it with an error after a second. If the stub was a stage's, the stage is loaded again while
everything else goes on. A dead cascade leaves deferred requests that can never be answered, and
only the end of their connections tells the callers: then the server is restarted on the same ports.
But if other instances of the cascade live, a restart would end their requests too. Then the cascade
is loaded again: the living answer what they have, and the requests that the dead one had deferred
end at their callers' deadlines. Some callers may have set none. Their requests could last as long
as the policy's `request_timeout_s`; if the server still holds the old instances after that, such
requests are lost, and a restart ends them. The server is also restarted if a stage does not load,
if probes keep failing, and if the server ends with an error.

Servers from 26.01 on collect a dead stub, so that it is only gone. Then the probes decide, and they
hurry.

The container notices the same faults with the same code (`cascadebert_supervisor`), but it ends and
leaves the restart to Docker.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event

from cascadebert_supervisor.errors import StartError
from cascadebert_supervisor.probe import Probe
from cascadebert_supervisor.repository import ServedCascade, cascade_of
from cascadebert_supervisor.stubs import Stub, deaths
from cascadebert_supervisor.watch import Watch

from ..errors import CheckFailed
from .retired import Retired, retired_of_dead
from .tritonserver import TritonServer

_RELOAD_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How closely a server is watched.

    Attributes:
        poll_s: Seconds from one look at the processes to the next.
        probe_s: Seconds from one probe of the cascades to the next.
        probe_timeout_s: Seconds that a probe waits for its answer.
        failed_probes: Failed probes in a row that are too many.
        recoveries: The most recoveries in a row.
        quiet_s: Seconds without a fault after which the count of recoveries starts at 0.
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
            server: The server, started and with its models loaded.
            settings: How closely it is watched.
            say: Called with a sentence about each fault and each recovery.
        """
        self._server = server
        self._settings = settings
        self._say = say
        self._cascades: dict[str, ServedCascade] = {}
        self._retired: list[Retired] = []
        self._recoveries = 0
        # None while a recovery is under way, however long it takes.
        self._quiet_since_s: float | None = None

    def run(self, stopped: Event | None = None) -> int | None:
        """Watch until the server ends with exit code 0.

        Args:
            stopped: Ends the watch, from another thread.

        Returns:
            The server's exit code; None if `stopped` was set.

        Raises:
            BuildError: The server does not come back, or dies again after each recovery.
        """
        stopped = stopped or Event()
        watch = self._watch(self._settings.failed_probes)
        try:
            while not stopped.wait(self._settings.poll_s):
                code = self._server.poll()
                if code == 0:
                    return code
                if code is not None:
                    how = signal.Signals(-code).name if code < 0 else f"with code {code}"
                    self._restart(f"tritonserver ended by itself: {how}")
                elif dead := self._newly_dead():
                    self._recover(dead)
                elif lost := self._lost_requests():
                    self._restart(lost)
                elif watch.verdict:
                    self._restart(watch.verdict)
                else:
                    if self._server.newly_gone_stubs():
                        watch.hurry()
                    continue
                self._quiet_since_s = time.monotonic()
                watch.stop()
                watch = self._watch(1)  # what was just recovered must answer its first probe
        finally:
            watch.stop()
        return None

    def _watch(self, first_failures: int) -> Watch:
        """Begin to probe the server that runs now."""
        ports, settings = self._server.ports, self._settings
        watch = Watch(
            Probe(ports.http, ports.metrics, settings.probe_timeout_s),
            self._served,
            interval_s=settings.probe_s,
            failures=settings.failed_probes,
            first_failures=first_failures,
        )
        watch.start()
        return watch

    def _served(self) -> list[ServedCascade]:
        """The cascades that the server has loaded, or had when it last answered."""
        try:
            loaded = self._server.cascades()
        except CheckFailed:
            if not self._cascades:
                raise
        else:
            known, self._cascades = self._cascades, {}
            for name, versions in loaded.items():
                # `publish --keep` may delete a version that is still loaded.
                with contextlib.suppress(StartError):
                    known[name] = cascade_of(self._server.repository, name, versions)
                if name in known:
                    self._cascades[name] = known[name]
        return list(self._cascades.values())

    def _newly_dead(self) -> list[Stub]:
        """Return the stubs that have died, without those whose model was loaded again since.

        2.51 sometimes crashes a stub of a replaced model when it ends.
        """
        replaced = {pid for retired in self._retired for pid in retired.pids}
        return [stub for stub in self._server.newly_dead_stubs() if stub.pid not in replaced]

    def _lost_requests(self) -> str:
        """Return why a restart is due for requests that no instance can answer any more, or ""."""
        now_s = time.monotonic()
        due = [retired for retired in self._retired if retired.due_s <= now_s]
        if not due:
            return ""
        self._retired = [retired for retired in self._retired if retired.due_s > now_s]
        held = {stub.pid for stub in self._server.stubs()}
        lost = sorted({retired.model for retired in due if retired.pids & held})
        if not lost:
            return ""
        return f"requests that a dead instance of {', '.join(lost)} had are still without an answer"

    def _recover(self, dead: list[Stub]) -> None:
        """Load the models of dead stubs again, or restart the server."""
        self._begin_recovery(deaths(dead))
        died = Counter(stub.model for stub in dead)
        try:
            cascades = self._server.cascades().keys() & died.keys()
            if None not in died and all(
                died[name] < self._server.instances(name) for name in filter(None, cascades)
            ):
                names = sorted(filter(None, died))
                start_s = time.monotonic()
                retired = [retired_of_dead(self._server, name) for name in sorted(cascades)]
                for model in names:
                    self._server.reload(model, timeout_s=_RELOAD_TIMEOUT_S)
                now_s = time.monotonic()
                self._retired += [replace(each, since_s=now_s) for each in retired]
                self._say(f"{', '.join(names)} reloaded in {now_s - start_s:.1f} s")
                return
        except CheckFailed as exc:
            self._say(str(exc))
        self._restart()

    def _restart(self, why: str = "") -> None:
        """Restart the server, and try again if it does not start."""
        while True:
            if why:
                self._begin_recovery(why)
            start_s = time.monotonic()
            try:
                self._retired.clear()
                self._server.restart()
            except CheckFailed as exc:
                why = str(exc)
            else:
                self._say(f"tritonserver restarted in {time.monotonic() - start_s:.1f} s")
                return

    def _begin_recovery(self, why: str) -> None:
        """Say what is wrong, and count.

        Raises:
            CheckFailed: There were too many recoveries in a row.
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
