"""The examples of README.md and docs/ are run as they are written.

Each document has a folder with the files that the examples name. Its examples run there from top to
bottom, and find one server with the cascade that they call. Only the ports of a server on this
machine are changed in them. What cannot run here stands in tests/support/documents.toml with the
reason.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cascadebert_build.cli import main
from cascadebert_build.server.ports import Ports
from cascadebert_client import CascadeClient
from tests.support.checkpoints import TEXTS, save_checkpoint
from tests.support.documents import Example, documents, examples_of, not_run
from tests.support.exports import export_config
from tests.support.serving import serving

_RUNNABLE = {
    file: [
        each
        for each in examples_of(file)
        if each.language != "toml" and each.key not in not_run()  # unit tests read TOML
    ]
    for file in documents()
}
_COMMAND_TIMEOUT_S = 240
# The hosts of the documents that stand for this machine.
_ADDRESS = re.compile(r"\b(?:localhost|127\.0\.0\.1|triton(?:-\d)?):(8000|8001|8002)\b")
_READY = re.compile(r"http \S+:(\d+), grpc \S+:(\d+)(?: \(TLS\))?, metrics http://\S+:(\d+)/")

_CONFIG = """\
name = "sst2"
[[members]]
name = "small"
checkpoint = "./checkpoints/sst2-small"
max_length = 32
[[members]]
name = "large"
checkpoint = "./checkpoints/sst2-large"
max_length = 32
[data]
path = "glue/SST-2/dev.tsv"
text = "sentence"
[runtime]
audit_rate = 1.0
[operating_points.balanced]
max_disagreement = 0.5
"""


class Reader:
    """Runs the examples of one document in a folder."""

    def __init__(self, folder: Path, ports: Ports) -> None:
        self._folder = folder
        self._ports = ports
        self._servers: list[subprocess.Popen[str]] = []
        # What Python examples use and do not define.
        self._names: dict[str, Any] = {
            "text": TEXTS[0],
            "texts": TEXTS[:20],
            "frame": {"sentence": TEXTS[:20]},
            "client": CascadeClient(f"127.0.0.1:{ports.grpc}", "sst2"),
        }

    def follow(self, example: Example) -> None:
        """Run one example; a failure names its place."""
        text = self._here(example.text)
        if example.language == "python":
            self._run_python(example, text)
        elif example.key.startswith("cascadebert serve"):
            self._serve(text)
        else:
            self._run_shell(example, text)

    def close(self) -> None:
        """End what the examples started."""
        self._names["client"].close()
        for server in self._servers:
            server.send_signal(signal.SIGINT)
        for server in self._servers:
            server.wait(timeout=60)
            assert server.stdout is not None
            server.stdout.close()

    def _here(self, text: str) -> str:
        """The example with the ports of this server."""
        ports = {"8000": self._ports.http, "8001": self._ports.grpc, "8002": self._ports.metrics}
        return _ADDRESS.sub(lambda match: f"localhost:{ports[match[1]]}", text)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self._folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "CASCADEBERT_URL": f"localhost:{self._ports.grpc}",
        }

    def _run_shell(self, example: Example, text: str) -> None:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text], cwd=self._folder, check=False,
            env=self._environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=_COMMAND_TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == 0, f"{example.place}: {example.text}\n{done.stdout}"

    def _serve(self, text: str) -> None:
        """Start a server, which later examples call."""
        ports = " ".join(f"--{name}-port 0" for name in ("http", "grpc", "metrics"))
        server = subprocess.Popen(
            ["bash", "-c", f"exec {text.rstrip()} {ports}"], cwd=self._folder,
            env=self._environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._servers.append(server)
        assert server.stdout is not None
        ready = _READY.search(server.stdout.readline())
        assert ready is not None, "the server does not start: its message is above"
        self._ports = Ports(*map(int, ready.groups()))

    def _run_python(self, example: Example, text: str) -> None:
        # The lines before put a traceback's line at the document's.
        code = compile("\n" * (example.line - 1) + text, example.file, "exec")
        exec(code, self._names)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents' examples name, and the cascade built."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "bin").mkdir()
    for name, module in (("cascadebert", " -m cascadebert_build.cli"), ("python", "")):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable}{module} "$@"\n')
        command.chmod(0o755)
    # Both members are the same, so that no guarantee can break.
    for member in ("checkpoints/sst2-small", "checkpoints/sst2-large"):
        save_checkpoint(folder / member, num_hidden_layers=1)
    rows = [f"{text}\t{i % 2}\n" for i, text in enumerate(TEXTS * 2)]
    (folder / "glue/SST-2").mkdir(parents=True)
    for path in ("glue/SST-2/dev.tsv", "rows.tsv"):
        (folder / path).write_text("sentence\tlabel\n" + "".join(rows))
    (folder / "reviews.csv").write_text("sentence,label\n" + f'"{TEXTS[0]}",0\n')
    with gzip.open(folder / "reviews.jsonl.gz", "wt") as lines:
        lines.write("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:5]))
    (folder / "cascade.toml").write_text(_CONFIG)
    export_config(folder / "cascade.toml")
    subprocess.run(
        [sys.executable, "-m", "cascadebert_build.cli", "build", "cascade.toml"],
        cwd=folder, check=True, timeout=_COMMAND_TIMEOUT_S,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def shared_ports(material: Path) -> Iterator[Ports]:
    """Those of a server with the cascade, whose audits have rows."""
    with serving(material / "model_repository") as server:
        with CascadeClient(server.url, "sst2") as client:
            client.classify(TEXTS, timeout_s=60)
        yield server.ports


@pytest.fixture
def ports(material: Path, shared_ports: Ports) -> Iterator[Ports]:
    """The ports of the shared server, which serves version 1 again afterwards."""
    yield shared_ports
    url = f"127.0.0.1:{shared_ports.grpc}"
    with CascadeClient(url, "sst2") as client:
        served = client.status().model.versions
    if served != ("1",):
        repository = str(material / "model_repository")
        command = ["load", "sst2", "--versions", "1", "--url", url]
        assert main([*command, "--model-repository", repository]) == 0


@pytest.fixture
def folder(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A document's own copy of the material; the model repository is the server's."""
    copy = tmp_path / "folder"
    shutil.copytree(material, copy, ignore=shutil.ignore_patterns("model_repository"))
    (copy / "model_repository").symlink_to(material / "model_repository")
    monkeypatch.chdir(copy)  # for paths in Python
    return copy


@pytest.mark.timeout(900)  # the first one builds the cascade
@pytest.mark.parametrize("document", [file for file, each in _RUNNABLE.items() if each])
def test_examples_of(document: str, folder: Path, ports: Ports) -> None:
    reader = Reader(folder, ports)
    try:
        for example in _RUNNABLE[document]:
            reader.follow(example)
    finally:
        reader.close()
