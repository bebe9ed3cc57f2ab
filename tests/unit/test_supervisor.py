"""The entrypoint of the container: its checks, flags, probe and signals, without Docker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cascadebert_build.repository.model_config import config_from_text, config_to_text, set_versions
from cascadebert_build.server.tritonserver import find_installation
from cascadebert_supervisor.errors import StartError
from cascadebert_supervisor.flags import command_of_server, flags_of_server
from cascadebert_supervisor.probe import Probe, rows_of_stage
from cascadebert_supervisor.repository import ServedCascade, cascades_of_repository
from cascadebert_supervisor.settings import Settings, settings_from_environment
from cascadebert_supervisor.supervisor import served_cascades
from cascadebert_supervisor.watch import FailureCount
from tests.support.serving import Built

HOST = "127.0.0.1"
BUILD = Path(__file__).resolve().parents[2] / "build"
CASCADE = BUILD.parent / "model_repository" / "cascade"
TINY = ServedCascade("tiny", ("tiny_small", "tiny_large"), pair=False)


# --- settings


def test_without_a_key_each_start_has_one_of_its_own() -> None:
    keys = {settings_from_environment({"CASCADEBERT_KEY": ""}).key for _ in range(3)}
    assert len(keys) == 3
    assert min(map(len, keys)) >= 32


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef\n")
    settings = settings_from_environment(
        {
            "CASCADEBERT_KEY_FILE": str(tmp_path / "key"),
            "CASCADEBERT_MODELS": " one, two,",
            "CASCADEBERT_PROBE_TIMEOUT_S": "2.5",
            "CASCADEBERT_PROBE_FAILURES": "7",
            "CASCADEBERT_STOP_TIMEOUT_S": "",
        }
    )
    assert settings == Settings(
        key="0123456789abcdef", models=("one", "two"), probe_timeout_s=2.5, probe_failures=7
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CASCADEBERT_PROBE_INTERVAL_S", "often"),
        ("CASCADEBERT_PROBE_TIMEOUT_S", "0"),
        ("CASCADEBERT_START_TIMEOUT_S", "inf"),
        ("CASCADEBERT_STOP_TIMEOUT_S", "-1"),
        ("CASCADEBERT_PROBE_FAILURES", "0"),
        ("CASCADEBERT_MAX_REQUEST_BYTES", "1.5"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(StartError, match=f"{name} is '{value}': give a "):
        settings_from_environment({name: value})


@pytest.mark.parametrize(
    "key", ["short", "with spaces in between", "comma,separated,words", "x" * 15]
)
def test_a_key_that_cannot_be_used_is_refused_and_not_quoted(key: str) -> None:
    with pytest.raises(StartError, match=f"a key of {len(key)} characters") as caught:
        settings_from_environment({"CASCADEBERT_KEY": key})
    assert key not in str(caught.value)


def test_a_key_file_that_is_not_there_or_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        settings_from_environment({"CASCADEBERT_KEY_FILE": str(tmp_path / "no")})
    with pytest.raises(StartError, match="both set"):
        settings_from_environment({"CASCADEBERT_KEY_FILE": "/x", "CASCADEBERT_KEY": "y" * 20})


# --- repository


def publish(repository: Path, name: str, stages: list[str], *, pair: object = False) -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    policy = {"pair": pair, "stages": [{"model": stage} for stage in stages]}
    (version / "policy.json").write_text(json.dumps(policy))
    for model in (name, *stages):
        (repository / model).mkdir(exist_ok=True)
        (repository / model / "config.pbtxt").write_text("")


def test_cascades_are_found_by_their_policy(tmp_path: Path) -> None:
    publish(tmp_path, "b", ["b_small", "b_large"])
    publish(tmp_path, "a", ["b_small"], pair=True)
    (tmp_path / "other" / "1").mkdir(parents=True)  # somebody else's model
    found = cascades_of_repository(tmp_path)
    assert found == [
        ServedCascade("a", ("b_small",), pair=True),
        ServedCascade("b", ("b_small", "b_large"), pair=False),
    ]
    assert cascades_of_repository(tmp_path, ["b"]) == found[1:]


def publish_version(repository: Path, name: str, version: int, stages: dict[str, int]) -> None:
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    pins = [{"model": model, "version": number} for model, number in stages.items()]
    (folder / "policy.json").write_text(
        json.dumps({"id": f"policy {version}", "pair": False, "stages": pins})
    )
    for model, number in stages.items():
        (repository / model / str(number)).mkdir(parents=True, exist_ok=True)
        (repository / model / "config.pbtxt").write_text("")


def choose(repository: Path, name: str, *versions: int) -> None:
    config = config_from_text((CASCADE / "config.pbtxt").read_text())
    config.parameters["operating_points"].string_value = '{"x":\n    versions: 7\n}'
    (repository / name / "configs").mkdir(exist_ok=True)
    (repository / name / "configs" / "published.pbtxt").write_text(
        config_to_text(set_versions(config, versions) if versions else config)
    )


def test_the_versions_that_were_chosen_last_are_served(tmp_path: Path) -> None:
    publish_version(tmp_path, "a", 9, {"a_small": 1, "a_large": 1})
    publish_version(tmp_path, "a", 10, {"a_small": 1, "a_huge": 2})
    newest = ServedCascade("a", ("a_small", "a_huge"), False, "policy 10", (10,))
    assert cascades_of_repository(tmp_path) == [newest], "10 comes after 9"
    choose(tmp_path, "a")  # of a release that left it to the server
    assert cascades_of_repository(tmp_path) == [newest]
    choose(tmp_path, "a", 9)
    old = ServedCascade("a", ("a_small", "a_large"), False, "policy 9", (9,))
    assert cascades_of_repository(tmp_path) == [old]
    choose(tmp_path, "a", 9, 10)
    (both,) = cascades_of_repository(tmp_path)
    assert both == replace(newest, versions=(9, 10), other_stages=("a_large",))
    command = command_of_server(SETTINGS, [both], frozenset())
    loads = [flag.partition("=")[2] for flag in command if flag.startswith("--load-model")]
    assert loads == ["a_small", "a_huge", "a_large", "a"]
    choose(tmp_path, "a", 3)  # not kept any more
    assert cascades_of_repository(tmp_path) == [newest]


def test_a_stage_version_that_is_missing_is_named(tmp_path: Path) -> None:
    publish_version(tmp_path, "a", 1, {"a_small": 1})
    publish_version(tmp_path, "a", 2, {"a_small": 2})
    (tmp_path / "a_small" / "2").rmdir()
    with pytest.raises(StartError, match=r"names version 2 of the stage 'a_small'.*publish the"):
        cascades_of_repository(tmp_path)
    choose(tmp_path, "a", 1)
    assert cascades_of_repository(tmp_path)[0].versions == (1,)


def test_nothing_to_serve_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="mount the model repository at"):
        cascades_of_repository(tmp_path / "no")
    with pytest.raises(StartError, match="holds no published cascade: run `cascadebert build"):
        cascades_of_repository(tmp_path)
    publish(tmp_path, "a", ["a_small"])
    with pytest.raises(StartError, match=r"'b', which .* does not have: it has a"):
        cascades_of_repository(tmp_path, ["a", "b"])


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "has no stages"),
        ('{"stages": [{"model": "../x"}]}', "a stage without a model"),
        ('{"stages": ["x"]}', "a stage without a model"),
        ('{"stages": [{"model": "gone"}]}', "names the stage 'gone', which is not in"),
    ],
)
def test_a_cascade_that_is_not_whole_is_refused(tmp_path: Path, policy: str, message: str) -> None:
    publish(tmp_path, "a", ["a_small"])
    (tmp_path / "a" / "1" / "policy.json").write_text(policy)
    with pytest.raises(StartError, match=f"{message}.*publish the cascade again"):
        cascades_of_repository(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder_is_named(tmp_path: Path) -> None:
    publish(tmp_path, "a", ["a_small"])
    (tmp_path / "a").chmod(0)
    with pytest.raises(StartError, match="cannot be read by user"):
        cascades_of_repository(tmp_path)


# --- flags

SETTINGS = Settings(key="k" * 20)


def test_stages_are_loaded_once_and_before_their_cascades() -> None:
    cascades = [TINY, ServedCascade("twin", ("tiny_small",), pair=False)]
    command = command_of_server(SETTINGS, cascades, frozenset())
    loads = [flag.partition("=")[2] for flag in command if flag.startswith("--load-model")]
    assert loads == ["tiny_small", "tiny_large", "tiny", "twin"]
    assert "--model-control-mode=explicit" in command


def test_protocols_are_restricted_and_model_config_is_not() -> None:
    command = command_of_server(SETTINGS, [TINY], frozenset())
    restricted = [flag for flag in command if "restricted" in flag]
    protocols = "model-repository,shared-memory,statistics,trace,logging"
    assert restricted == [
        f"--grpc-restricted-protocol={protocols}:cascadebert-key={SETTINGS.key}",
        f"--http-restricted-api={protocols}:cascadebert-key={SETTINGS.key}",
    ]


def test_flags_of_newer_servers_are_left_out_for_older_ones() -> None:
    def has_limit(known: frozenset[str]) -> bool:
        command = command_of_server(SETTINGS, [TINY], known)
        return "--http-max-input-size=16777216" in command

    assert has_limit(frozenset({"http-max-input-size"}))
    assert not has_limit(frozenset({"http-port"}))


def test_further_flags_come_last_and_may_not_undo_what_is_relied_on() -> None:
    known = frozenset({"log-verbose"})
    assert command_of_server(SETTINGS, [TINY], known, ["--log-verbose=1"])[-1] == (
        "--log-verbose=1"
    )
    for flag in ("--http-port=1", "--load-model", "--grpc-restricted-protocol=x", "-model-store=/"):
        with pytest.raises(StartError, match="is set by the container"):
            command_of_server(SETTINGS, [TINY], frozenset(), [flag])


def test_the_bundled_server_knows_every_flag(bundled: dict[str, str]) -> None:
    known = flags_of_server(bundled["binary"])
    for flag in command_of_server(SETTINGS, [TINY], known)[1:]:
        assert flag[2:].partition("=")[0] in known


def test_a_program_that_is_no_tritonserver_is_refused() -> None:
    for binary in ("/nowhere/tritonserver", "true"):
        with pytest.raises(StartError, match="build the image on NVIDIA's Triton image"):
            flags_of_server(binary)


# --- probe


class FakeTriton:
    """An HTTP server that answers the probe as a test wants, and counts rows of the last stage."""

    def __init__(self) -> None:
        self.status = 200
        self.body: object = {"outputs": [{"name": "LABEL", "data": ["positive"]}]}
        self.hangs = threading.Event()
        self.released = threading.Event()
        self.rows_per_look = 0
        self.rows = 5
        self.bodies: list[dict[str, object]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.rows += fake.rows_per_look
                text = (
                    "# TYPE cascadebert_exited_rows_total counter\n"
                    f'cascadebert_exited_rows_total{{model="tiny",stage="1"}} {fake.rows}\n'
                    'cascadebert_exited_rows_total{model="tiny",stage="0"} 70\n'
                    'cascadebert_exited_rows_total{model="tiny2",stage="1"} 900\n'
                )
                self.reply(200, text.encode())

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                fake.bodies.append(json.loads(self.rfile.read(length)))
                if fake.hangs.is_set():
                    fake.released.wait(30)
                self.reply(fake.status, json.dumps(fake.body).encode())

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        self.port = int(self.server.server_address[1])

    def probe(self, timeout_s: float = 30.0) -> Probe:
        return Probe(self.port, self.port, timeout_s)


@pytest.fixture
def fake() -> Iterator[FakeTriton]:
    fake = FakeTriton()
    thread = threading.Thread(target=fake.server.serve_forever)
    thread.start()
    yield fake
    fake.released.set()
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


def test_a_probe_sends_one_row_through_every_stage(fake: FakeTriton) -> None:
    result = fake.probe().classify(TINY)
    assert (result.ok, result.detail) == (True, "")
    (body,) = fake.bodies
    assert body["parameters"] == {"threshold": "1"}
    assert [value["name"] for value in body["inputs"]] == ["TEXT"]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownArgumentType, reportIndexIssue]
    fake.probe().classify(replace(TINY, pair=True))
    assert [value["name"] for value in fake.bodies[1]["inputs"]] == ["TEXT", "TEXT_PAIR"]  # pyright: ignore[reportGeneralTypeIssues, reportIndexIssue]


def test_an_error_fails_the_probe_with_the_server_s_reason(fake: FakeTriton) -> None:
    fake.rows_per_look = 10  # others are answered, which does not excuse an error
    fake.status, fake.body = 500, {"error": "Stub process 'tiny_0_0' is not healthy."}
    result = fake.probe().classify(TINY)
    assert not result.ok
    assert result.detail == "HTTP 500: Stub process 'tiny_0_0' is not healthy."


def test_an_answer_without_a_label_fails_the_probe(fake: FakeTriton) -> None:
    for fake.body in ({}, [], {"outputs": []}, {"outputs": [{"name": "LABEL", "data": []}]}):
        assert fake.probe().classify(TINY).detail == "an answer without a label"


def test_nobody_there_fails_the_probe() -> None:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        probe = Probe(unused.getsockname()[1], unused.getsockname()[1], 5.0)
        assert not probe.ready()
        assert "no answer" in probe.classify(TINY).detail


def test_silence_is_a_failure_only_while_nobody_else_is_answered(fake: FakeTriton) -> None:
    fake.hangs.set()
    hung = fake.probe(timeout_s=0.3).classify(TINY)
    assert (hung.ok, hung.detail) == (False, "no answer within 0.3 s")
    fake.rows_per_look = 1
    busy = fake.probe(timeout_s=0.3).classify(TINY)
    assert busy.ok
    assert busy.detail.startswith("busy: no answer within 0.3 s")


# A probe looks for others' answers as long as it may; the fake answers at once.
PATIENCE_S = 2.0


def test_being_turned_away_is_a_failure_only_while_nobody_else_is_answered(
    fake: FakeTriton,
) -> None:
    fake.status, fake.body = 503, {"error": "too many requests"}
    assert not fake.probe(PATIENCE_S).classify(TINY).ok
    fake.rows_per_look = 1
    assert fake.probe().classify(TINY).ok


def test_an_answer_without_the_last_stage_is_none_unless_that_stage_is_busy(
    fake: FakeTriton,
) -> None:
    degraded = {"name": "DEGRADED", "data": [True]}
    fake.body = {"outputs": [{"name": "LABEL", "data": ["x"]}, degraded]}
    result = fake.probe(PATIENCE_S).classify(TINY)
    assert not result.ok
    assert "without its last stage" in result.detail
    fake.rows_per_look = 1
    assert fake.probe().classify(TINY).ok
    degraded["data"] = [False]
    fake.rows_per_look = 0
    assert fake.probe().classify(TINY).ok


def test_who_is_turned_away_at_once_looks_for_longer(fake: FakeTriton) -> None:
    """Counts reach the endpoint a moment later, and large stages take their time for a call."""
    fake.status, fake.body = 503, {"error": "64 rows waiting"}

    def one_call_ends() -> None:
        fake.rows += 1

    timer = threading.Timer(0.15, one_call_ends)
    timer.start()
    assert fake.probe().classify(TINY).ok
    timer.join()


def test_rows_are_counted_by_model_and_stage() -> None:
    text = 'x_total{model="a",stage="0"} 9\n' + "".join(
        f'cascadebert_exited_rows_total{{model="{model}",stage="{stage}"}} {rows}\n'
        for model, stage, rows in (("a", 0, 1), ("a", 1, 2), ("aa", 1, 4))
    )
    assert rows_of_stage(text, "a", 1) == 2
    assert rows_of_stage(text, "b", 0) == 0


def test_only_failures_in_a_row_count() -> None:
    count = FailureCount(3)
    for ok in (False, False, True, False, False):
        count.add("a", ok=ok)
    assert count.broken == []
    assert count.add("b", ok=False) == 1
    assert count.add("a", ok=False) == 3
    assert count.broken == ["a"]


# --- the whole, with a child process

# A tritonserver that a test steers: `behaviour` is a Python statement that the server runs.
FAKE_SERVER = """\
#!{python}
import os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
if "--help" in sys.argv:
    print("  --model-repository <string>")
    sys.exit(1)
flags = dict(flag[2:].partition("=")[::2] for flag in sys.argv[1:])
broken = threading.Event()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(200, b"{{}}")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if broken.is_set():
            self.reply(500, b'{{"error": "broken"}}')
        else:
            self.reply(200, b'{{"outputs": [{{"name": "LABEL", "data": ["x"]}}]}}')
    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
def serve():
    HTTPServer(("127.0.0.1", int(flags["http-port"])), Handler).serve_forever()
signal.signal(signal.SIGTERM, lambda *args: os._exit(0))
{behaviour}
"""

RUNNER = """\
import os, sys
from pathlib import Path
from cascadebert_supervisor import log
from cascadebert_supervisor.errors import StartError
from cascadebert_supervisor.settings import Settings
from cascadebert_supervisor.supervisor import run
try:
    sys.exit(run(eval(sys.argv[1]), os.environ, sys.argv[2:]))
except StartError as exc:
    log.error(str(exc))
    sys.exit(2)
"""


class Supervised:
    """A supervisor in a process of its own, as in the container."""

    def __init__(self, settings: Settings, *extra: str, **environment: str) -> None:
        self.settings = settings
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, repr(settings).replace("PosixPath", "Path"), *extra],
            env={**os.environ, "PYTHONPATH": str(BUILD), **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def await_ready(self) -> None:
        deadline_s = time.monotonic() + 120
        while not served_cascades(self.settings.served_file):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    def end(self) -> int:
        return self.process.wait(120)

    def log(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


Supervise = Callable[..., Supervised]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Starts a supervisor over a fake server of the given behaviour; all of them end."""
    started: list[Supervised] = []

    def start(behaviour: str, *extra: str, **settings: object) -> Supervised:
        publish(tmp_path / "repository", "tiny", ["tiny_small", "tiny_large"])
        binary = tmp_path / "tritonserver"
        binary.write_text(FAKE_SERVER.format(python=sys.executable, behaviour=behaviour))
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
        started.append(Supervised(quick_settings(tmp_path, str(binary), **settings), *extra))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def quick_settings(folder: Path, binary: str, **settings: object) -> Settings:
    with socket.socket() as http, socket.socket() as grpc, socket.socket() as metrics:
        for listener in (http, grpc, metrics):
            listener.bind((HOST, 0))
        defaults = Settings(
            key="k" * 20,
            repository=folder / "repository",
            probe_interval_s=0.1,
            stop_timeout_s=20.0,
            binary=binary,
            preflight=("true",),
            served_file=folder / "served.json",
            address=HOST,
            http_port=http.getsockname()[1],
            grpc_port=grpc.getsockname()[1],
            metrics_port=metrics.getsockname()[1],
        )
    return replace(defaults, **settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_server_in_order(supervise: Supervise, number: signal.Signals) -> None:
    running = supervise("serve()")
    running.await_ready()
    running.process.send_signal(number)
    assert running.end() == 0
    assert f"stopping signal={number.name}" in running.log()
    assert not running.settings.served_file.exists()


def test_a_server_that_does_not_stop_is_killed(supervise: Supervise) -> None:
    running = supervise(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nserve()", stop_timeout_s=0.1
    )
    running.await_ready()
    running.process.terminate()
    assert running.end() == 137


def test_a_server_that_ends_by_itself_ends_the_container(supervise: Supervise) -> None:
    behaviour = "threading.Timer(1.5, lambda: os._exit({code})).start()\nserve()"
    for code, expected in ((3, 3), (0, 1)):
        running = supervise(behaviour.format(code=code))
        running.await_ready()
        assert running.end() == expected
        assert f"tritonserver ended by itself code={code}" in running.log()
        shutil.rmtree(running.settings.repository)


def test_a_server_that_ends_while_it_loads_is_told_apart(supervise: Supervise) -> None:
    running = supervise("os.kill(os.getpid(), signal.SIGSEGV)")
    assert running.end() == 139
    assert "tritonserver ended while it started" in running.log()


def test_failed_probes_in_a_row_end_the_container(supervise: Supervise) -> None:
    running = supervise("threading.Timer(1.5, broken.set).start()\nserve()")
    running.await_ready()
    assert running.end() == 1
    log = running.log()
    assert "probe failed cascade=tiny in_a_row=3" in log
    assert "in_a_row=4" not in log
    assert "reason=HTTP 500: broken" in log
    assert "tiny does not answer: the container ends" in log


def test_a_slow_start_is_waited_for_and_an_endless_one_is_not(supervise: Supervise) -> None:
    running = supervise("time.sleep(2)\nserve()")
    running.await_ready()
    assert "probe failed" not in finish(running)
    shutil.rmtree(running.settings.repository)
    endless = supervise("time.sleep(600)", start_timeout_s=0.5)
    assert endless.end() == 1
    assert "not ready after 0.5 s" in endless.log()


def finish(running: Supervised) -> str:
    running.process.terminate()
    assert running.end() == 0
    return running.log()


def test_the_preflight_is_asked_first_and_its_sentences_come_through(
    supervise: Supervise, tmp_path: Path
) -> None:
    check = tmp_path / "check"
    check.write_text('#!/bin/sh\necho "cascadebert_engine: $*" >&2\nexit 1\n')
    check.chmod(0o755)
    running = supervise("serve()", preflight=(str(check), "check"))
    assert running.end() == 2
    log = running.log()
    assert f"ERROR check {tmp_path / 'repository'} --model tiny --versions tiny=1\n" in log
    assert "tritonserver starts" not in log


def test_a_signal_during_the_checks_is_not_lost(supervise: Supervise, tmp_path: Path) -> None:
    asked, go_on = tmp_path / "asked", tmp_path / "go-on"
    check = f"touch {asked}; while [ ! -e {go_on} ]; do sleep 0.05; done"
    running = supervise("serve()", preflight=("sh", "-c", check))
    while not asked.exists():
        assert running.process.poll() is None
        time.sleep(0.05)
    running.process.terminate()
    go_on.touch()
    assert running.end() == 0
    assert "tritonserver starts" not in running.log()


@pytest.mark.parametrize(
    ("preflight", "message"),
    [(("/nowhere/check",), "does not run"), (("sh", "-c", "exit 3"), "ended with code 3")],
)
def test_a_preflight_that_breaks_stops_the_start(
    supervise: Supervise, preflight: tuple[str, ...], message: str
) -> None:
    running = supervise("serve()", preflight=preflight)
    assert running.end() == 2
    assert message in running.log()


def test_orphans_are_collected_as_process_1_must(tmp_path: Path) -> None:
    """As a subreaper, the supervisor inherits orphans as process 1 of a container does."""
    script = """\
        import ctypes, os, signal, sys, time
        from cascadebert_supervisor.process import SIGNALS, ServerProcess
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        # Two orphans, and then the server itself ends.
        script = "(sleep 0.1 & sleep 0.2 &) ; sleep 1; exit 7"
        server = ServerProcess(["sh", "-c", script], os.environ)
        while server.reap() is None:
            time.sleep(0.05)
        children = open(f"/proc/self/task/{os.getpid()}/children").read()
        print(server.exit_code, repr(children))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(BUILD)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout == "7 ''\n", ended.stderr


# --- the whole, with the real tritonserver


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The bundled server laid out as in NVIDIA's image: binary, backends, library path."""
    installation = find_installation()
    backend = tmp_path_factory.mktemp("backends") / "python"
    shutil.copytree(installation.backend, backend)
    shutil.copy2(installation.stub, backend / installation.stub.name)
    for program in (backend / installation.stub.name, installation.binary):
        program.chmod(program.stat().st_mode | 0o111)
    with pytest.MonkeyPatch.context() as patch:
        libraries = os.pathsep.join(map(str, installation.libraries))
        patch.setenv("LD_LIBRARY_PATH", libraries)
        yield {
            "binary": str(installation.binary),
            "backends": str(backend.parent),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }


@pytest.fixture
def real(built: Built, bundled: dict[str, str], tmp_path: Path) -> Iterator[Supervised]:
    """The cascade `built` in the real tritonserver, ready."""
    settings = quick_settings(tmp_path, bundled["binary"], repository=built.repository)
    backends = f"--backend-directory={bundled['backends']}"
    running = Supervised(settings, backends, PATH=bundled["PATH"])
    running.await_ready()
    yield running
    running.process.terminate()
    running.end()


def test_the_real_server_answers_the_probe_and_stops_on_request(
    real: Supervised, built: Built
) -> None:
    settings = real.settings
    (cascade,) = served_cascades(settings.served_file)
    assert cascade.stages == tuple(stage.model for stage in built.policy.stages)
    probe = Probe(settings.http_port, settings.metrics_port, 30.0)
    before = last_stage(settings, cascade)
    assert probe.classify(cascade).ok
    deadline_s = time.monotonic() + 10  # counts reach the endpoint a moment later
    while last_stage(settings, cascade) <= before:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    real.process.terminate()
    assert real.end() == 0


def last_stage(settings: Settings, cascade: ServedCascade) -> float:
    url = f"http://{HOST}:{settings.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=30) as response:
        return rows_of_stage(response.read().decode(), cascade.name, len(cascade.stages) - 1)


def test_a_dead_bls_process_of_the_real_server_ends_the_container(
    real: Supervised, built: Built
) -> None:
    # Other tests serve the same repository: only the processes of this server count.
    (stub,) = [
        pid
        for pid in descendants(real.process.pid)
        if f"{built.repository}/{built.name}/1/model.py" in command_line(Path("/proc", str(pid)))
    ]
    os.kill(stub, signal.SIGKILL)
    assert real.end() == 1
    assert f"{built.name} does not answer" in real.log()


def descendants(pid: int) -> list[int]:
    """All processes below one, by the children that the kernel lists."""
    children: list[int] = []
    for path in Path("/proc", str(pid), "task").glob("*/children"):
        children += [int(child) for child in path.read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def command_line(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:  # it has ended meanwhile
        return ""


def test_a_flag_that_the_server_does_not_have_is_named() -> None:
    known = frozenset({"log-verbose"})
    assert command_of_server(SETTINGS, [TINY], known, ["--log-verbose", "1"])[-2:] == [
        "--log-verbose", "1",
    ]  # fmt: skip
    with pytest.raises(StartError, match="tritonserver has no flag --nonsense"):
        command_of_server(SETTINGS, [TINY], known, ["--nonsense=1"])


def test_version_compatible_plans_are_announced_to_their_backend(tmp_path: Path) -> None:
    settings = replace(SETTINGS, repository=tmp_path)
    flag = "--backend-config=tensorrt,version-compatible=true"
    assert flag not in command_of_server(settings, [TINY], frozenset())
    manifest = tmp_path / "tiny_large" / "1" / "engine.json"
    manifest.parent.mkdir(parents=True)
    for compatible in (False, True):
        manifest.write_text(json.dumps({"options": {"version_compatible": compatible}}))
        assert (flag in command_of_server(settings, [TINY], frozenset())) == compatible
