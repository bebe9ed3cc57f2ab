"""Fixtures of the container tests: images, a repository, and services that are removed again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.engine import missing_engine
from tests.compose.service import Service, free_ports
from tests.compose.standin import missing_tools, stand_in_for_prometheus, stand_in_for_triton
from tests.support.serving import Built

ROOT = Path(__file__).resolve().parents[2]
SWITCH = "CASCADEBERT_COMPOSE"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "compose: runs containers; takes minutes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanted = [item for item in items if item.get_closest_marker("compose")]
    if not wanted:
        return
    reason = None
    if os.environ.get(SWITCH) != "1":
        reason = f"containers take minutes: set {SWITCH}=1, or run `make test-compose`"
    elif problem := missing_engine():
        reason = f"{problem}: install Docker and Compose (Debian: docker.io, docker-compose)"
    elif missing := missing_tools():
        reason = f"{', '.join(missing)} is missing, and is needed to make the stand-in images"
    elif os.geteuid() != 0:
        reason = "the stand-in images need root (debootstrap, chroot)"
    if reason:
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def repository(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the cascade `built`, which the container's user can read."""
    target = tmp_path_factory.mktemp("mounted") / "repository"
    shutil.copytree(built.repository, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Variables with the names of the stand-ins."""
    return {
        "CASCADEBERT_TRITON_IMAGE": stand_in_for_triton(),
        "CASCADEBERT_PROMETHEUS_IMAGE": stand_in_for_prometheus(),
        "CASCADEBERT_CPU_IMAGE": "cascadebert-compose-test",
        "CASCADEBERT_TAG": "standin",
    }


@pytest.fixture(scope="session")
def built_image(images: dict[str, str]) -> dict[str, str]:
    """The variables, after our Dockerfile is built on the stand-in."""
    Service(ROOT, images).compose("build", "triton")
    return images


@pytest.fixture(scope="session")
def service(built_image: dict[str, str], repository: Path) -> Iterator[Service]:
    """`triton`, up and healthy."""
    service = Service(
        ROOT, {**built_image, **free_ports(), "CASCADEBERT_REPOSITORY": str(repository)}
    )
    try:
        service.compose("up", "-d", "--no-build", "triton")
        service.await_health("healthy")
        yield service
    finally:
        service.down()


@pytest.fixture
def own_service(built_image: dict[str, str], repository: Path) -> Iterator[Service]:
    """A service for one test, not started yet."""
    service = Service(
        ROOT, {**built_image, **free_ports(), "CASCADEBERT_REPOSITORY": str(repository)}
    )
    try:
        yield service
    finally:
        service.down()
