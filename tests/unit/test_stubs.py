"""Processes of the python backend, seen from outside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascadebert_supervisor import stubs as stubs_module
from cascadebert_supervisor.stubs import (
    STUCK_AFTER_S,
    Stub,
    Stubs,
    StuckStubs,
    deaths,
    regions_of,
    remove_regions,
    stubs_of,
)
from tests.support.waiting import wait_until

# A program of the stub's name, started by a server that does not collect it.
_SERVER = """
import subprocess, sys, time
children = [subprocess.Popen([sys.argv[1], f"/models/{model}/1/model.py", what, "shm"])
            for model, what in (("sst2_small", "60"), ("sst2_large", "60"), ("sst2", "0"))]
print(*(child.pid for child in children), flush=True)
time.sleep(60)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, list[int]]]:
    """The pid of a server and of its stubs."""
    stub = tmp_path / "triton_python_backend_stub"
    shutil.copy("/bin/bash", stub)
    stub.chmod(0o755)
    models = tmp_path / "models"
    for model in ("sst2_small", "sst2_large", "sst2"):
        (models / model / "1").mkdir(parents=True)
        # bash reads the model as a script, and stays what it is.
        (models / model / "1" / "model.py").write_text(
            'read -r -t "$1" line < <(sleep "$1")\nexit 0\n'
        )
    source = _SERVER.replace("/models/", f"{models}/")
    process = subprocess.Popen(
        [sys.executable, "-c", source, str(stub)], stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    try:
        yield process.pid, pids
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def eventually(server_pid: int, expected: set[Stub]) -> None:
    for _ in range(500):
        if set(stubs_of(server_pid)) == expected:
            return
        time.sleep(0.02)
    raise AssertionError(f"{stubs_of(server_pid)}, not {expected}")


def test_the_living_have_a_model_and_the_dead_a_reason(server: tuple[int, list[int]]) -> None:
    pid, (small, large, cascade) = server
    # The last one has ended with code 0.
    living = {Stub(small, "sst2_small"), Stub(large, "sst2_large"), Stub(cascade, None)}
    eventually(pid, living)
    os.kill(large, signal.SIGKILL)
    killed = Stub(large, None, "was killed by SIGKILL")
    eventually(pid, living - {Stub(large, "sst2_large")} | {killed})


def test_a_dead_stub_is_reported_once_with_its_model(server: tuple[int, list[int]]) -> None:
    pid, (_, large, _) = server
    deadline_s = time.monotonic() + 10
    stubs = Stubs(pid)
    while not any(stub.pid == large and stub.model for stub in stubs.now()):
        assert time.monotonic() < deadline_s
    assert stubs.newly_dead() == []
    os.kill(large, signal.SIGKILL)
    killed = Stub(large, "sst2_large", "was killed by SIGKILL")
    while killed not in stubs.now():
        assert time.monotonic() < deadline_s
    assert stubs.newly_dead() == [], "the server may be about to collect it"
    assert stubs.newly_dead() == [killed]
    assert stubs.newly_dead() == []


def play(monkeypatch: pytest.MonkeyPatch, seen: list[Stub]) -> None:
    """Let /proc have these stubs."""
    monkeypatch.setattr(stubs_module, "stubs_of", lambda _: list(seen))
    monkeypatch.setattr(
        stubs_module, "_stub", lambda pid: next((stub for stub in seen if stub.pid == pid), None)
    )


def test_a_stub_that_the_server_collects_is_gone_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As servers from 26.01 on do it; and so it is if a model is unloaded."""
    now_s = 100.0
    seen = [Stub(1, "sst2_small"), Stub(2, "sst2_large")]
    play(monkeypatch, seen)
    stubs = Stubs(7, lambda: now_s)
    assert (stubs.newly_dead(), stubs.newly_gone()) == ([], [])
    del seen[1]
    assert (stubs.newly_dead(), stubs.newly_gone()) == ([], [Stub(2, "sst2_large")])
    now_s += 60  # with a search
    assert (stubs.newly_dead(), stubs.newly_gone()) == ([], [])
    del seen[0]
    assert [stub.pid for stub in stubs.now()] == []
    assert stubs.newly_gone() == [Stub(1, "sst2_small")]


def test_a_zombie_that_was_told_is_not_gone_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [Stub(1, "sst2_small")]
    play(monkeypatch, seen)
    stubs = Stubs(7)
    stubs.now()
    seen[0] = Stub(1, None, "was killed by SIGKILL")
    assert (stubs.newly_dead(), stubs.newly_gone()) == ([], [])
    assert [stub.model for stub in stubs.newly_dead()] == ["sst2_small"]
    seen.clear()
    assert (stubs.newly_dead(), stubs.newly_gone()) == ([], [])


def test_deaths_are_told_by_model() -> None:
    dead = [Stub(1, "a", "was killed by SIGKILL"), Stub(2, None, "ended with code 3")]
    said = "a stub of a was killed by SIGKILL; a stub of a model ended with code 3"
    assert deaths(dead) == said


def test_a_process_without_stubs_has_none() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert stubs_of(process.pid) == []
        assert regions_of(process.pid) == set()
        process.communicate(b"\n")
    assert stubs_of(process.pid) == []
    assert regions_of(process.pid) == set()


def test_shared_memory_is_found_by_its_name_and_freed() -> None:
    region = Path(f"/dev/shm/triton_python_backend_shm_region_test-{os.getpid()}")
    source = (
        "import mmap, sys; file = open(sys.argv[1], 'r+b'); "
        "held = mmap.mmap(file.fileno(), 4096); print(flush=True); input()"
    )
    region.write_bytes(bytes(4096))
    try:
        with subprocess.Popen(
            [sys.executable, "-c", source, str(region)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            process.stdout.readline()
            assert regions_of(process.pid) == {region}
            remove_regions([region])
            assert not region.exists()
            assert regions_of(process.pid) == set(), "its name is gone"
            process.communicate(b"\n")
        remove_regions([region])  # a second time does no harm
    finally:
        region.unlink(missing_ok=True)


def test_known_stubs_need_no_search(server: tuple[int, list[int]]) -> None:
    pid, (small, large, _) = server
    eventually_seen = {small, large}
    while not eventually_seen <= {stub.pid for stub in stubs_of(pid) if stub.model}:
        time.sleep(0.02)
    now_s = 100.0
    stubs = Stubs(pid, lambda: now_s)
    assert stubs.newly_dead() == []  # the first call searches
    os.kill(small, signal.SIGKILL)
    wait_until(lambda: any(stub.death for stub in stubs_of(pid)))
    assert stubs.newly_dead() == []  # suspected
    assert [stub.model for stub in stubs.newly_dead()] == ["sst2_small"]  # without a search


def test_a_stub_that_dies_while_a_model_loads_is_told_once_the_server_leaves_it() -> None:
    now_s = 0.0
    before, alive = Stub(1, "sst2", "was killed by SIGKILL"), Stub(2, "sst2_small")
    dead = Stub(3, "sst2_large", "ended with code 1")
    stuck = StuckStubs([before, alive], clock=lambda: now_s)
    assert stuck.among([before, alive, dead]) == []
    now_s += STUCK_AFTER_S - 0.1
    assert stuck.among([before, alive, dead]) == []
    now_s += 0.2
    assert stuck.among([before, alive, dead]) == [dead]
    # One that the server collects was no fault of the kind, however often it happens.
    assert stuck.among([before, alive]) == []
    assert stuck.among([dead]) == []
