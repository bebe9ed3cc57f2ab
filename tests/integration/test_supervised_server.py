"""The container's supervisor over the real tritonserver, without Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cascadebert_build.server.installation import find_installation
from cascadebert_build.server.model_control import ModelControlClient
from cascadebert_build.server.rollout import load_cascade
from cascadebert_supervisor.flags import GRPC_KEY_HEADER, command_of_server, flags_of_server
from cascadebert_supervisor.loopback import opened
from cascadebert_supervisor.probe import rows_of_stage
from cascadebert_supervisor.repository import ServedCascade
from cascadebert_supervisor.served import served_cascades
from cascadebert_supervisor.settings import Settings
from cascadebert_supervisor.stubs import stubs_of
from cascadebert_supervisor.supervisor import probe_of
from tests.support.serving import Built
from tests.support.stopping import answers_of_requests_in_flight, with_faulty_stage
from tests.support.supervised import HOST, Supervised, quick_settings
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The bundled server laid out as in NVIDIA's image: binary, backends, library path."""
    installation = find_installation()
    backends = tmp_path_factory.mktemp("backends")
    installation.copy_backends(backends)
    with pytest.MonkeyPatch.context() as patch:
        libraries = os.pathsep.join(map(str, installation.libraries))
        patch.setenv("LD_LIBRARY_PATH", libraries)
        yield {
            "binary": str(installation.binary),
            "backends": str(backends),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }


def test_the_bundled_server_knows_every_flag(bundled: dict[str, str]) -> None:
    settings = Settings(key="k" * 20)
    known = flags_of_server(bundled["binary"])
    for flag in command_of_server(settings, [ServedCascade("x", ("y",), False)], known)[1:]:
        assert flag[2:].partition("=")[0] in known


Supervise = Callable[..., Supervised]


@pytest.fixture
def supervise(built: Built, bundled: dict[str, str], tmp_path: Path) -> Iterator[Supervise]:
    """Starts the cascade `built` in the real tritonserver, and waits until it is ready."""
    started: list[Supervised] = []

    def start(**settings: object) -> Supervised:
        chosen = quick_settings(
            tmp_path, bundled["binary"], **{"repository": built.repository, **settings}
        )
        backends = f"--backend-directory={bundled['backends']}"
        started.append(Supervised(chosen, backends, PATH=bundled["PATH"]))
        started[-1].await_ready()
        return started[-1]

    yield start
    for each in started:
        each.process.terminate()
        each.end()


def test_the_real_server_answers_the_probe_and_stops_on_request(
    supervise: Supervise, built: Built
) -> None:
    real = supervise(cores=3)
    settings = real.settings
    (cascade,) = served_cascades(settings.served_file)
    # As many as fit the machine, and one of what runs in the cascade's process.
    assert [instances_of(settings, stage) for stage in cascade.stages] == [1, 3]
    assert cascade.stages == tuple(stage.model for stage in built.policy.stages)
    before = last_stage(settings, cascade)
    assert probe_of(settings).classify(cascade).ok
    # Counts reach the endpoint a moment later.
    wait_until(lambda: last_stage(settings, cascade) > before)
    real.process.terminate()
    assert real.end() == 0


def test_a_container_that_stops_answers_the_requests_that_it_has(
    built: Built, bundled: dict[str, str], tmp_path: Path
) -> None:
    last = built.policy.stages[-1].model
    repository, hanging = with_faulty_stage(built.repository, last, tmp_path)
    settings = quick_settings(
        tmp_path, bundled["binary"], repository=repository, probe_interval_s=60.0
    )
    real = Supervised(settings, f"--backend-directory={bundled['backends']}", PATH=bundled["PATH"])
    try:
        real.await_ready()
        answers = answers_of_requests_in_flight(
            f"{HOST}:{settings.grpc_port}", built.name, hanging, real.process.terminate
        )
    finally:
        real.process.terminate()
        code = real.end()
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    assert code == 0
    assert "requests may be lost" not in real.log()


def test_a_version_that_is_published_later_can_be_loaded(
    supervise: Supervise, built: Built, tmp_path: Path
) -> None:
    repository = tmp_path / "own"
    shutil.copytree(built.repository, repository)
    settings = supervise(repository=repository).settings
    shutil.copytree(repository / built.name / "1", repository / built.name / "2")
    wait_until((settings.overlay / built.name / "2").is_dir)
    headers = {GRPC_KEY_HEADER: settings.key}
    with ModelControlClient(f"{HOST}:{settings.grpc_port}", headers, timeout_s=60.0) as server:
        assert set(load_cascade(repository, built.name, server).policies) == {2}
    assert probe_of(settings).classify(served_cascades(settings.served_file)[0]).ok


def instances_of(settings: Settings, model: str) -> int:
    with opened(settings.http_port, f"/v2/models/{model}/config", 30) as response:
        return json.load(response)["instance_group"][0]["count"]


def last_stage(settings: Settings, cascade: ServedCascade) -> float:
    with opened(settings.metrics_port, "/metrics", 30) as response:
        return rows_of_stage(response.read().decode(), cascade.name, len(cascade.stages) - 1)


def test_a_dead_bls_process_of_the_real_server_ends_the_container(
    supervise: Supervise, built: Built
) -> None:
    # Two looks at the stubs leave the time for a probe before the container ends.
    real = supervise(poll_s=2.0, probe_interval_s=60.0)
    (cascade,) = served_cascades(real.settings.served_file)
    (server,) = children_of(real.process.pid)
    (stub,) = [stub for stub in stubs_of(server) if stub.model == built.name]
    os.kill(stub.pid, signal.SIGKILL)
    probed = probe_of(real.settings).classify(cascade)
    assert not probed.ok, "servers from 26.01 on hide the dead stub from all but the probe"
    assert "is not healthy" in probed.detail
    assert real.end() == 1
    # Its model is known if it was seen alive, which a look every 2 s may miss.
    assert re.search("a stub of (tiny|a model) was killed by SIGKILL: the container", real.log())


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]
