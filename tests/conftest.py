"""Shared by all tests: one torch thread, exports made once, a cascade that is built and served."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# The members of the tests are tiny, so more threads cost more than they save, and a run may have
# several processes. numpy and torch read this when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from cascadebert_build.server.tritonserver import TritonServer
from tests.support.counters import MetricsPage
from tests.support.cpu import this_cpu
from tests.support.serving import Built, build, serving

EXPORTS = "CASCADEBERT_TEST_EXPORTS"
TESTS = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of the exports that all processes of this run share, unless one is given."""
    if EXPORTS not in os.environ:
        folder = os.environ[EXPORTS] = tempfile.mkdtemp(prefix="cascadebert-exports-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and all of tests/gpu, which share a machine."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if item.get_closest_marker("xdist_group") is None:
            group = folder if folder == "gpu" else f"{folder}-{item.path.stem}"
            item.add_marker(pytest.mark.xdist_group(group))
        if folder == "reliability":
            item.add_marker(pytest.mark.serial)


def pytest_report_header() -> str:
    """Say which CPU the results below are of: integer products and last digits depend on it."""
    return f"cpu: {this_cpu()}"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A published two-stage cascade of tiny random members."""
    from tests.support.checkpoints import save_checkpoint, write_config  # imports torch

    folder = tmp_path_factory.mktemp("built")
    members = {
        "small": save_checkpoint(folder / "small", num_hidden_layers=1),
        "large": save_checkpoint(folder / "large", seed=1),
    }
    return build(write_config(folder, members, name="tiny", rate=0.4), folder / "repository")


@pytest.fixture(scope="session")
def running(built: Built) -> Iterator[TritonServer]:
    """A server with the cascade `built`, for tests that leave it as it is."""
    with serving(built.repository) as server:
        yield server


@pytest.fixture(scope="session")
def served(running: TritonServer) -> str:
    """The host:port of that server."""
    return running.url


@pytest.fixture
def metrics(running: TritonServer) -> MetricsPage:
    """The metrics of that server."""
    return MetricsPage(running.ports.metrics)
