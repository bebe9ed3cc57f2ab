"""The package's Python API: its names and parameters, and what importing it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import cascadebert_build

PARAMETERS = {
    "load_config": ["path"],
    "build": ["config", "repository", "work_dir", "force", "keep", "quick"],
    "tune": ["config", "work_dir", "force"],
    "publish": ["config", "repository", "work_dir", "keep"],
    "evaluate": [
        "config", "work_dir", "force", "data", "data_format", "all_rows", "operating_point",
        "threshold",
    ],
    "serve": [
        "repository", "cascades", "ports", "versions", "instances", "threads", "log_path",
        "log_requests", "log_text", "tls_cert", "tls_key", "tls_client_ca",
    ],
}  # fmt: skip


def test_the_names_are_those_of_the_documentation() -> None:
    assert sorted(cascadebert_build.__all__) == sorted(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_function_keeps_its_parameters_and_documents_them(name: str) -> None:
    function = getattr(cascadebert_build, name)
    assert list(inspect.signature(function).parameters) == PARAMETERS[name]
    described = inspect.getdoc(function) or ""
    for parameter in PARAMETERS[name]:
        assert f"\n    {parameter}: " in described
    for section in ("Args:", "Returns:", "Raises:"):
        assert f"\n{section}\n" in described


def test_importing_it_needs_the_base_dependencies_alone() -> None:
    heavy = "{'torch', 'transformers', 'onnx', 'onnxruntime', 'pydantic', 'numpy'}"
    code = f"import sys, cascadebert_build; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
