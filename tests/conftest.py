"""Fixtures that several test folders share."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.support.serving import Built, build, serving


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A two-stage cascade of tiny random members, published."""
    from tests.support.checkpoints import save_checkpoint, write_config  # torch, where there is one

    folder = tmp_path_factory.mktemp("built")
    members = {
        "small": save_checkpoint(folder / "small", num_hidden_layers=1),
        "large": save_checkpoint(folder / "large", seed=1),
    }
    return build(write_config(folder, members, name="tiny", rate=0.4), folder / "repository")


@pytest.fixture(scope="session")
def served(built: Built) -> Iterator[str]:
    """host:port of a server with the cascade `built`."""
    with serving(built.repository) as server:
        _metrics_ports[server.url] = server.ports.metrics
        yield server.url


_metrics_ports: dict[str, int] = {}


@pytest.fixture
def metrics(served: str) -> Callable[..., float]:
    """The sum of a metric over all its labels, read from the server's own endpoint.

    Counts arrive there a moment after the answer: with `at_least`, they are waited for.
    """

    def total(name: str, at_least: float = 0.0) -> float:
        url = f"http://127.0.0.1:{_metrics_ports[served]}/metrics"
        deadline_s = time.monotonic() + 10
        while True:
            with urllib.request.urlopen(url, timeout=10) as response:
                lines = response.read().decode().splitlines()
            own = [line for line in lines if line.startswith(f"{name}{{")]
            found = sum(float(line.rpartition(" ")[2]) for line in own)
            if found >= at_least or time.monotonic() > deadline_s:
                return found
            time.sleep(0.05)

    return total
