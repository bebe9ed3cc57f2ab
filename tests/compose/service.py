"""One compose project of a test."""

from __future__ import annotations

import os
import resource
import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.compose.engine import compose_command, docker, inspect

HOST = "127.0.0.1"
KEY = "a-key-of-the-container-tests"
_FILES = ("docker-compose.yml", "docker-compose.cpu.yml")
_PROFILES = ("--profile", "monitoring", "--profile", "tools")
_PORTS = ("HTTP", "GRPC", "METRICS", "PROMETHEUS")
_PROBES = {
    "CASCADEBERT_KEY": KEY,
    # Shorter than the defaults, and Docker's check fails before the entrypoint ends.
    "CASCADEBERT_PROBE_INTERVAL_S": "2",
    "CASCADEBERT_PROBE_TIMEOUT_S": "20",
    "CASCADEBERT_PROBE_FAILURES": "6",
    "CASCADEBERT_HEALTH_INTERVAL": "1s",
    "CASCADEBERT_STOP_TIMEOUT_S": "15",
}
_PATIENCE_S = 240.0  # far longer than needed


class Service:
    """docker-compose with the CPU override, under its own project name and ports."""

    def __init__(self, root: Path, variables: dict[str, str]) -> None:
        """Prepare; nothing runs yet.

        Args:
            root: The folder of the compose files.
            variables: Variables for them, beside those that all tests need.
        """
        self._root = root
        self.project = f"cascadebert-test-{secrets.token_hex(4)}"
        self._variables = {**_PROBES, "CASCADEBERT_MEMLOCK": _memlock(), **variables}

    def compose(
        self, *arguments: str, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run docker-compose on the project, with further variables for this call."""
        command = compose_command()
        assert command is not None
        files = [part for name in _FILES for part in ("-f", name)]
        ended = subprocess.run(
            [*command, "-p", self.project, *files, *_PROFILES, *arguments],
            cwd=self._root,
            env={**os.environ, **self._variables, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and ended.returncode:
            raise AssertionError(f"compose {' '.join(arguments)}\n{ended.stdout}{ended.stderr}")
        return ended

    def run(self, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `triton` in the foreground until it ends."""
        return self.compose("run", "--rm", "-T", "triton", *flags, check=False, **variables)

    def port(self, name: str) -> int:
        """Return a port of this machine: HTTP, GRPC, METRICS or PROMETHEUS."""
        return int(self._variables[f"CASCADEBERT_{name}_PORT"])

    @property
    def grpc(self) -> str:
        """host:port for the client."""
        return f"{HOST}:{self.port('GRPC')}"

    def url(self, name: str, path: str) -> str:
        """Return an address over HTTP."""
        return f"http://{HOST}:{self.port(name)}{path}"

    @property
    def container(self) -> str:
        """The id of the container of `triton`."""
        return self.compose("ps", "-a", "-q", "triton").stdout.strip()

    def state(self) -> dict[str, Any]:
        """Return the container's state."""
        return inspect(self.container)["State"]

    def logs(self) -> str:
        """Return the container's log."""
        ended = docker("logs", self.container)
        return ended.stdout + ended.stderr

    def sh(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the container as its user."""
        return docker("exec", self.container, "sh", "-c", script, check=check)

    def await_health(self, wanted: str, *, restarts: int = 0) -> None:
        """Wait for a state of health after at least this many restarts."""
        deadline_s = time.monotonic() + _PATIENCE_S
        seen = ""
        while time.monotonic() < deadline_s:
            container = inspect(self.container)
            seen = container["State"].get("Health", {}).get("Status", "")
            if seen == wanted and container["RestartCount"] >= restarts:
                return
            time.sleep(0.3)
        raise AssertionError(f"health is {seen!r}, not {wanted!r}\n{self.logs()}")

    def down(self) -> None:
        """Remove everything that the project created."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "30", check=False)


def free_ports() -> dict[str, str]:
    """Return variables with free ports of this machine."""
    with_sockets = {name: socket.socket() for name in _PORTS}
    try:
        for listener in with_sockets.values():
            listener.bind((HOST, 0))
        return {
            f"CASCADEBERT_{name}_PORT": str(listener.getsockname()[1])
            for name, listener in with_sockets.items()
        }
    finally:
        for listener in with_sockets.values():
            listener.close()


def _memlock() -> str:
    """No limit if the engine may grant that, otherwise as much as this machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return "-1" if hard == resource.RLIM_INFINITY else str(hard)
