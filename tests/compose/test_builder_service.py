"""The builder service: the command line in a container, on files of this machine.

It is built without the extras, which are gigabytes; other tests cover them without a container.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.conftest import ROOT
from tests.compose.service import Service
from tests.compose.standin import stand_in_for_tensorrt

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the builder's user, with a cascade.toml that names no checkpoint."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "cascade.toml").write_text(
        'name = "tiny"\n[[members]]\nname = "small"\ncheckpoint = "nowhere"\n'
        '[data]\npath = "rows.tsv"\ntext = "sentence"\n'
    )
    for path in (folder, folder / "cascade.toml"):
        os.chown(path, 1234, 1234)
    return folder


@pytest.fixture(scope="module")
def builder(images: dict[str, str], workspace: Path) -> Iterator[Service]:
    variables = {
        **images,
        "CASCADEBERT_TENSORRT_IMAGE": stand_in_for_tensorrt(),
        "CASCADEBERT_BUILDER_IMAGE": "cascadebert-compose-test-builder",
        "CASCADEBERT_EXTRAS": "standin",  # pip only warns about an unknown extra
        "CASCADEBERT_WORKSPACE": str(workspace),
        "CASCADEBERT_USER": "1234:1234",
    }
    service = Service(ROOT, variables)
    service.compose("build", "builder")
    try:
        yield service
    finally:
        service.down()


def test_it_is_the_command_line(builder: Service) -> None:
    ended = builder.compose("run", "--rm", "-T", "builder", "--help")
    for command in ("build", "compile", "publish", "evaluate"):
        assert command in ended.stdout


def test_a_bad_configuration_is_an_error_of_the_command_line(builder: Service) -> None:
    ended = builder.compose("run", "--rm", "-T", "builder", "build", "no.toml", check=False)
    assert ended.returncode == 2, ended.stderr
    assert "no.toml" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_it_works_in_the_workspace_as_its_owner(builder: Service, workspace: Path) -> None:
    script = "import os; open('made-inside', 'w').close(); print(os.getuid(), os.listdir())"
    entry = ("run", "--rm", "-T", "--entrypoint", "python3", "builder", "-c", script)
    ended = builder.compose(*entry)
    assert "1234 " in ended.stdout
    assert "cascade.toml" in ended.stdout
    assert (workspace / "made-inside").stat().st_uid == 1234
