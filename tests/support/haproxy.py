"""HAProxy of the distribution, in front of servers on loopback."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cascadebert_build.server.tritonserver import TritonServer
from tests.support.waiting import wait_until

BALANCER = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"


NO_HAPROXY = "haproxy is not installed: apt-get install haproxy"


def has_haproxy() -> bool:
    return shutil.which("haproxy") is not None


def balancer_of(servers: Sequence[TritonServer], model: str, port: int) -> str:
    """The balancer that the project ships, with these servers."""
    text = BALANCER.read_text(encoding="utf-8").replace("bind :8001", f"bind 127.0.0.1:{port}")
    for index, server in enumerate(servers):
        line = f"server triton-{index} triton-{index}:8001 port 8000"
        assert line in text
        text = text.replace(line, f"server triton-{index} {server.url} port {server.ports.http}")
    return re.sub(r"/v2/models/\w+/", f"/v2/models/{model}/", text)


def streams_balancer_of(servers: Sequence[TritonServer], port: int) -> str:
    """One more port, for a balancer that knows HTTP/2 and so balances calls."""
    lines = [f"    server triton-{i} {server.url} proto h2" for i, server in enumerate(servers)]
    return "\n".join(
        [
            "",
            "listen streams",
            f"    bind 127.0.0.1:{port}",
            "    mode http",
            "    balance roundrobin",
            *lines,
            "",
        ]
    )


@contextmanager
def haproxy(config: str, folder: Path, port: int) -> Generator[None, None, None]:
    """Run it until the end of the block; it listens on the port of its configuration."""
    path = folder / "haproxy.cfg"
    path.write_text(config, encoding="utf-8")
    log = folder / "haproxy.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(["haproxy", "-db", "-f", path], stdout=output, stderr=output) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or _listens(port), "haproxy's start")
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
