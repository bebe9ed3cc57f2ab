"""What `serve` does about dead stubs and silent cascades, with a played server."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import cast

import pytest

import cascadebert_build.server.retired as retired_module
import cascadebert_build.server.watchdog as watchdog_module
from cascadebert_build.errors import CheckFailed
from cascadebert_build.server.ports import Ports
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_build.server.watchdog import Watchdog, WatchSettings
from cascadebert_supervisor.errors import StartError
from cascadebert_supervisor.probe import ProbeResult
from cascadebert_supervisor.repository import ServedCascade
from cascadebert_supervisor.stubs import Stub

SETTINGS = WatchSettings(poll_s=0.001, probe_s=3600, failed_probes=2, recoveries=3)
KILLED = "was killed by SIGKILL"
CASCADE = ServedCascade("sst2", ("sst2_small", "sst2_large"), pair=False, versions=(3,))


@pytest.fixture(autouse=True)
def probes_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class WorkingProbe:
        def __init__(self, *_: object) -> None: ...

        def classify(self, cascade: ServedCascade) -> ProbeResult:
            return ProbeResult(True, "", 0.0)

    def cascade_of(repository: Path, name: str, versions: list[int]) -> ServedCascade:
        assert (repository, name, versions) == (PlayedServer.repository, "sst2", [3])
        return CASCADE

    def policy_of(repository: Path, name: str, version: int) -> dict[str, object]:
        return {}

    monkeypatch.setattr(retired_module, "policy_of", policy_of)
    monkeypatch.setattr(watchdog_module, "Probe", WorkingProbe)
    monkeypatch.setattr(watchdog_module, "cascade_of", cascade_of)


class PlayedServer:
    """A server whose stubs die as scripted: one model after each recovery.

    The watch is stopped when the script is over.
    """

    ports = Ports(1, 2, 3)
    repository = Path("/models")
    n_instances = 1

    def __init__(self, *deaths: str, loads: bool = True, starts: int = 0) -> None:
        """Play.

        Args:
            deaths: The models whose stub dies, one after each recovery; "" for an unknown one.
            loads: Whether a reload works.
            starts: How often a restart fails before it works.
        """
        self._deaths = iter(deaths)
        self._loads = loads
        self._failing_starts = starts
        self._pids = itertools.count(1)
        self._dead: list[Stub] = []
        self.did: list[str] = []
        self.stopped = threading.Event()
        self.held: list[Stub] = []
        self.exit_code: int | None = None
        self.reachable = True
        self._next()

    def _next(self) -> None:
        model = next(self._deaths, None)
        if model is None:
            self.stopped.set()
        else:
            self._dead.append(Stub(next(self._pids), model or None, KILLED))

    def poll(self) -> int | None:
        return self.exit_code

    def newly_dead_stubs(self) -> list[Stub]:
        dead, self._dead = self._dead, []
        return dead

    def newly_gone_stubs(self) -> list[Stub]:
        return []

    def stubs(self) -> list[Stub]:
        return self.held

    def cascades(self) -> dict[str, list[int]]:
        if not self.reachable:
            raise CheckFailed("no answer")
        return {"sst2": [3]}

    def instances(self, model: str) -> int:
        assert model == "sst2"
        return self.n_instances

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


def test_a_dead_stage_is_reloaded() -> None:
    server = PlayedServer("sst2_large")
    said, code = watch(server)
    assert code is None
    assert server.did == ["reload sst2_large"]
    assert said[0] == f"a stub of sst2_large {KILLED}"
    assert said[1].startswith("sst2_large reloaded in ")


def test_a_cascade_with_living_instances_is_reloaded() -> None:
    """A restart would end the requests of the others."""
    server = PlayedServer("sst2", "sst2")
    server.n_instances = 2
    said, code = watch(server)
    assert code is None
    assert server.did == ["reload sst2", "reload sst2"]
    assert said[1].startswith("sst2 reloaded in ")


@pytest.fixture
def short_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests without a deadline may last no time at all."""
    policy = {"request_timeout_s": 0.0}
    monkeypatch.setattr(retired_module, "policy_of", lambda repository, name, version: policy)
    monkeypatch.setattr(retired_module, "_MARGIN_S", 0.0)


@pytest.mark.usefixtures("short_requests")
def test_requests_of_a_dead_instance_are_ended_by_a_restart() -> None:
    """The server keeps old instances while it has a request for them; one crashes meanwhile."""
    server = PlayedServer("sst2", "sst2")
    server.n_instances = 2
    server.held = [Stub(1, "sst2", KILLED), Stub(2, "sst2", KILLED), Stub(8, "sst2_large")]
    said, _ = watch(server)
    assert server.did == ["reload sst2", "restart"]
    assert said[2] == "requests that a dead instance of sst2 had are still without an answer"


@pytest.mark.usefixtures("short_requests")
def test_a_cascade_whose_old_instances_are_gone_has_lost_nothing() -> None:
    server = PlayedServer("sst2", "sst2_large")
    server.n_instances = 2
    watch(server)
    assert server.did == ["reload sst2", "reload sst2_large"]


def test_a_cascade_whose_instances_have_all_died_takes_the_server_with_it() -> None:
    server = PlayedServer("sst2")
    server.n_instances = 2
    server._dead.append(Stub(99, "sst2", KILLED))
    watch(server)
    assert server.did == ["restart"]


def test_a_dead_cascade_takes_the_server_with_it() -> None:
    """Only that ends the requests that it had deferred."""
    server = PlayedServer("sst2", "sst2_small")
    said, _ = watch(server)
    assert server.did == ["restart", "reload sst2_small"]
    assert said[1].startswith("tritonserver restarted in ")


def test_a_stub_without_a_name_takes_the_server_with_it() -> None:
    server = PlayedServer("")
    said, _ = watch(server)
    assert server.did == ["restart"]
    assert said[0] == f"a stub of a model {KILLED}"


def test_a_stage_that_does_not_reload_takes_the_server_with_it() -> None:
    server = PlayedServer("sst2_large", loads=False)
    said, _ = watch(server)
    assert server.did == ["reload sst2_large", "restart"]
    assert "it does not load" in said


def test_a_start_that_fails_is_tried_again() -> None:
    server = PlayedServer("sst2", starts=2)
    watch(server)
    assert server.did == ["restart"] * 3


@pytest.mark.parametrize("model", ["sst2", "sst2_large"])
def test_too_many_recoveries_in_a_row_end_it(model: str) -> None:
    server = PlayedServer(*[model] * 10)
    with pytest.raises(CheckFailed, match="3 recoveries in a row did not last"):
        watch(server)
    assert len(server.did) == 3


def test_a_server_that_never_starts_is_given_up_too() -> None:
    server = PlayedServer("sst2", starts=10**6)
    with pytest.raises(CheckFailed, match="a stub died while it started"):
        watch(server)
    assert server.did == ["restart"] * 3


def test_recoveries_with_quiet_between_them_do_not_count_up() -> None:
    server = PlayedServer(*["sst2_large"] * 10)
    watch(server, WatchSettings(poll_s=0.001, probe_s=3600, recoveries=1, quiet_s=0.0))
    assert server.did == ["reload sst2_large"] * 10


def test_a_server_that_ends_with_code_0_ends_the_watch() -> None:
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
    failures = iter(["silent", "", "silent", "silent", "silent", ""])
    server = PlayedServer("sst2_small")
    server._dead.clear()
    server._next = lambda: None  # type: ignore[method-assign] - what follows is up to the probes

    class ScriptedProbe:
        def __init__(self, http: int, metrics: int, timeout_s: float) -> None:
            assert (http, metrics) == (server.ports.http, server.ports.metrics)

        def classify(self, cascade: ServedCascade) -> ProbeResult:
            assert cascade == CASCADE
            failure = next(failures, None)
            if failure is None:
                server.stopped.set()
            return ProbeResult(not failure, failure or "", 0.0)

    monkeypatch.setattr(watchdog_module, "Probe", ScriptedProbe)
    said, _ = watch(server, WatchSettings(poll_s=0.001, probe_s=0.001, failed_probes=2))
    assert server.did == ["restart", "restart"]
    assert said[0] == "sst2 does not answer (2 probes in a row: silent)"
    assert said[2] == "sst2 does not answer (a probe: silent)"


def test_a_cascade_whose_version_was_deleted_is_probed_as_it_was_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = PlayedServer("sst2_small")
    watchdog = Watchdog(cast("TritonServer", server))
    assert watchdog._served() == [CASCADE]

    def gone(*_: object) -> ServedCascade:
        raise StartError("the version is gone")

    monkeypatch.setattr(watchdog_module, "cascade_of", gone)
    assert watchdog._served() == [CASCADE]
    server.reachable = False
    assert watchdog._served() == [CASCADE]
