"""`serve` at the edges: odd paths, stubs that die early, a kill, proxies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cascadebert_build.errors import CheckFailed
from cascadebert_build.server.installation import Installation
from cascadebert_build.server.temporary import parents
from cascadebert_client import CascadeClient
from cascadebert_supervisor.leftovers import FOLDER_PREFIX, processes_of
from cascadebert_supervisor.stubs import regions_of
from tests.support.checkpoints import TEXTS
from tests.support.serving import Built, serving
from tests.support.waiting import wait_until

CLI = [sys.executable, "-m", "cascadebert_build.cli"]
PORTS = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]


def folders() -> set[Path]:
    return {folder for parent in parents() for folder in parent.glob(f"{FOLDER_PREFIX}*")}


def test_a_killed_serve_of_a_path_with_a_space_behind_a_proxy(built: Built, tmp_path: Path) -> None:
    """Three edges in one start of a server, which costs seconds."""
    repository = tmp_path / "my models (new)"
    shutil.copytree(built.repository, repository)
    before = folders()
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:1")
    environment = {**os.environ, **proxy, "no_proxy": "", "NO_PROXY": ""}
    serve = subprocess.Popen(
        [*CLI, "serve", "--model-repository", str(repository), *PORTS, "--json"],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert serve.stdout is not None
    try:
        url = json.loads(serve.stdout.readline())["grpc"]
        with CascadeClient(url, built.name) as client:
            assert client.classify(TEXTS[0], timeout_s=30).label in built.policy.labels
        (folder,) = folders() - before
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
