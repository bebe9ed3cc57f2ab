"""The Docker engine and docker-compose of this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any


def image_exists(tag: str) -> bool:
    """Return whether the engine has the image."""
    return docker("image", "inspect", tag, check=False).returncode == 0


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the docker command line."""
    ended = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if check and ended.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}\n{ended.stdout}{ended.stderr}")
    return ended


def inspect(container: str) -> dict[str, Any]:
    """Return what the engine knows about a container."""
    return json.loads(docker("container", "inspect", container).stdout)[0]


def compose_command() -> list[str] | None:
    """Return the command of Compose v2, else of docker-compose 1.x; None without either."""
    if shutil.which("docker") and docker("compose", "version", check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def missing_engine() -> str | None:
    """Return why containers cannot run here; None if they can."""
    if not shutil.which("docker"):
        return "there is no docker command"
    if docker("version", check=False).returncode:
        return "no Docker engine answers"
    if compose_command() is None:
        return "there is neither Compose v2 nor docker-compose"
    return None
