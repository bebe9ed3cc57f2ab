"""Shared by all tests: one torch thread, exports made once, a cascade that is built and served."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

# The members of the tests are tiny, so more threads cost more than they save, and a run may have
# several processes. numpy and torch read this when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from cascadebert_build.server.tritonserver import TritonServer
from tests.support.counters import MetricsPage
from tests.support.cpu import this_cpu
from tests.support.serving import Built, build, serving

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

EXPORTS = "CASCADEBERT_TEST_EXPORTS"
TESTS = Path(__file__).parent


# An example may be slow on a busy machine, or because it imports scipy first. The same examples in
# every run, except in the long one, which is for finding new ones.
hypothesis.settings.register_profile(
    "cascadebert", deadline=None, derandomize=not os.environ.get("CASCADEBERT_LONG")
)
hypothesis.settings.load_profile("cascadebert")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of the exports that all processes of this run share, unless one is given."""
    if EXPORTS not in os.environ:
        folder = os.environ[EXPORTS] = tempfile.mkdtemp(prefix="cascadebert-exports-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Choose what one process runs as a whole: files, and all of tests/gpu, whose tests share much.

    Each GLUE task is large enough to stand alone. Only `--dist loadscope` asks for this.
    """
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling  # only if pytest-xdist is installed

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith("tests/gpu/"):
                return "tests/gpu"
            return nodeid if file.endswith("/test_glue.py") else file

    return ByFile(config, log)


# The tests of reliability load the machine, except these.
_QUIET = {
    "test_hostile_requests.py",
    "test_replicas.py",
    "test_restricted_protocols.py",
    "test_tls.py",
}


@pytest.hookimpl(tryfirst=True)  # before -m takes tests away
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that would slow down others."""
    for item in items:
        if TESTS / "reliability" in item.path.parents and item.path.name not in _QUIET:
            item.add_marker(pytest.mark.busy)


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
