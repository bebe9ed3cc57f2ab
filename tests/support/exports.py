"""ONNX exports that a test run makes once and all its tests and processes share.

An export takes seconds, and most tests need one only to get to what they test. Tests of the export
itself call the pipeline, and not this module.

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

from cascadebert_build.checkpoints.checkpoint import Checkpoint, sha256_of_checkpoint
from cascadebert_build.config.cascade_toml import config_from_file
from cascadebert_build.graphs.export import onnx_from_checkpoint
from cascadebert_build.pipeline.build import Steps
from cascadebert_build.pipeline.workspace import workspace_of

FOLDER = "CASCADEBERT_TEST_EXPORTS"


def export_members(steps: Steps) -> None:
    """Export the members of a cascade, or copy the exports of equal checkpoints."""
    workspace = steps.workspace
    for member in steps.config.members:
        source = steps.config.checkpoint(member)
        made = workspace.manifest_path(member).parent
        with _entry(source) as entry:
            kept = entry / "member"
            if kept.is_dir() and not made.exists():
                shutil.copytree(kept, made)
                manifest = replace(workspace.manifest(member), checkpoint=member.checkpoint)
                workspace.write_manifest(member, manifest)
            elif not kept.is_dir():
                steps.export(member)
                files = (workspace.onnx, workspace.tokenizer, workspace.manifest_path)
                kept.mkdir()
                for path in (of(member) for of in files):
                    shutil.copy2(path, kept)


def export_config(config_path: Path) -> None:
    """Export the members of a cascade.toml into the work folder beside it."""
    config = config_from_file(config_path)
    export_members(Steps(config, workspace_of(config, None)))


def exported_onnx(checkpoint: Checkpoint, path: Path) -> None:
    """Write what `onnx_from_checkpoint` writes."""
    with _entry(checkpoint.source) as entry:
        kept = entry / "model.onnx"
        if not kept.is_file():
            onnx_from_checkpoint(checkpoint, kept)
        shutil.copy2(kept, path)


@contextmanager
def _entry(source: str) -> Generator[Path, None, None]:
    """The folder of a checkpoint's exports; other processes wait until the block ends."""
    folder = Path(os.environ[FOLDER])
    folder.mkdir(parents=True, exist_ok=True)
    name = sha256_of_checkpoint(source)
    with FileLock(folder / f"{name}.lock"):
        entry = folder / name
        entry.mkdir(exist_ok=True)
        yield entry
