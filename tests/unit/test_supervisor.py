"""The entrypoint of the container, over a scripted server: checks, probes, signals, exit codes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cascadebert_supervisor.loopback import opened
from tests.support import scripted_tritonserver
from tests.support.supervised import (
    PYTHONPATH,
    ROOT,
    Supervised,
    quick_settings,
    write_cascade,
)

Supervise = Callable[..., Supervised]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Starts a supervisor over a scripted server; all of them end with the test."""
    started: list[Supervised] = []

    def start(behaviour: str = "serve", **settings: object) -> Supervised:
        write_cascade(tmp_path / "repository", "tiny", ["tiny_small", "tiny_large"])
        binary = tmp_path / "tritonserver"
        script = f"{sys.executable} -S {scripted_tritonserver.__file__} {behaviour}"
        binary.write_text(f'#!/bin/sh\nexec {script} "$@"\n')
        binary.chmod(0o755)
        started.append(Supervised(quick_settings(tmp_path, str(binary), **settings)))
        return started[-1]

    yield start
    for each in started:
        each.process.terminate()  # if a test failed, its server must end too
        each.end()


def tell(running: Supervised, path: str) -> None:
    """Steer the scripted server."""
    try:
        with opened(running.settings.http_port, path, 30):
            pass
    except OSError:
        assert path.startswith("/end/"), path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_server(supervise: Supervise, number: signal.Signals) -> None:
    running = supervise()
    running.await_ready()
    running.process.send_signal(number)
    assert running.end() == 0
    assert f"stopping signal={number.name}" in running.log()
    assert not running.settings.served_file.exists()


def test_a_server_that_does_not_stop_is_killed(supervise: Supervise) -> None:
    running = supervise("ignore-sigterm", stop_timeout_s=0.05, stop_margin_s=0.05)
    running.await_ready()
    running.process.terminate()
    assert running.end() == 137


@pytest.mark.parametrize(("code", "expected"), [(3, 3), (0, 1)])
def test_a_server_that_ends_by_itself_ends_the_container(
    supervise: Supervise, code: int, expected: int
) -> None:
    running = supervise()
    running.await_ready()
    tell(running, f"/end/{code}")
    assert running.end() == expected
    assert f"tritonserver ended by itself code={code}" in running.log()


def test_a_server_that_ends_while_it_loads_is_told_apart(supervise: Supervise) -> None:
    running = supervise("crash")
    assert running.end() == 139
    assert "tritonserver ended while it started" in running.log()


def test_failed_probes_in_a_row_end_the_container(supervise: Supervise) -> None:
    running = supervise()
    running.await_ready()
    tell(running, "/break")
    assert running.end() == 1
    log = running.log()
    assert "probe failed cascade=tiny in_a_row=3" in log
    assert "in_a_row=4" not in log
    assert "reason=HTTP 500: broken" in log
    assert re.search("ERROR tiny does not answer .*: the container ends", log)


def test_a_dead_stub_ends_the_container(supervise: Supervise) -> None:
    running = supervise("serve-and-lose-a-stub", probe_interval_s=60.0)
    assert running.end() == 1
    last = running.log().splitlines()[-1]
    assert re.search("ERROR a stub of .* ended with code 7: the container ends", last)


def test_a_stub_that_dies_while_models_load_ends_the_container(supervise: Supervise) -> None:
    running = supervise("hang-and-lose-a-stub")
    assert running.end() == 1
    last = running.log().splitlines()[-1]
    assert re.search("ERROR a stub of .* ended with code 7 while it loaded: the container", last)


def test_a_slow_start_is_waited_for(supervise: Supervise) -> None:
    running = supervise("slow")
    running.await_ready()
    running.process.terminate()
    assert running.end() == 0
    assert "probe failed" not in running.log()


def test_an_endless_start_is_not_waited_for(supervise: Supervise) -> None:
    running = supervise("hang", start_timeout_s=0.1)
    assert running.end() == 1
    log = running.log()
    assert "not ready after 0.1 s" in log
    assert "CASCADEBERT_START_TIMEOUT_S" in log


def test_the_preflight_runs_first_and_its_sentences_are_logged(
    supervise: Supervise, tmp_path: Path
) -> None:
    check = tmp_path / "check"
    check.write_text('#!/bin/sh\necho "cascadebert_engine: $*" >&2\nexit 1\n')
    check.chmod(0o755)
    running = supervise(preflight=(str(check), "check"))
    assert running.end() == 2
    log = running.log()
    assert f"ERROR check {tmp_path / 'repository'} --model tiny --versions tiny=1\n" in log
    assert "tritonserver starts" not in log


def test_a_signal_during_the_checks_is_not_lost(supervise: Supervise, tmp_path: Path) -> None:
    asked, go_on = tmp_path / "asked", tmp_path / "go-on"
    os.mkfifo(go_on)
    running = supervise(preflight=("sh", "-c", f"touch {asked}; read line < {go_on}; true"))
    while not asked.exists():
        assert running.process.poll() is None
        time.sleep(0.01)
    running.process.terminate()
    go_on.write_text("on\n")
    assert running.end() == 0
    assert "tritonserver starts" not in running.log()


@pytest.mark.parametrize(
    ("preflight", "message"),
    [(("/nowhere/check",), "does not run"), (("sh", "-c", "exit 3"), "ended with code 3")],
)
def test_a_preflight_that_breaks_stops_the_start(
    supervise: Supervise, preflight: tuple[str, ...], message: str
) -> None:
    running = supervise(preflight=preflight)
    assert running.end() == 2
    assert message in running.log()


def test_orphans_are_collected_as_process_1_must() -> None:
    """As a subreaper, the supervisor inherits orphans as process 1 of a container does."""
    script = """\
        import ctypes, os, signal, sys, time
        from cascadebert_supervisor.process import SIGNALS, ServerProcess
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        # Two processes lose their parent. They and the server wait for the end of a pipe.
        end, held = os.pipe()
        os.set_inheritable(end, True)
        script = f"(cat <&{end} & cat <&{end} &); cat <&{end}; exit 7"
        server = ServerProcess(["sh", "-c", script], os.environ)
        children = lambda: open(f"/proc/self/task/{os.getpid()}/children").read().split()
        while len(children()) < 3:
            server.reap()
            time.sleep(0.01)
        os.close(held)
        while server.reap() is None or children():
            time.sleep(0.01)
        print(server.exit_code)
    """
    ended = subprocess.run(
        [sys.executable, "-S", "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout == "7\n", ended.stderr


def test_the_image_holds_all_that_the_supervisor_imports(tmp_path: Path) -> None:
    """Its files as the Dockerfile copies them, and no installed package."""
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    stage = dockerfile.partition(" AS triton\n")[2].partition("\nFROM ")[0]
    for line in re.findall(r"^COPY (.+)$", stage, re.MULTILINE):
        *sources, target = line.split()
        below = tmp_path / target.removeprefix("/opt/cascadebert/")
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, below)
            else:
                destination = below / Path(source).name if target.endswith("/") else below
                destination.parent.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, destination)
    ended = subprocess.run(
        [sys.executable, "-S", "-E", "-m", "cascadebert_supervisor", "healthcheck"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith("not ready")
