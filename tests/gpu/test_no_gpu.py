"""On a machine without a driver the commands say what is missing."""

from __future__ import annotations

import pytest

from cascadebert_build.cli import main
from tests.support.gpu import real_gpu


def test_compile_says_that_a_gpu_is_needed(
    graphs: object, capsys: pytest.CaptureFixture[str]
) -> None:
    if real_gpu():
        pytest.skip("there is a GPU")
    assert main(["compile", str(graphs), "--step", "engine"]) == 1
    message = capsys.readouterr().err
    assert "built on the GPU that runs it" in message
    assert "install it, or start the container with a GPU" in message


def test_compile_refuses_a_cascade_that_needs_none(
    built: object, capsys: pytest.CaptureFixture[str]
) -> None:
    config = built.steps.config.folder / "cascade.toml"  # pyright: ignore
    assert main(["compile", str(config)]) == 2
    assert "engine = 'onnxruntime', which needs no compiling" in capsys.readouterr().err
