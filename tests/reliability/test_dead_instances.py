"""One of several instances of a cascade dies under load: the others' requests are answered."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from cascadebert_build.repository.publish import publish_cascade
from cascadebert_build.server import retired
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_build.server.watchdog import Watchdog, WatchSettings
from cascadebert_client import CascadeClient, Classification, ServerUnavailable
from cascadebert_core.tokenization import Text
from tests.support.counters import IN_FLIGHT_ROWS, counters
from tests.support.faulty import HANG, FaultyStage
from tests.support.load import ANSWERED, DEADLINE, ERROR, REJECTED, Load, load_process
from tests.support.serving import Built, serving, stage_files
from tests.support.sizes import sized
from tests.support.truth import truth_of
from tests.support.waiting import wait_until

CASCADE = "tiny"
INSTANCES = 3
TIMES = sized(1, 10)
WATCH = WatchSettings(probe_s=2.0, recoveries=10**6)

pytestmark = pytest.mark.timeout(sized(500, 3600))


def _recovered(said: list[str], before: int) -> bool:
    """Whether the watchdog has said that it repaired the server, after the lines `before`."""
    return any(re.search("reloaded in|restarted in", line) for line in said[before:])


def test_one_of_several_instances_is_killed(built: Built, tmp_path: Path) -> None:
    publish_cascade(
        tmp_path / "repository",
        CASCADE,
        built.policy,
        stage_files(built.steps, built.policy),
        replace(built.steps.config.runtime, cascade_instances=INSTANCES),
    )
    truth, stop_file, drawn = truth_of(built), tmp_path / "stop", random.Random(0)
    said: list[str] = []
    spans: list[tuple[float, float]] = []
    with load_process() as generator, serving(tmp_path / "repository") as server:
        stopped = threading.Event()
        watch = threading.Thread(
            target=Watchdog(server, WATCH, said.append).run, args=(stopped,), daemon=True
        )
        watch.start()
        load = Load(
            server.url,
            CASCADE,
            truth,
            sizes=(1, 1, 2, 5),
            timeout_s=10.0,
            concurrency=12,
            stop_file=stop_file,
        )
        future = generator.begin(load)
        try:
            time.sleep(2.0)
            for _ in range(TIMES):
                alive = [s for s in server.stubs() if s.model == CASCADE and not s.death]
                # The last loaded ones: those of an earlier load may still be there.
                victim = drawn.choice(sorted(stub.pid for stub in alive)[-INSTANCES:])
                before, killed_s = len(said), time.monotonic()
                os.kill(victim, signal.SIGKILL)
                wait_until(partial(_recovered, said, before), f"a recovery: {said}", timeout_s=120)
                if said[-1].startswith(f"{CASCADE} reloaded in"):
                    spans.append((killed_s, time.monotonic()))
                time.sleep(1.0)
        finally:
            stop_file.touch()
            account = future.result()
            print(account.counts(), account.details(REJECTED, DEADLINE, ERROR), said)
            stopped.set()
            watch.join()
        account.require_whole()
        # Twice in a few dozen kills 2.51 itself has ended, and with it all connections.
        restarts = sum(line.startswith("tritonserver restarted") for line in said)
        assert spans, f"the server never outlived the stub: {said}"
        assert len(spans) + restarts == TIMES, said
        for killed_s, recovered_s in spans:
            meanwhile = account.part(killed_s, recovered_s)
            assert meanwhile[ANSWERED] > 0, meanwhile.counts()
        if not restarts:
            assert set(account.counts()) <= {ANSWERED, DEADLINE, REJECTED}, account.details(ERROR)
            # Of the dead one's callers some learn it from Triton, the others by their deadline.
            assert all("is not healthy" in words for words in account.details(REJECTED))
        # Afterwards everything is answered.
        after = generator.run(
            Load(server.url, CASCADE, truth, requests=200, timeout_s=60, concurrency=8)
        )
        after.require_whole()
        assert after.counts() == {ANSWERED: 200}, after.details(ERROR, REJECTED, DEADLINE)


def test_requests_without_a_deadline_end_although_their_instance_has_died(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retired, "_MARGIN_S", 1.0)
    said: list[str] = []
    repository = tmp_path / "repository"
    policy = replace(built.policy, request_timeout_s=6.0)
    runtime = replace(built.steps.config.runtime, cascade_instances=2)
    publish_cascade(repository, CASCADE, policy, stage_files(built.steps, policy), runtime)
    stage = FaultyStage(repository, f"{CASCADE}_large")
    with serving(repository) as server, ThreadPoolExecutor(12) as pool:
        stopped = threading.Event()
        settings = replace(WATCH, probe_s=3600.0)
        watch = threading.Thread(
            target=Watchdog(server, settings, said.append).run, args=(stopped,), daemon=True
        )
        watch.start()

        def ask(text: Text) -> Classification:
            with CascadeClient(server.url, CASCADE) as client:
                return client.classify(cast("str", text), threshold=1.0)  # every row is deferred

        try:
            stage.begin(HANG)
            asked = [pool.submit(ask, text) for text in built.texts[:12]]
            wait_until(partial(_rows_in_flight, server, len(asked)), "rows in flight", timeout_s=30)
            alive = sorted(stub.pid for stub in server.stubs() if stub.model == CASCADE)
            os.kill(alive[0], signal.SIGKILL)
            stage.end()
            done, running = wait(asked, timeout=120)
        finally:
            stage.end()
            stopped.set()
            watch.join()
    assert not running, said
    # Those of the dead instance were sent again by the client, once their connection had ended.
    errors = [future.exception() for future in done if future.exception()]
    assert all(isinstance(error, ServerUnavailable) for error in errors), errors
    assert any("are still without an answer" in line for line in said), said


def _rows_in_flight(server: TritonServer, rows: int) -> bool:
    """Whether the instances have this many rows together."""
    return counters(server.ports.metrics)[IN_FLIGHT_ROWS] >= rows
