"""`serve` at the edges: odd paths, stubs that die early, a kill, proxies."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cascadebert_build.cli import main
from cascadebert_build.errors import CheckFailed
from cascadebert_build.server.installation import Installation
from cascadebert_build.server.model_control import ModelControlClient
from cascadebert_build.server.rollout import load_cascade
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.serve_parameters import LogSettings
from cascadebert_client import CascadeClient, InvalidRequest
from cascadebert_core.contract import METRICS_PORT
from cascadebert_supervisor.leftovers import FOLDER_PREFIX, processes_of
from cascadebert_supervisor.stubs import regions_of
from tests.support.checkpoints import TEXTS
from tests.support.serving import FREE_PORTS, Built, serving
from tests.support.waiting import wait_until

CLI = [sys.executable, "-m", "cascadebert_build.cli"]
PORTS = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]


def test_a_killed_serve_of_a_path_with_a_space_behind_a_proxy(built: Built, tmp_path: Path) -> None:
    """Three edges in one start of a server, which costs seconds."""
    repository = tmp_path / "my models (new)"
    shutil.copytree(built.repository, repository)
    temporary = tmp_path / "tmp"  # of this server alone: other tests run beside this one
    temporary.mkdir()
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:1")
    environment = {**os.environ, **proxy, "no_proxy": "", "NO_PROXY": "", "TMPDIR": str(temporary)}
    serve = subprocess.Popen(
        [*CLI, "serve", "--model-repository", str(repository), *PORTS, "--json"],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert serve.stdout is not None
    try:
        url = json.loads(serve.stdout.readline())["grpc"]
        with CascadeClient(url, built.name) as client:
            assert client.classify(TEXTS[0], timeout_s=30).label in built.policy.labels
        (folder,) = temporary.glob(f"{FOLDER_PREFIX}*")
        processes = processes_of(folder)
        assert len(processes) >= 4, "tritonserver and three stubs"
        regions = set[Path]().union(*map(regions_of, processes))
        assert regions
        serve.kill()
        serve.wait()
        wait_until(lambda: not processes_of(folder), "the end of the processes")
        wait_until(lambda: not folder.exists(), "the removal of the folder")
        assert not [region for region in regions if region.exists()]
    finally:
        serve.kill()
        serve.wait()
        serve.stdout.close()


def test_a_stub_that_dies_while_a_model_loads_is_noticed(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server notices a dead stub once the two have spoken. One that dies before, as it did of a
    # path with a space, it awaits for ten minutes.
    def copy_backends(self: Installation, folder: Path) -> None:
        original(self, folder)
        stub = folder / "python" / self.stub.name
        stub.write_text("#!/bin/sh\nexit 7\n")

    original = Installation.copy_backends
    monkeypatch.setattr(Installation, "copy_backends", copy_backends)
    with (
        pytest.raises(CheckFailed, match=r"a stub of tiny_\w+ ended with code 7 while it loaded"),
        serving(built.repository),
    ):
        pass


def test_a_stage_that_is_asked_for_by_name(
    served: str, built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        CascadeClient(served, f"{built.name}_small") as client,
        pytest.raises(InvalidRequest, match=rf"not a cascade: .* stage of '{built.name}'"),
    ):
        client.classify(TEXTS[0], timeout_s=30)
    assert main(["classify", TEXTS[0], "--url", served, "--model", f"{built.name}_small"]) == 2


def test_a_cascade_of_single_texts_that_gets_a_pair(served: str, built: Built) -> None:
    with (
        CascadeClient(served, built.name) as client,
        pytest.raises(InvalidRequest) as caught,
    ):
        client.classify((TEXTS[0], TEXTS[1]), timeout_s=30)
    assert "not a cascade" not in str(caught.value)


def test_load_on_a_server_that_is_not_there(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{probe.getsockname()[1]}"
    repository = str(built.repository)
    assert main(["load", built.name, "--url", url, "--model-repository", repository]) == 1
    said = capsys.readouterr().err
    assert f"the server at {url} cannot be reached" in said
    assert "''" not in said


def test_serve_says_what_is_logged_and_audit_finds_the_metrics(
    built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_path = tmp_path / "server.log"
    log = LogSettings("all", with_text=True)
    with serve_cascades(built.repository, ports=FREE_PORTS, log_path=log_path, log=log) as server:
        with CascadeClient(server.url, built.name) as client:
            client.classify("zebra crossing", timeout_s=30)
            parameters = client.model_parameters()
        assert parameters[METRICS_PORT] == str(server.ports.metrics)

        def texts() -> list[object]:
            lines = log_path.read_text().splitlines()
            return [json.loads(line)["texts"] for line in lines if line.startswith("{")]

        wait_until(lambda: ["zebra crossing"] in texts())
        # The server has no audits: the page was found, and says so.
        assert main(["audit", "--url", server.url, "--model", built.name]) == 2
        assert "has no audits" in capsys.readouterr().err
        with ModelControlClient(server.url) as control:
            load_cascade(built.repository, built.name, control)
        with CascadeClient(server.url, built.name) as client:
            assert client.model_parameters() == parameters
