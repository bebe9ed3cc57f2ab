"""model.plan in TensorRT's Python runtime, on a GPU."""

from __future__ import annotations

from pathlib import Path

# `cascadebert publish` copies the package beside this file.
from .cascadebert_engine.manifest import PLAN  # pyright: ignore[reportMissingImports]
from .cascadebert_engine.session import EngineSession  # pyright: ignore[reportMissingImports]


def open_session(folder: Path, device: int | None, parameters: dict[str, str]) -> EngineSession:
    """Open the session of a version folder with the parameters of config.pbtxt."""
    return EngineSession(
        folder / PLAN,
        device=device or 0,
        cuda_graphs=parameters.get("cuda_graphs") == "true",
    )
