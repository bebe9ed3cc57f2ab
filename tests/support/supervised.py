"""The container's supervisor as a process, over any tritonserver."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from cascadebert_core.contract import POLICY_FILE
from cascadebert_supervisor.served import served_cascades
from cascadebert_supervisor.settings import Settings

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
PYTHONPATH = os.pathsep.join(map(str, (ROOT / "build", ROOT / "model_repository/cascade/1")))

_RUNNER = """\
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
    """A supervisor that runs as in the container."""

    def __init__(self, settings: Settings, *extra: str, **environment: str) -> None:
        self.settings = settings
        described = repr(settings).replace("PosixPath", "Path")
        self.process = subprocess.Popen(
            # Without site-packages, which NVIDIA's image does not have either.
            [sys.executable, "-S", "-c", _RUNNER, described, *extra],
            env={**os.environ, "PYTHONPATH": PYTHONPATH, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def await_ready(self) -> None:
        deadline_s = time.monotonic() + 120
        while not served_cascades(self.settings.served_file):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

    def end(self) -> int:
        return self.process.wait(120)

    def log(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


def quick_settings(folder: Path, binary: str, **settings: object) -> Settings:
    """Settings for a supervisor that works in `folder`, on free ports and without waiting."""
    with socket.socket() as http, socket.socket() as grpc, socket.socket() as metrics:
        for listener in (http, grpc, metrics):
            listener.bind((HOST, 0))
        defaults = Settings(
            key="k" * 20,
            repository=folder / "repository",
            poll_s=0.02,
            probe_interval_s=0.02,
            stop_timeout_s=20.0,
            binary=binary,
            preflight=("true",),
            overlay=folder / "links",
            served_file=folder / "served.json",
            address=HOST,
            http_port=http.getsockname()[1],
            grpc_port=grpc.getsockname()[1],
            metrics_port=metrics.getsockname()[1],
        )
    return replace(defaults, **settings)  # pyright: ignore[reportArgumentType]


def write_cascade(repository: Path, name: str, stages: list[str], *, pair: object = False) -> None:
    """Write as much of a published cascade as the supervisor reads."""
    version = repository / name / "1"
    version.mkdir(parents=True, exist_ok=True)
    policy = {"pair": pair, "stages": [{"model": stage} for stage in stages]}
    (version / POLICY_FILE).write_text(json.dumps(policy))
    for model in (name, *stages):
        (repository / model).mkdir(exist_ok=True)
        (repository / model / "config.pbtxt").write_text("")
