"""`publish`, `load` and `serve --versions` on the command line, against the real server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_build.repository.publish import publish_cascade
from cascadebert_build.server.model_control import ModelControlClient
from cascadebert_build.server.rollout import load_cascade
from cascadebert_build.server.serve import serve_cascades
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient
from tests.support.checkpoints import TEXTS
from tests.support.serving import FREE_PORTS, Built, stage_files

CLI = [sys.executable, "-m", "cascadebert_build.cli"]
HEADERS = {"triton-grpc-protocol-cascadebert-key": "0123456789abcdef"}
KEY = "triton-grpc-protocol-cascadebert-key=0123456789abcdef"
RESTRICTED = (
    "--grpc-restricted-protocol=model-repository,statistics:cascadebert-key=0123456789abcdef",
)


@dataclass
class Repository:
    """A copy of the built cascade, published a second and a third time."""

    path: Path
    built: Built

    def publish(self, threshold: float, *, with_other_large: bool = False) -> None:
        steps = self.built.steps
        policy = self.built.policy.with_thresholds((threshold,))
        stages = stage_files(steps, policy)
        if with_other_large:
            onnx = self.path.parent / "model.onnx"
            # An unknown field of the file's protobuf, which changes nothing but its hash.
            onnx.write_bytes(stages[1].artefact.read_bytes() + bytes([0xBA, 0x3E, 1, 0]))
            stages[1] = replace(stages[1], artefact=onnx)
        publish_cascade(self.path, "tiny", policy, stages, steps.config.runtime)

    def policy(self, version: int) -> str:
        return ModelRepository.read(self.path).cascade("tiny").policy(version).id


@pytest.fixture
def repository(built: Built, tmp_path: Path) -> Repository:
    path = tmp_path / "repository"
    shutil.copytree(built.repository, path)
    return Repository(path, built)


@contextmanager
def restricted_server(repository: Repository) -> Generator[TritonServer, None, None]:
    """A server of the first of three versions that loads only for callers with the key."""
    with TritonServer(repository.path, ports=FREE_PORTS, options=RESTRICTED) as server:
        with ModelControlClient(server.url, HEADERS) as running:
            load_cascade(repository.path, "tiny", running)
        repository.publish(0.97)
        repository.publish(1.0)
        yield server


@pytest.fixture
def restricted(repository: Repository) -> Iterator[TritonServer]:
    """A server whose repository the test may damage."""
    with restricted_server(repository) as server:
        yield server


@pytest.fixture(scope="module")
def shared_server(
    built: Built, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Repository, TritonServer]]:
    path = tmp_path_factory.mktemp("shared") / "repository"
    shutil.copytree(built.repository, path)
    repository = Repository(path, built)
    with restricted_server(repository) as server:
        yield repository, server


@pytest.fixture
def shared(shared_server: tuple[Repository, TritonServer]) -> tuple[Repository, TritonServer]:
    """A repository with three versions and its server, which serves the first one."""
    repository, server = shared_server
    with ModelControlClient(server.url, HEADERS) as running:
        load_cascade(repository.path, "tiny", running, versions=(1,))
    return shared_server


def load(
    repository: Repository, server: TritonServer, *arguments: str, key: bool = True
) -> subprocess.CompletedProcess[str]:
    command = [*CLI, "load", "tiny", "--url", server.url]
    command += ["--model-repository", str(repository.path), *(["--header", KEY] if key else [])]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def policies(url: str, version: int | None = None) -> set[str]:
    with CascadeClient(url, "tiny", version) as client:
        return {answer.policy for answer in client.classify(TEXTS[:20], timeout_s=60)}


def test_versions_are_loaded_and_the_next_start_serves_them(
    repository: Repository, restricted: TritonServer
) -> None:
    url = restricted.url
    assert policies(url) == {repository.policy(1)}
    loaded = load(repository, restricted, "--json")
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout) == {
        "name": "tiny",
        "policies": {"3": repository.policy(3)},
        "stages": {"tiny_small": [1], "tiny_large": [1]},
        "servers": {url: [3]},
    }
    assert policies(url) == {repository.policy(3)}
    back = load(repository, restricted, "--versions", "1,2")
    assert back.returncode == 0, back.stderr
    assert back.stdout == (
        f"tiny serves version 1 (policy {repository.policy(1)[:12]}), "
        f"version 2 (policy {repository.policy(2)[:12]})\n"
    )
    assert policies(url) == {repository.policy(2)}, "a call without a version gets the larger"
    assert policies(url, 1) == {repository.policy(1)}
    with CascadeClient(url, "tiny", 1, traffic={2: 0.5}, traffic_by="text") as client:
        answers = client.classify(TEXTS, timeout_s=60)
    assert {a.policy for a in answers} == {repository.policy(1), repository.policy(2)}
    assert load(repository, restricted, "--versions", "1").returncode == 0
    assert policies(url) == {repository.policy(1)}
    restricted.stop()
    assert ModelRepository.read(repository.path).cascade("tiny").served == (1,)
    with serve_cascades(repository.path, ports=FREE_PORTS) as again:
        assert policies(again.url) == {repository.policy(1)}


def test_a_load_without_the_key_is_refused_with_the_remedy(
    shared: tuple[Repository, TritonServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, restricted = shared
    refused = load(repository, restricted, key=False)
    assert refused.returncode == 1
    assert "restricted" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert policies(restricted.url) == {repository.policy(1)}
    monkeypatch.setenv("CASCADEBERT_KEY", "0123456789abcdef")
    assert load(repository, restricted, key=False).returncode == 0
    assert policies(restricted.url) == {repository.policy(3)}


def test_wrong_use_of_load_is_told_in_one_sentence(
    shared: tuple[Repository, TritonServer],
) -> None:
    repository, restricted = shared
    for arguments, code, message in (
        (["--versions", "9"], 2, "has no version 9: published and kept are 1, 2, 3"),
        (["--versions", "new"], 2, "--versions 'new': give a version"),
        (["--instances", "tiny_huge=2"], 2, "the stages are tiny_large, tiny_small"),
        (["--timeout-s", "0"], 2, "--timeout-s is 0.0"),
        (["--header", "x"], 2, "--header 'x' is not NAME=VALUE"),
        (["--url", "127.0.0.1:1"], 1, "127.0.0.1:1"),
    ):
        ended = load(repository, restricted, *arguments)
        assert (ended.returncode, message in ended.stderr) == (code, True), ended.stderr
        assert "Traceback" not in ended.stderr
    nothing = subprocess.run(
        [*CLI, "load", "nothing", "--model-repository", str(repository.path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert nothing.returncode == 2
    assert "no published cascade 'nothing': it has tiny" in nothing.stderr
    assert policies(restricted.url) == {repository.policy(1)}


def test_what_was_deleted_while_it_served(repository: Repository, restricted: TritonServer) -> None:
    first = repository.policy(1)
    shutil.rmtree(repository.path / "tiny" / "1")
    # The stages of a version that only the server knows are there still: nothing can be lost.
    assert load(repository, restricted).returncode == 0
    assert policies(restricted.url) == {repository.policy(3)} != {first}
    repository.publish(0.9, with_other_large=True)
    (repository.path / "tiny_large" / "1").rename(repository.path / "away")
    ended = load(repository, restricted)
    assert ended.returncode == 1
    assert "runs version 1 of tiny_large, which is not in" in ended.stderr
    assert "Restart the server" in ended.stderr
    assert policies(restricted.url) == {repository.policy(3)}
    (repository.path / "away").rename(repository.path / "tiny_large" / "1")
    assert load(repository, restricted).returncode == 0
    shutil.rmtree(repository.path / "tiny_large" / "1")
    back = load(repository, restricted, "--versions", "3")
    assert back.returncode == 2
    assert "tiny_large has no version 1, which a policy names" in back.stderr
    assert policies(restricted.url) == {repository.policy(4)}


def test_a_repository_that_is_not_the_servers_is_noticed(
    shared: tuple[Repository, TritonServer], tmp_path: Path
) -> None:
    repository, restricted = shared
    elsewhere = replace(repository, path=tmp_path / "elsewhere")
    shutil.copytree(repository.path, elsewhere.path)
    elsewhere.publish(0.5)
    ended = load(elsewhere, restricted)
    assert ended.returncode == 1
    assert "its model repository must be the one" in ended.stderr
    assert policies(restricted.url) == {repository.policy(1)}


def test_the_configuration_is_the_one_that_serve_gives(
    shared: tuple[Repository, TritonServer],
) -> None:
    repository, restricted = shared
    with ModelControlClient(restricted.url, HEADERS) as running:
        before = {model: running.config(model) for model in ("tiny_small", "tiny_large")}
        assert load(repository, restricted, "--instances", "tiny_large=2").returncode == 0
        after = {model: running.config(model) for model in (*before, "tiny")}
    assert after["tiny_small"].instance_group[0].count == (
        before["tiny_small"].instance_group[0].count
    )
    for model in before:
        threads = after[model].parameters["threads"].string_value
        assert threads == before[model].parameters["threads"].string_value
    assert after["tiny_large"].instance_group[0].count == 2
    cascade = after["tiny"].parameters
    assert cascade["calls_in_flight"].string_value == "2"
    assert cascade["policy"].string_value == repository.policy(3)
    assert json.loads(cascade["operating_points"].string_value)["default"]["thresholds"] == [1.0]


def test_serve_serves_the_newest_unless_told_otherwise(repository: Repository) -> None:
    repository.publish(0.97)
    with serve_cascades(repository.path, ports=FREE_PORTS) as server:
        assert policies(server.url) == {repository.policy(2)}
    command = [*CLI, "serve", "--model-repository", str(repository.path), "--json"]
    for kind in ("http", "grpc", "metrics"):
        command += [f"--{kind}-port", "0"]
    with subprocess.Popen(
        [*command, "--versions", "tiny=1,2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["grpc"]
            assert policies(url, 1) == {repository.policy(1)}
            assert policies(url) == {repository.policy(2)}
        finally:
            server.terminate()
        assert server.wait(60) == 0
    # What a command line asked for once is not remembered.
    assert ModelRepository.read(repository.path).cascade("tiny").served == (2,)
