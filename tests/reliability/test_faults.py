"""Faults at random moments under load: each request ends once, in time, and never wrongly.

Every kind is injected while callers ask without a pause and without retries. Whoever needs what is
broken gets one error, or a degraded answer where the policy allows it; everybody else an answer.
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

TIMES = sized(3, 20)
TIMEOUT_S = 1.0
RECOVERY_S = 60.0
CASCADE, SMALL, LARGE = "tiny", "tiny_small", "tiny_large"
# A recovery would give up after some in a row, and here each is followed by the next.
WATCH = WatchSettings(probe_s=2.0, recoveries=10**6)

pytestmark = pytest.mark.timeout(sized(300, 3600))


@dataclass
class Scene:
    """A server under load, and what it takes to break it.

    Attributes:
        server: with the cascade `tiny`.
        stage: its last one, with a switch for faults.
        said: by the watchdog.
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
    built: Built, truth: Truth, folder: Path, *, degrade: bool = False, watched: bool = False
) -> Generator[Scene, None, None]:
    """A copy of the cascade, served; its last stage can be told to fail."""
    repository = shutil.copytree(built.repository, folder / "repository")
    if degrade:
        policy = dataclasses.replace(built.policy, degrade=True)
        (repository / CASCADE / "1" / POLICY_FILE).write_text(policy_to_json(policy))
    stage = FaultyStage(repository, LARGE)
    with serving(repository) as server:
        said: list[str] = []
        if not watched:
            yield Scene(server, stage, truth, said)
            return
        stopped = threading.Event()
        watchdog = Watchdog(server, WATCH, said.append)
        thread = threading.Thread(target=watchdog.run, args=(stopped,))
        thread.start()
        try:
            yield Scene(server, stage, truth, said)
        finally:  # before the server ends, or the watchdog would bring it back
            stopped.set()
            thread.join()


def inject(
    scene: Scene, generator: LoadProcess, stop_file: Path, fault: Callable[[random.Random], None]
) -> tuple[Account, list[float]]:
    """The load's account, and the seconds from the end of each fault to the next answer."""
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
    """Afterwards everything is as before: all are answered, and nothing is left behind."""
    load = Load(scene.server.url, CASCADE, scene.truth, requests=200, timeout_s=60, concurrency=4)
    account = generator.run(load)
    account.require_whole()
    assert account.counts() == {ANSWERED: 200}, account.details(ERROR, REJECTED, DEADLINE)
    counts = settled_counters(scene.server.ports.metrics)
    assert counts[IN_FLIGHT_ROWS] == counts[QUEUED_ROWS] == 0, counts


def check_unload_and_stop(server: TritonServer) -> None:
    with ModelControlClient(server.url, timeout_s=60) as running:
        running.unload(CASCADE)
        running.settle([CASCADE])
    server.stop()
    assert server.exit_code == 0


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


# What callers may hear of each; the others of the tally must not occur.
STAGE_FAULTS = {
    RAISES: {REJECTED},
    NAN: {ERROR},
    GARBAGE: {ERROR},
    HANG: {DEADLINE, REJECTED},
}


@pytest.mark.parametrize("kind", STAGE_FAULTS)
def test_a_stage_that_fails(
    kind: str, built: Built, truth: Truth, generator: LoadProcess, tmp_path: Path
) -> None:
    with scene(built, truth, tmp_path) as broken:

        def fault(drawn: random.Random) -> None:
            broken.stage.begin(kind)
            time.sleep(drawn.uniform(0.1, 2.0 if kind == HANG else 0.5))
            broken.stage.end()

        account, recoveries = inject(broken, generator, tmp_path / "stop", fault)
        note(kind, account, recoveries)
        # On a busy machine any request may miss its deadline.
        assert set(account.counts()) <= {ANSWERED, DEADLINE} | STAGE_FAULTS[kind], account.details(
            ERROR, REJECTED
        )
        assert set(account.counts()) & STAGE_FAULTS[kind], "no fault has met a request"
        if kind in (NAN, GARBAGE):
            assert all(LARGE in words for words in account.details(ERROR))
        check_sound(broken, generator)
        check_unload_and_stop(broken.server)


@pytest.mark.parametrize("kind", [RAISES, NAN, GARBAGE])
def test_a_stage_that_fails_where_answers_may_be_degraded(
    kind: str, built: Built, truth: Truth, generator: LoadProcess, tmp_path: Path
) -> None:
    with scene(built, truth, tmp_path, degrade=True) as broken:

        def fault(drawn: random.Random) -> None:
            broken.stage.begin(kind)
            time.sleep(drawn.uniform(0.1, 0.5))
            broken.stage.end()

        account, recoveries = inject(broken, generator, tmp_path / "stop", fault)
        note(f"{kind}-degrading", account, recoveries)
        assert set(account.counts()) <= {ANSWERED, DEGRADED, DEADLINE}, account.details(
            ERROR, REJECTED
        )
        assert account[DEGRADED], account.counts()
        check_sound(broken, generator)
        check_unload_and_stop(broken.server)


def test_a_stage_that_is_unloaded(
    built: Built, truth: Truth, generator: LoadProcess, tmp_path: Path
) -> None:
    with scene(built, truth, tmp_path) as broken, ModelControlClient(broken.server.url) as running:
        config = config_to_json(running.config(LARGE))

        def fault(drawn: random.Random) -> None:
            running.unload(LARGE)
            time.sleep(drawn.uniform(0.1, 0.5))
            broken.server.load(LARGE, config)

        account, recoveries = inject(broken, generator, tmp_path / "stop", fault)
        note("unload", account, recoveries)
        assert set(account.counts()) <= {ANSWERED, DEADLINE, REJECTED}, account.details(ERROR)
        assert account[REJECTED], account.counts()
        check_sound(broken, generator)
        check_unload_and_stop(broken.server)


@pytest.mark.parametrize("model", [LARGE, CASCADE])
def test_a_model_that_reloads(
    model: str, built: Built, truth: Truth, generator: LoadProcess, tmp_path: Path
) -> None:
    """Triton loads the new one beside the old one: nobody notices."""
    with scene(built, truth, tmp_path) as broken:
        account, recoveries = inject(
            broken, generator, tmp_path / "stop", lambda _: broken.server.reload(model)
        )
        note(f"reload-{model}", account, recoveries)
        assert set(account.counts()) <= {ANSWERED, DEADLINE}, account.details(ERROR, REJECTED)
        check_sound(broken, generator)
        check_unload_and_stop(broken.server)


@pytest.mark.parametrize("model", [SMALL, LARGE, CASCADE])
def test_a_stub_that_is_killed(
    model: str, built: Built, truth: Truth, generator: LoadProcess, tmp_path: Path
) -> None:
    with scene(built, truth, tmp_path, watched=True) as broken:

        def fault(_: random.Random) -> None:
            pid = next(
                stub.pid for stub in broken.server.stubs() if stub.model == model and not stub.death
            )
            before = len(broken.said)
            os.kill(pid, signal.SIGKILL)
            end_s = time.monotonic() + RECOVERY_S
            # What was found, and what was done.
            while len(broken.said) < before + 2 and time.monotonic() < end_s:
                time.sleep(0.05)
            # 2.51 has ended over it; either way somebody noticed.
            found = (f"a stub of {model} was killed by SIGKILL", "tritonserver ended by itself")
            assert any(line.startswith(found) for line in broken.said[before:]), broken.said

        account, recoveries = inject(broken, generator, tmp_path / "stop", fault)
        note(f"kill-{model}", account, recoveries)
        check_sound(broken, generator)


def test_serve_brings_back_what_dies(built: Built, tmp_path: Path) -> None:
    """The command, its words, its ports, and its end."""
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
        for model, done in ((LARGE, "loaded anew"), (CASCADE, "restarted")):
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
