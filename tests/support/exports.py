"""ONNX exports that a test run makes once and all its tests and processes share.

An export takes seconds, and most tests need one only to get to what they test.

The exports live in a folder that a test run makes and removes (`tests/conftest.py`), so they cannot
outlive a change of the code that made them. Within the run they are keyed by the contents of the
checkpoint; the pipeline compares its own key as well before it takes one as up to date.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from cascadebert_build.checkpoints.checkpoint import sha256_of_checkpoint
from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.pipeline.build import CascadeBuild
from cascadebert_build.pipeline.workspace import workspace_of

from .checkpoints import write_config

FOLDER = "CASCADEBERT_TEST_EXPORTS"


def export_members(steps: CascadeBuild) -> None:
    """Put the exports of a cascade's members into its work folder, if they are not there."""
    workspace = steps.workspace
    for member in steps.config.members:
        folder = workspace.manifest(member).parent
        if folder.exists():
            continue
        with _exported(steps.config.checkpoint(member)) as made:
            shutil.copytree(made, folder)
        manifest = replace(steps.exported(member).manifest, checkpoint=member.checkpoint)
        manifest.write(workspace.manifest(member))


def export_config(config_path: Path) -> None:
    """Put the exports of a cascade.toml's members into the work folder beside it."""
    config = config_from_file(config_path)
    export_members(CascadeBuild(config, workspace_of(config, None)))


def export_graph(checkpoint: Path, path: Path) -> None:
    """Write the exported graph of a checkpoint to `path`."""
    with _exported(str(checkpoint)) as made:
        shutil.copy2(made / "model.onnx", path)


@contextmanager
def _exported(source: str) -> Generator[Path, None, None]:
    """Yield a member's folder as the export leaves it; other processes wait for the block's end."""
    folder = Path(os.environ[FOLDER]) / sha256_of_checkpoint(source)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        config = config_from_file(write_config(folder, {"only": Path(source)}))
        steps = CascadeBuild(config, workspace_of(config, None))
        (member,) = config.members
        manifest = steps.workspace.manifest(member)
        if not manifest.is_file():
            steps.export(member)
        yield manifest.parent
