"""Engines on a real GPU if there is one, otherwise the same tests on a pretended one.

The tests run the commands as users do, in separate processes. A machine with a GPU but without
PyTorch, ONNX and ModelOpt takes the exported members from a work folder of another machine
(`cascadebert export`, `verify` and `compile --step graph`). CASCADEBERT_GPU_CONFIG names the
cascade.toml beside that work folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gpu import Machine, Project, RealMachine, real_gpu
from tests.support.pretend_gpu import NEWEST, OLDEST, CannotPretend, PretendedMachine, make_machine


@pytest.fixture(scope="session", params=["oldest TensorRT", "newest TensorRT"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The real machine, otherwise one that pretends to have the oldest or newest TensorRT."""
    oldest = request.param.startswith("oldest")
    if real_gpu():
        if not oldest:
            pytest.skip("a machine has one TensorRT: it was tested already")
        return RealMachine()
    return pretended(request.config, tmp_path_factory, OLDEST if oldest else NEWEST)


@pytest.fixture(scope="session")
def pretended_machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PretendedMachine:
    """A machine whose GPU and TensorRT behave as a test tells them to."""
    return pretended(request.config, tmp_path_factory, NEWEST)


def pretended(
    config: pytest.Config, folders: pytest.TempPathFactory, version: str
) -> PretendedMachine:
    if importlib.util.find_spec("polygraphy") is None:
        pytest.skip("Polygraphy is not installed: pip install 'cascadebert[fp16]'")
    assert config.cache is not None
    try:
        return make_machine(
            folders.mktemp("machine"), version, Path(config.cache.mkdir("tensorrt-bindings"))
        )
    except CannotPretend as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cascade.toml whose work folder has everything that a GPU machine needs."""
    named = os.environ.get("CASCADEBERT_GPU_CONFIG")
    if named:
        return Path(named)
    for module in ("torch", "modelopt"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(
                f"{module} is not installed: pip install 'cascadebert[build,fp16]', or set "
                "CASCADEBERT_GPU_CONFIG to a cascade.toml with a prepared work folder"
            )
    return _tiny_cascade(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="session")
def project(
    machine: Machine, graphs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """The cascade, built completely on the machine."""
    folder = tmp_path_factory.mktemp("project") / "cascade"
    shutil.copytree(graphs.parent, folder)
    built = Project(
        machine,
        folder / graphs.name,
        folder / "model_repository",
        is_random="CASCADEBERT_GPU_CONFIG" not in os.environ,
    )
    for arguments in (
        ("compile", "--step", "engine"),
        ("verify",),
        ("tune",),
        ("verify",),
        ("publish", "--model-repository", str(built.repository)),
    ):
        done = built.command(*arguments)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    yield built
    shutil.rmtree(folder, ignore_errors=True)  # engines are large


def _tiny_cascade(folder: Path) -> Path:
    from tests.support.checkpoints import save_checkpoint, write_config
    from tests.support.exports import export_config

    members = {
        "small": save_checkpoint(folder / "small", num_hidden_layers=1),
        "large": save_checkpoint(folder / "large", seed=1),
    }
    config = write_config(folder, members, name="tiny", rate=0.4)
    with config.open("a") as file:
        file.write('[runtime]\nengine = "tensorrt"\nbuckets = [16, 32]\n')
    export_config(config)
    for arguments in (("export",), ("verify",), ("compile", "--step", "graph")):
        done = subprocess.run(
            [sys.executable, "-m", "cascadebert_build.cli", arguments[0], str(config),
             *arguments[1:]],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return config
