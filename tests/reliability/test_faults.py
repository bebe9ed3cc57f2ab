"""Faults at random moments under load: each request ends once, in time, and never wrongly.

Each fault is injected while callers ask without a pause and without retries. Requests that need the
broken part get one error, or a degraded answer if the policy allows it; all others get an answer.
Tests share a server: each leaves it sound, and checks that.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cascadebert_build.repository.model_config import config_to_json
from cascadebert_build.server.model_control import ModelControlClient
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_build.server.watchdog import Watchdog, WatchSettings
from cascadebert_client import CascadeClient, CascadeClientError
from cascadebert_core.contract import POLICY_FILE
from cascadebert_core.policy import policy_to_json
from cascadebert_supervisor.stubs import stubs_of
from tests.support.checkpoints import TEXTS
from tests.support.counters import IN_FLIGHT_ROWS, QUEUED_ROWS, settled_counters
from tests.support.faulty import ERROR as RAISES
from tests.support.faulty import GARBAGE, HANG, NAN, FaultyStage
from tests.support.figures import record, rounded
from tests.support.load import (
    ANSWERED,
    DEADLINE,
    DEGRADED,
    ERROR,
    REJECTED,
    Account,
    Load,
    LoadProcess,
    load_process,
)
from tests.support.serving import Built, serving
from tests.support.sizes import sized
from tests.support.truth import Truth, truth_of

TIMES = sized(2, 20)
TIMEOUT_S = 1.0
RECOVERY_S = 60.0
CASCADE, SMALL, LARGE = "tiny", "tiny_small", "tiny_large"
# Here one recovery follows another, so their number is no limit.
WATCH = WatchSettings(probe_s=2.0, recoveries=10**6)

pytestmark = pytest.mark.timeout(sized(300, 3600))


@dataclass
class Scene:
    """A server under load, and the means to break it.

    Attributes:
        server: The server of the cascade `tiny`.
        stage: Its last stage, with a switch for faults.
        truth: What requests must be answered with.
        said: What the watchdog has said.
    """

    server: TritonServer
    stage: FaultyStage
    truth: Truth
    said: list[str]

    def answers(self) -> bool:
        """Whether rows pass through every stage."""
        with CascadeClient(self.server.url, CASCADE) as client:
            try:
                answer = client.classify(self.truth.texts[0], threshold=1.0, timeout_s=2.0)
            except CascadeClientError:
                return False
        return not answer.degraded

    def await_recovery(self) -> float:
        """Seconds until it answers again."""
        start_s = time.monotonic()
        while not self.answers():
            waited_s = time.monotonic() - start_s
            assert waited_s < RECOVERY_S, f"no answer {waited_s:.0f} s after the fault: {self.said}"
        return time.monotonic() - start_s


@pytest.fixture(scope="module")
def generator() -> Iterator[LoadProcess]:
    with load_process() as process:
        yield process


@pytest.fixture(scope="module")
def truth(built: Built) -> Truth:
    return truth_of(built)


@contextmanager
def scene(
    built: Built, truth: Truth, folder: Path, *, degrade: bool = False
) -> Generator[Scene, None, None]:
    """A copy of the cascade, served, whose last stage can be told to fail."""
    repository = shutil.copytree(built.repository, folder / "repository")
    if degrade:
        policy = dataclasses.replace(built.policy, degrade=True)
        (repository / CASCADE / "1" / POLICY_FILE).write_text(policy_to_json(policy))
    stage = FaultyStage(repository, LARGE)
    with serving(repository) as server:
        yield Scene(server, stage, truth, [])


@pytest.fixture(scope="module")
def broken(built: Built, truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(built, truth, tmp_path_factory.mktemp("plain")) as plain:
        yield plain
    assert plain.server.exit_code == 0


@pytest.fixture(scope="module")
def degrading(
    built: Built, truth: Truth, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    with scene(built, truth, tmp_path_factory.mktemp("degrading"), degrade=True) as degrading:
        yield degrading
    assert degrading.server.exit_code == 0


@pytest.fixture(scope="module")
def watched(
    built: Built, truth: Truth, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    with scene(built, truth, tmp_path_factory.mktemp("watched")) as watched:
        stopped = threading.Event()
        watchdog = Watchdog(watched.server, WATCH, watched.said.append)
        thread = threading.Thread(target=watchdog.run, args=(stopped,))
        thread.start()
        try:
            yield watched
        finally:  # before the server ends, or the watchdog would restart it
            stopped.set()
            thread.join()


def inject(
    scene: Scene, generator: LoadProcess, stop_file: Path, fault: Callable[[random.Random], None]
) -> tuple[Account, list[float]]:
    """The load's account, and the seconds from the end of each fault to the next answer."""
    scene.await_recovery()
    drawn = random.Random(0)
    load = Load(
        scene.server.url,
        CASCADE,
        scene.truth,
        sizes=(1, 1, 2, 5),
        timeout_s=TIMEOUT_S,
        stop_file=stop_file,
    )
    future = generator.begin(load)
    recoveries: list[float] = []
    try:
        for _ in range(TIMES):
            time.sleep(drawn.uniform(0.2, 1.0))
            fault(drawn)
            recoveries.append(scene.await_recovery())
        time.sleep(0.5)
    finally:
        stop_file.touch()
        account = future.result()
        print(account.counts(), account.details(REJECTED, DEADLINE, ERROR), scene.said)
    account.require_whole()
    assert account[ANSWERED], account.counts()
    return account, recoveries


def check_sound(scene: Scene, generator: LoadProcess) -> None:
    """Afterwards all requests are answered, nothing is left behind, and the cascade unloads."""
    load = Load(scene.server.url, CASCADE, scene.truth, requests=200, timeout_s=60, concurrency=4)
    account = generator.run(load)
    account.require_whole()
    assert account.counts() == {ANSWERED: 200}, account.details(ERROR, REJECTED, DEADLINE)
    counts = settled_counters(scene.server.ports.metrics)
    assert counts[IN_FLIGHT_ROWS] == counts[QUEUED_ROWS] == 0, counts
    with ModelControlClient(scene.server.url, timeout_s=60) as running:
        config = config_to_json(running.config(CASCADE))
        running.unload(CASCADE)
        running.settle([CASCADE])  # a request that is never answered would keep it
    scene.server.load(CASCADE, config)


def note(name: str, account: Account, recoveries: list[float]) -> None:
    record(
        f"fault-{name}",
        {
            "injected": len(recoveries),
            "requests": account.sent,
            "outcomes": account.counts(),
            "longest_past_deadline_s": rounded(account.overdue_s()),
            "longest_until_the_next_answer_s": rounded(max(recoveries)),
            "reasons": account.details(REJECTED, DEADLINE, ERROR),
        },
    )


# The outcomes that each fault may cause, beside answers and missed deadlines.
STAGE_FAULTS = {
    RAISES: {REJECTED},
    NAN: {ERROR},
    GARBAGE: {ERROR},
    HANG: {DEADLINE, REJECTED},
}


def failing(stage: FaultyStage, kind: str, longest_s: float) -> Callable[[random.Random], None]:
    """A fault of a stage, for a drawn time."""

    def fault(drawn: random.Random) -> None:
        stage.begin(kind)
        try:
            time.sleep(drawn.uniform(0.1, longest_s))
        finally:
            stage.end()

    return fault


@pytest.mark.parametrize("kind", STAGE_FAULTS)
def test_a_stage_that_fails(
    kind: str, broken: Scene, generator: LoadProcess, tmp_path: Path
) -> None:
    fault = failing(broken.stage, kind, 2.0 if kind == HANG else 0.5)
    account, recoveries = inject(broken, generator, tmp_path / "stop", fault)
    note(kind, account, recoveries)
    # On a busy machine any request may miss its deadline.
    allowed = {ANSWERED, DEADLINE} | STAGE_FAULTS[kind]
    assert set(account.counts()) <= allowed, account.details(ERROR, REJECTED)
    assert set(account.counts()) & STAGE_FAULTS[kind], "no fault has met a request"
    if kind in (NAN, GARBAGE):
        assert all(LARGE in words for words in account.details(ERROR))
    check_sound(broken, generator)


@pytest.mark.parametrize("kind", [RAISES, NAN, GARBAGE])
def test_a_stage_that_fails_if_answers_may_be_degraded(
    kind: str, degrading: Scene, generator: LoadProcess, tmp_path: Path
) -> None:
    fault = failing(degrading.stage, kind, 0.5)
    account, recoveries = inject(degrading, generator, tmp_path / "stop", fault)
    note(f"{kind}-degrading", account, recoveries)
    allowed = {ANSWERED, DEGRADED, DEADLINE}
    assert set(account.counts()) <= allowed, account.details(ERROR, REJECTED)
    assert account[DEGRADED], account.counts()
    check_sound(degrading, generator)


def test_a_stage_that_is_unloaded(broken: Scene, generator: LoadProcess, tmp_path: Path) -> None:
    with ModelControlClient(broken.server.url) as running:
        config = config_to_json(running.config(LARGE))

        def fault(drawn: random.Random) -> None:
            running.unload(LARGE)
            try:
                time.sleep(drawn.uniform(0.1, 0.5))
            finally:
                broken.server.load(LARGE, config)

        account, recoveries = inject(broken, generator, tmp_path / "stop", fault)
    note("unload", account, recoveries)
    assert set(account.counts()) <= {ANSWERED, DEADLINE, REJECTED}, account.details(ERROR)
    assert account[REJECTED], account.counts()
    check_sound(broken, generator)


@pytest.mark.parametrize("model", [LARGE, CASCADE])
def test_a_model_that_reloads(
    model: str, broken: Scene, generator: LoadProcess, tmp_path: Path
) -> None:
    """Triton loads the new one beside the old one: no request notices."""
    account, recoveries = inject(
        broken, generator, tmp_path / "stop", lambda _: broken.server.reload(model)
    )
    note(f"reload-{model}", account, recoveries)
    assert set(account.counts()) <= {ANSWERED, DEADLINE}, account.details(ERROR, REJECTED)
    check_sound(broken, generator)


def started(pid: int) -> int:
    """When a process started, in clock ticks since the machine did."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])


@pytest.mark.parametrize("model", [SMALL, LARGE, CASCADE])
def test_a_stub_that_is_killed(
    model: str, watched: Scene, generator: LoadProcess, tmp_path: Path
) -> None:
    said = watched.said

    def fault(_: random.Random) -> None:
        alive = [stub for stub in watched.server.stubs() if not stub.death]
        # Older ones may remain of an instance that was replaced, and serve no request.
        pid = max((stub.pid for stub in alive if stub.model == model), key=started)
        before = len(said)
        os.kill(pid, signal.SIGKILL)
        end_s = time.monotonic() + RECOVERY_S
        # The watchdog says what it found, and what it did.
        while len(said) < before + 2 and time.monotonic() < end_s:
            time.sleep(0.05)
        # 2.51 may end because of it.
        found = (f"a stub of {model} was killed by SIGKILL", "tritonserver ended by itself")
        assert any(line.startswith(found) for line in said[before:]), said

    account, recoveries = inject(watched, generator, tmp_path / "stop", fault)
    note(f"kill-{model}", account, recoveries)
    check_sound(watched, generator)


def test_serve_brings_back_what_dies(built: Built, tmp_path: Path) -> None:
    """The command, what it says, its ports, and its end."""
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    arguments = ["serve", "--model-repository", str(built.repository), *ports, "--json"]
    said = tmp_path / "stderr"
    with said.open("w") as stderr:
        serve = subprocess.Popen(
            [sys.executable, "-m", "cascadebert_build.cli", *arguments],
            stdout=subprocess.PIPE, stderr=stderr, text=True,
        )  # fmt: skip
    try:
        assert serve.stdout is not None
        url = json.loads(serve.stdout.readline())["grpc"]
        for model, done in ((LARGE, "reloaded"), (CASCADE, "restarted")):
            (server,) = children_of(serve.pid, "tritonserver")
            pid = next(stub.pid for stub in stubs_of(server) if stub.model == model)
            os.kill(pid, signal.SIGKILL)
            end_s = time.monotonic() + RECOVERY_S
            while done not in said.read_text():
                assert time.monotonic() < end_s, said.read_text()
                assert serve.poll() is None, said.read_text()
                time.sleep(0.1)
            with CascadeClient(url, CASCADE) as client:
                assert client.classify(TEXTS[:5], threshold=1.0, timeout_s=RECOVERY_S)
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(60) == 0, said.read_text()
    finally:
        if serve.poll() is None:
            for server in children_of(serve.pid, "tritonserver"):
                os.killpg(server, signal.SIGKILL)
        serve.kill()
        serve.wait()


def children_of(pid: int, name: str) -> list[int]:
    """Children of a process that run a program of this name."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(pid)], capture_output=True, text=True, check=True
    ).stdout
    found = (line.split() for line in listed.splitlines())
    return [int(child) for child, command in found if command == name]
