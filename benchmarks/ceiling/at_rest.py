"""What `cascadebert serve` uses while nothing is asked."""

from __future__ import annotations

import http.client
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from cascadebert_build.errors import CheckFailed
from cascadebert_build.server.ports import HOST, Ports, resolve_ports

from ..tools.command import say

_START_S = 300.0
_STOP_S = 60.0
_POLL_S = 0.5
# After its first answers a server still settles.
_SETTLE_S = 5.0
_LINES = 15


def at_rest(repository: Path, seconds: float) -> dict[str, float]:
    """Serve a repository, ask nothing, and count CPU time.

    Args:
        repository: The model repository.
        seconds: How long to count.

    Returns:
        Shares of a core, 0 to 1, of the process `serve` and of all its descendants.

    Raises:
        CheckFailed: It does not start.
    """
    ports = resolve_ports(Ports(0, 0, 0))
    command = [
        sys.executable, "-m", "cascadebert_build.cli", "serve",
        "--model-repository", str(repository), "--http-port", str(ports.http),
        "--grpc-port", str(ports.grpc), "--metrics-port", str(ports.metrics),
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            if not _is_ready(process, ports.http):
                output.seek(0)
                lines = output.read().splitlines()[-_LINES:]
                raise CheckFailed("\n  ".join(["serve does not start:", *lines]))
            time.sleep(_SETTLE_S)
            before, began_s = _cpu_s(process.pid), time.monotonic()
            time.sleep(seconds)
            wall_s, after = time.monotonic() - began_s, _cpu_s(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    used = {name: (after[name] - before[name]) / wall_s for name in before}
    say(f"at rest: serve {used['serve']:.2%} of a core, its servers {used['servers']:.2%}")
    return used


def _is_ready(process: subprocess.Popen[str] | subprocess.Popen[bytes], port: int) -> bool:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return True
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(_POLL_S)
    return False


def _cpu_s(pid: int) -> dict[str, float]:
    """Return CPU seconds of a process, and of its descendants."""
    root = psutil.Process(pid)
    servers = sum(sum(child.cpu_times()[:2]) for child in root.children(recursive=True))
    return {"serve": sum(root.cpu_times()[:2]), "servers": servers}
