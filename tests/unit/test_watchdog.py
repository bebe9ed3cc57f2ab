"""What is done about dead stubs and silent cascades, by rule; the server is played here."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import cast

import pytest

import cascadebert_build.server.watchdog as watchdog_module
from cascadebert_build.errors import CheckFailed
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_build.server.watchdog import Watchdog, WatchSettings
from cascadebert_supervisor.stubs import Stub

SETTINGS = WatchSettings(poll_s=0.001, probe_s=3600, failed_probes=2, recoveries=3)
KILLED = "was killed by SIGKILL"


class PlayedServer:
    """A server whose stubs die by the script: the models that die, recovery by recovery.

    The watch is stopped when the script is over.
    """

    url = "127.0.0.1:1"

    def __init__(self, *deaths: str, loads: bool = True, starts: int = 0) -> None:
        """Play.

        Args:
            deaths: models whose stub dies, one after each recovery.
            loads: whether a reload works.
            starts: how often a restart fails before it works.
        """
        self._deaths = iter(deaths)
        self._loads = loads
        self._failing_starts = starts
        self._pids = itertools.count(1)
        self._dead: list[Stub] = []
        self.did: list[str] = []
        self.stopped = threading.Event()
        self.exit_code: int | None = None
        self._next()

    def _next(self) -> None:
        model = next(self._deaths, None)
        if model is None:
            self.stopped.set()
        else:
            self._dead.append(Stub(next(self._pids), model or None, KILLED))

    def poll(self) -> int | None:
        return self.exit_code

    def stubs(self) -> list[Stub]:
        return [Stub(1000, "sst2_small"), Stub(1001, "sst2_large", None), *self._dead]

    def cascades(self) -> list[str]:
        return ["sst2"]

    def reload(self, model: str, *, timeout_s: float) -> None:
        assert timeout_s > 0
        self.did.append(f"reload {model}")
        if not self._loads:
            raise CheckFailed("it does not load")
        self._next()

    def restart(self) -> None:
        self.did.append("restart")
        if self._failing_starts:
            self._failing_starts -= 1
            raise CheckFailed("a stub died while it started")
        self._dead.clear()
        self.exit_code = None
        self._next()

    def log_excerpt(self) -> str:
        return "(the log)"


def watch(server: PlayedServer, settings: WatchSettings = SETTINGS) -> tuple[list[str], int | None]:
    said: list[str] = []
    watchdog = Watchdog(cast("TritonServer", server), settings, said.append)
    return said, watchdog.run(server.stopped)


def test_a_dead_stage_is_loaded_anew_once() -> None:
    server = PlayedServer("sst2_large")
    said, code = watch(server)
    assert code is None
    assert server.did == ["reload sst2_large"]
    assert said[0] == f"a stub of sst2_large {KILLED}"
    assert said[1].startswith("sst2_large loaded anew in ")


def test_a_dead_cascade_takes_the_server_with_it() -> None:
    """Nobody else can end the requests that it had deferred."""
    server = PlayedServer("sst2", "sst2_small")
    said, _ = watch(server)
    assert server.did == ["restart", "reload sst2_small"]
    assert said[1].startswith("tritonserver restarted in ")


def test_a_stub_without_a_name_takes_the_server_with_it() -> None:
    server = PlayedServer("")
    said, _ = watch(server)
    assert server.did == ["restart"]
    assert said[0] == f"a stub of a model {KILLED}"


def test_a_stage_that_does_not_load_anew_takes_the_server_with_it() -> None:
    server = PlayedServer("sst2_large", loads=False)
    said, _ = watch(server)
    assert server.did == ["reload sst2_large", "restart"]
    assert "it does not load" in said


def test_a_start_that_fails_is_tried_again() -> None:
    server = PlayedServer("sst2", starts=2)
    watch(server)
    assert server.did == ["restart"] * 3


@pytest.mark.parametrize("model", ["sst2", "sst2_large"])
def test_after_a_few_in_a_row_it_gives_up(model: str) -> None:
    server = PlayedServer(*[model] * 10)
    with pytest.raises(CheckFailed, match="3 recoveries in a row did not last"):
        watch(server)
    assert len(server.did) == 3


def test_a_server_that_never_starts_is_given_up_too() -> None:
    server = PlayedServer("sst2", starts=10**6)
    with pytest.raises(CheckFailed, match="a stub died while it started"):
        watch(server)
    assert server.did == ["restart"] * 3


def test_recoveries_with_quiet_between_them_are_no_row() -> None:
    server = PlayedServer(*["sst2_large"] * 10)
    watch(server, WatchSettings(poll_s=0.001, probe_s=3600, recoveries=1, quiet_s=0.0))
    assert server.did == ["reload sst2_large"] * 10


def test_a_server_that_ends_in_order_ends_the_watch() -> None:
    server = PlayedServer("sst2_large")
    server.exit_code = 0
    _, code = watch(server)
    assert code == 0
    assert server.did == []


@pytest.mark.parametrize(("exit_code", "how"), [(-11, "SIGSEGV"), (1, "with code 1")])
def test_a_server_that_crashes_is_restarted(exit_code: int, how: str) -> None:
    server = PlayedServer("")
    server.exit_code = exit_code
    said, code = watch(server)
    assert code is None
    assert server.did == ["restart"]
    assert said[0] == f"tritonserver ended by itself: {how}"


def test_a_cascade_that_does_not_answer_restarts_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After enough failures in a row; after a recovery the first one is enough."""
    failures: Iterator[str | None] = iter(["silent", None, "silent", "silent", "silent", None])
    asked: list[str | None] = []
    server = PlayedServer("sst2_small", "none")
    server.url = "127.0.0.1:2"  # a watch that another test ended may be asking still
    server._dead.clear()

    class PlayedProbe:
        def __init__(self, url: str, cascade: str, timeout_s: float) -> None:
            assert (url, cascade) == (server.url, "sst2")

        def failure(self) -> str | None:
            asked.append(next(failures, None))
            if len(asked) > 6:
                server.stopped.set()
            return asked[-1]

        def close(self) -> None:
            pass

    monkeypatch.setattr(watchdog_module, "Probe", PlayedProbe)
    server._next = lambda: None  # what follows is up to the probes
    said, _ = watch(server, WatchSettings(poll_s=0.001, probe_s=0.001, failed_probes=2))
    assert server.did == ["restart", "restart"]
    assert said[0] == "sst2 failed 2 probes in a row: silent"
    assert said[2] == "sst2 failed 1 probes in a row: silent"
