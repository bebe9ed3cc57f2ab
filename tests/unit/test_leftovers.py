"""What a killed `serve` leaves behind, with small processes in the place of a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascadebert_supervisor import leftovers
from cascadebert_supervisor.guard import Guard
from tests.support.waiting import wait_until

# Plays `serve`: a folder, its guard and its server. It says the server's pid, and waits.
_SERVE = """
import subprocess, sys, time
from pathlib import Path
from cascadebert_supervisor.guard import Guard
from cascadebert_supervisor import leftovers
folder, region, with_guard = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "guarded"
folder.mkdir()
leftovers.claim(folder)
leftovers.remember_regions(folder, {region})
if with_guard:
    guard = Guard(folder)
server = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(120)",
     f"--backend-directory={leftovers.backends_of(folder)}"],
    start_new_session=True,
)
print(server.pid, flush=True)
time.sleep(120)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


class Killed:
    """A `serve` that is killed with SIGKILL, and what it leaves."""

    def __init__(self, parent: Path, *, guarded: bool) -> None:
        self.folder = parent / f"{leftovers.FOLDER_PREFIX}test"
        self.region = parent / "region"
        self.region.write_bytes(b"shared")
        guard = "guarded" if guarded else "alone"
        command = [sys.executable, "-c", _SERVE, str(self.folder), str(self.region), guard]
        self.serve = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.serve.stdout is not None
        self.server_pid = int(self.serve.stdout.readline())
        wait_until(lambda: leftovers.processes_of(self.folder) == [self.server_pid])

    def kill(self) -> None:
        self.serve.kill()
        self.serve.wait()

    def close(self) -> None:
        self.kill()
        assert self.serve.stdout is not None
        self.serve.stdout.close()
        if is_alive(self.server_pid):
            os.kill(self.server_pid, signal.SIGKILL)


@pytest.fixture(params=["guarded", "alone"])
def killed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Killed]:
    playing = Killed(tmp_path, guarded=request.param == "guarded")
    yield playing
    playing.close()


@pytest.mark.parametrize("killed", ["guarded"], indirect=True)
def test_the_guard_ends_the_server_of_a_killed_program(killed: Killed) -> None:
    assert is_alive(killed.server_pid)
    killed.kill()
    wait_until(lambda: not is_alive(killed.server_pid), "the end of the server")
    wait_until(lambda: not killed.folder.exists(), "the removal of the folder")
    assert not killed.region.exists()


@pytest.mark.parametrize("killed", ["alone"], indirect=True)
def test_the_next_start_removes_what_no_guard_did(killed: Killed, tmp_path: Path) -> None:
    assert leftovers.remove_abandoned([tmp_path]) == [], "its owner still lives"
    killed.kill()
    (removed,) = leftovers.remove_abandoned([tmp_path])
    assert (removed.folder, removed.processes, removed.regions) == (killed.folder, 1, 1)
    assert str(killed.folder) in str(removed)
    assert not is_alive(killed.server_pid)
    assert not killed.folder.exists()
    assert not killed.region.exists()
    assert leftovers.remove_abandoned([tmp_path]) == []


def test_a_server_that_was_stopped_leaves_its_guard_nothing_to_do(tmp_path: Path) -> None:
    kept = tmp_path / "tritonserver.log"
    kept.write_text("the log")
    guard = Guard(tmp_path)
    assert is_alive(guard.pid)
    guard.dismiss()
    guard.dismiss()
    assert not is_alive(guard.pid)
    assert kept.read_text() == "the log"


def test_a_folder_that_was_given_up_is_nobodys_left_over(tmp_path: Path) -> None:
    folder = tmp_path / f"{leftovers.FOLDER_PREFIX}x"
    folder.mkdir()
    assert not leftovers.is_abandoned(folder), "never claimed: not ours to judge"
    leftovers.claim(folder)
    assert not leftovers.is_abandoned(folder)
    namespace, owner = (folder / "owner").read_text().split("\n")
    (folder / "owner").write_text(f"{namespace}\n{os.getpid()} 1")  # it had this number before
    assert leftovers.is_abandoned(folder)
    for unknown in (f"pid:[1]\n{os.getpid()} 1", "", f"{namespace}\n", owner):
        (folder / "owner").write_text(unknown)
        assert not leftovers.is_abandoned(folder), "of another container, or half written"
    leftovers.release(folder)
    assert not leftovers.is_abandoned(folder)


def test_a_reader_of_the_log_is_not_the_server(tmp_path: Path) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path / "tritonserver.log")]
    )
    try:
        assert leftovers.processes_of(tmp_path) == []
    finally:
        reader.kill()
        reader.wait()
