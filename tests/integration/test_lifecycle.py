"""Starting, stopping and dying: clear errors, exit codes, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import cascadebert_client as client
from cascadebert_build.cli import main
from cascadebert_build.errors import CheckFailed, UsageError
from cascadebert_build.server.ports import HOST, Ports
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient
from cascadebert_core.policy import policy_to_json
from tests.support.checkpoints import TEXTS
from tests.support.serving import FREE_PORTS, Built, publish_as, serving
from tests.support.sizes import sized
from tests.support.stopping import answers_of_requests_in_flight, with_faulty_stage
from tests.support.waiting import wait_until

CLI = [sys.executable, "-m", "cascadebert_build.cli"]


def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *arguments], capture_output=True, text=True, check=False, timeout=120, input=stdin
    )


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def descendants(pid: int) -> list[int]:
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return [int(child) for child in children] + [
        grandchild for child in children for grandchild in descendants(int(child))
    ]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_its_addresses_answers_and_stops_cleanly(
    built: Built, how: signal.Signals
) -> None:
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    server = subprocess.Popen(
        [*CLI, "serve", "--model-repository", str(built.repository), *ports, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        addresses = json.loads(server.stdout.readline())
        children = descendants(server.pid)
        assert len(children) >= 4, "tritonserver and three stubs"
        answered = run(
            "classify", TEXTS[0], "--url", addresses["grpc"], "--model", "tiny", "--json"
        )
        assert answered.returncode == 0, answered.stderr
        assert json.loads(answered.stdout)["label"] in built.policy.labels
        status = run("status", "--url", addresses["grpc"], "--model", "tiny")
        assert status.returncode == 0, status.stderr
        stage = run("status", "--url", addresses["grpc"], "--model", "tiny_small")
        assert stage.returncode == 1
        assert re.search("has no input TEXT.* stage of 'tiny'", stage.stdout)
        server.send_signal(how)
        assert server.wait(40) == 0
        assert not [pid for pid in children if alive(pid)]
    finally:
        server.kill()
        server.wait()


def test_a_taken_port_is_named_with_its_flag(built: Built) -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with (
            pytest.raises(UsageError, match=rf"port {port} \(grpc\).*--grpc-port"),
            serve_cascades(built.repository, ports=Ports(0, port, 0)),
        ):
            pass


@dataclass(frozen=True)
class Pair:
    """A server of the cascades `tiny` and `careful`, of which the latter always defers."""

    server: TritonServer
    port: int
    log: Path


@pytest.fixture(scope="module")
def pair(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    repository, log = copy_of(built, folder / "repository"), folder / "server.log"
    publish_as(built.steps, repository, "careful", built.policy.with_thresholds((1.0,)))
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    with serve_cascades(repository, ports=Ports(0, port, 0), log_path=log) as server:
        yield Pair(server, port, log)


def test_given_ports_are_used(pair: Pair) -> None:
    assert pair.server.url == f"{HOST}:{pair.port}"
    with CascadeClient(pair.server.url, "tiny") as asking:
        assert asking.status().ready


def copy_of(built: Built, folder: Path) -> Path:
    subprocess.run(["cp", "-r", str(built.repository), str(folder)], check=True)
    return folder


def test_a_policy_that_cannot_be_served_fails_the_load(built: Built, tmp_path: Path) -> None:
    repository = copy_of(built, tmp_path / "repository")
    (repository / "tiny_large").rename(repository / "tiny_huge")
    with pytest.raises(UsageError, match="tiny_large"), serving(repository):
        pass
    # Without that look beforehand, the cascade itself refuses to load.
    with TritonServer(repository, ports=FREE_PORTS) as server:
        with pytest.raises(CheckFailed, match="names the stage 'tiny_large'"):
            server.load("tiny")
        path = repository / "tiny" / "1" / "policy.json"
        path.write_text(
            policy_to_json(built.policy).replace('"schema_version": 5', '"schema_version": 99')
        )
        with pytest.raises(
            CheckFailed, match="schema_version is 99 and this reader knows 5, 6, 7, 8"
        ):
            server.load("tiny")


def test_a_damaged_stage_fails_with_its_name_and_the_log(built: Built, tmp_path: Path) -> None:
    repository = copy_of(built, tmp_path / "repository")
    (repository / "tiny_large" / "1" / "model.onnx").write_bytes(b"junk")
    with (
        pytest.raises(CheckFailed, match="tiny_large does not load") as caught,
        serving(repository),
    ):
        pass
    assert "the whole log: " in str(caught.value)
    log = Path(str(caught.value).rpartition("the whole log: ")[2])
    assert "tiny_large" in log.read_text()


def test_a_server_that_is_down_or_has_no_such_model(served: str) -> None:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        nobody = f"{HOST}:{probe.getsockname()[1]}"
    down = run("classify", "x", "--url", nobody, "--timeout-s", "2")
    assert down.returncode == 1
    assert nobody in down.stderr
    assert run("status", "--url", nobody).returncode == 1
    unknown = run("classify", "x", "--url", served, "--model", "nothing")
    assert unknown.returncode == 2
    assert "nothing" in unknown.stderr
    for failed in (down, unknown):
        assert "Traceback" not in failed.stderr


def test_wrong_use_of_the_command_line_ends_with_2(
    served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ["--url", served, "--model", "tiny"]
    (tmp_path / "rows.csv").write_text("text\nx\n")
    (tmp_path / "bytes.csv").write_bytes(b"text\nok\n\xff\n")
    for arguments in (
        ["classify", "", *here],
        ["classify", "x", *here, "--threshold", "2"],
        ["classify", "x", *here, "--threshold", "nan"],
        ["classify", "x", *here, "--stage", "7"],
        ["classify", "x", *here, "--operating-point", "none"],
        ["classify", "--file", str(tmp_path / "no.tsv"), *here],
        ["classify", "--file", str(tmp_path / "rows.csv"), "--text", "body", *here],
        ["classify", "--file", str(tmp_path / "bytes.csv"), *here],
        ["build", str(tmp_path / "no.toml")],
        ["serve", "--model-repository", str(tmp_path)],
        ["serve", "--instances", "many"],
    ):
        assert exit_code_of(arguments) == 2, arguments
        assert capsys.readouterr().err.strip(), arguments


def exit_code_of(arguments: list[str]) -> object:
    """The exit code of a command that runs in this process."""
    try:
        return main(arguments)
    except SystemExit as exc:  # argparse's own way
        return exc.code


def test_a_server_that_dies_half_way_fails_the_calls_in_flight(built: Built) -> None:
    errors: list[BaseException] = []
    answered = [0] * 4
    with serving(built.repository) as server, CascadeClient(server.url, "tiny") as asking:
        asking.classify("before")

        def ask(caller: int) -> None:
            try:
                for _ in range(100_000):
                    asking.classify(TEXTS[:20], timeout_s=3)
                    answered[caller] += 1
            except client.CascadeClientError as exc:
                errors.append(exc)

        threads = [threading.Thread(target=ask, args=(caller,)) for caller in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(answered), "an answer to every thread")
        assert server.pid is not None
        os.killpg(server.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    assert len(errors) == 4
    assert all(
        isinstance(error, (client.ServerUnavailable, client.DeadlineExceeded)) for error in errors
    ), errors


def test_stopping_under_load_answers_what_was_accepted(built: Built) -> None:
    """Unload while deferred rows are in flight: each call ends, with an answer or UNAVAILABLE."""
    outcomes: list[str] = []
    with serving(built.repository) as server, CascadeClient(server.url, "tiny") as asking:

        def ask() -> None:
            for _ in range(1000):
                try:
                    asking.classify(TEXTS[:10], threshold=1.0, timeout_s=5)
                    outcomes.append("answered")
                except client.CascadeClientError as exc:
                    outcomes.append(type(exc).__name__)
                    return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(outcomes) >= 20, "answers to all threads")
        server.stop()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert "answered" in outcomes
    assert set(outcomes) <= {
        "answered",
        "ServerUnavailable",
        "DeadlineExceeded",
        "RequestCancelled",
    }


def test_two_cascades_share_a_server(pair: Pair) -> None:
    with (
        CascadeClient(pair.server.url, "tiny") as tiny,
        CascadeClient(pair.server.url, "careful") as other,
    ):
        assert {answer.exit_stage for answer in tiny.classify(TEXTS)} == {0, 1}
        assert {answer.exit_stage for answer in other.classify(TEXTS)} == {1}


def test_the_text_of_requests_is_never_logged(pair: Pair) -> None:
    with CascadeClient(pair.server.url, "tiny") as asking:
        asking.classify("zebra crossing")
        with pytest.raises(client.InvalidRequest):
            asking.classify("zebra crossing", operating_point="nope")
    # The failed request is logged, and so is everything before it.
    wait_until(lambda: "request_failed" in pair.log.read_text())
    assert "zebra" not in pair.log.read_text()


@pytest.mark.parametrize("instances", [1, 2])
def test_the_server_survives_stages_that_run_at_the_same_time(built: Built, instances: int) -> None:
    """Threads of the BLS model share its memory with the server; a race there kills the server.

    Before metrics were called by one thread at a time, this ended with signal 11 in seconds.
    """
    with (
        serve_cascades(built.repository, ports=FREE_PORTS, instances={"": instances}) as server,
        CascadeClient(server.url, "tiny", channels=4) as asking,
    ):
        texts = [TEXTS[i % len(TEXTS)] for i in range(sized(2000, 6000))]
        stream = asking.classify_stream(texts, rows_per_request=1, max_concurrency=16, timeout_s=30)
        assert sum(answer.exit_stage for answer in stream) > len(texts) // 6
        assert asking.status().ready


def test_serve_that_stops_answers_the_requests_that_it_has(built: Built, tmp_path: Path) -> None:
    last = built.policy.stages[-1].model
    repository, hanging = with_faulty_stage(built.repository, last, tmp_path)
    with ExitStack() as stack:
        server = stack.enter_context(serving(repository))
        answers = answers_of_requests_in_flight(server.url, built.name, hanging, stack.close)
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
