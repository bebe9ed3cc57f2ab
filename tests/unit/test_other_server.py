"""Another tritonserver than the bundled one: CASCADEBERT_TRITONSERVER."""

from __future__ import annotations

import importlib.metadata
import os
import sysconfig
from pathlib import Path

import pytest

from cascadebert_build.errors import UsageError
from cascadebert_build.server.installation import SERVER_VARIABLE, find_installation


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The layout of NVIDIA's image, in the environment."""
    root = tmp_path / "tritonserver"
    for file in ("bin/tritonserver", "backends/python/triton_python_backend_stub"):
        (root / file).parent.mkdir(parents=True)
        (root / file).write_text("#!/bin/sh\n")
    (root / "backends" / "python" / "libtriton_python.so").write_text("")
    (root / "backends" / "onnxruntime").mkdir()
    monkeypatch.setenv(SERVER_VARIABLE, str(root))
    # This interpreter may be built without a shared library.
    monkeypatch.setitem(sysconfig.get_config_vars(), "Py_ENABLE_SHARED", 1)
    return root


def test_the_variable_names_the_server(folder: Path, tmp_path: Path) -> None:
    found = find_installation()
    assert found.binary == folder / "bin" / "tritonserver"
    assert found.libraries[0] == folder / "lib"
    found.copy_backends(tmp_path / "backends")
    stub = tmp_path / "backends" / "python" / "triton_python_backend_stub"
    assert os.access(stub, os.X_OK)
    assert (tmp_path / "backends" / "onnxruntime").resolve() == folder / "backends" / "onnxruntime"


@pytest.mark.parametrize(
    "missing", ["bin/tritonserver", "backends/python/triton_python_backend_stub"]
)
def test_a_folder_without_a_part_is_refused_by_its_name(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(UsageError, match=missing):
        find_installation()


@pytest.mark.parametrize(
    ("version", "refused"),
    [("2.51.0", True), ("2.69.0", True), ("2.70.0", False), ("3.0.0", False), ("x", True)],
)
def test_numpy_2_needs_a_server_of_26_06(
    folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, refused: bool
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.1.0")
    (folder / "TRITON_VERSION").write_text(f"{version}\n")
    if refused:
        with pytest.raises(UsageError, match="numpy<2"):
            find_installation()
    else:
        assert find_installation().binary.is_file()
