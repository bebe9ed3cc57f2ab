"""The folder of a running training: its checkpoints, and the key of the training.

::

    OUTPUT.partial/
    ├── training.json              key of the training: settings, data, versions
    └── checkpoint-<step>/         the best one and the last; trainer_state.json is written last
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cascadebert_engine.files import read_json, write_json

from ..errors import UsageError

_MARK = "training.json"
_STATE = "trainer_state.json"
_BEST = "best_model_checkpoint"


def partial_folder(output: Path) -> Path:
    """The absolute folder for the checkpoints of a training, beside its output."""
    return output.resolve().with_name(f"{output.resolve().name}.partial")


def last_checkpoint(folder: Path) -> Path | None:
    """The completely written checkpoint with the most steps."""
    steps = {
        int(step): path
        for path in folder.glob("checkpoint-*")
        if (step := path.name.partition("-")[2]).isdecimal() and _is_whole(path)
    }
    return steps[max(steps)] if steps else None


def interrupted_checkpoint(folder: Path, key: str) -> Path | None:
    """The checkpoint to resume from, or None to start from the beginning. Changes nothing.

    Args:
        folder: The result of `partial_folder`.
        key: The key of the training that is about to run.

    Raises:
        UsageError: The folder has another training's checkpoints, or other files.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise UsageError(f"{folder} is in the way of the checkpoints: give another output folder")
    mark = read_json(folder / _MARK)
    last = last_checkpoint(folder)
    if mark is None and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UsageError(
            f"{folder} has files that are not of a training: move them away, or give another "
            "output folder"
        )
    if mark is not None and mark.get("key") != key and last is not None:
        raise UsageError(
            f"{folder} holds an interrupted training with other settings, data or versions: "
            "delete it, or give another output folder"
        )
    return last


def begin_partial(folder: Path, key: str) -> None:
    """Prepare the folder: write the key and delete incomplete checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("checkpoint-*"):
        if not _is_whole(path):
            shutil.rmtree(path)
            continue
        # transformers stores the best checkpoint by its absolute path; the folder may have moved.
        state = read_json(path / _STATE) or {}
        best = state.get(_BEST)
        if best is not None and Path(best) != folder / Path(best).name:
            write_json(path / _STATE, {**state, _BEST: str(folder / Path(best).name)})
    write_json(folder / _MARK, {"key": key})


def _is_whole(checkpoint: Path) -> bool:
    return read_json(checkpoint / _STATE) is not None
