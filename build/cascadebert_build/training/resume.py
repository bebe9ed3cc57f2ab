"""The folder of a training that is under way: its checkpoints, and whose they are.

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
    """Where the training of `output` keeps its checkpoints: beside it, absolute."""
    return output.resolve().with_name(f"{output.resolve().name}.partial")


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps among those that were written to the end."""
    steps = {
        int(step): path
        for path in folder.glob("checkpoint-*")
        if (step := path.name.partition("-")[2]).isdecimal() and _is_whole(path)
    }
    return steps[max(steps)] if steps else None


def interrupted_checkpoint(folder: Path, key: str) -> Path | None:
    """The checkpoint from which a training goes on; None where it begins. Changes nothing.

    Args:
        folder: of `partial_folder`.
        key: of the training that wants to go on.

    Raises:
        UsageError: the folder has another training's checkpoints, or other files.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise UsageError(f"{folder} is in the way of the checkpoints: give another output folder")
    mark = read_json(folder / _MARK)
    last = last_checkpoint(folder)
    if mark is None and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UsageError(
            f"{folder} has files, but not those of a training: move them away, or give another "
            "output folder"
        )
    if mark is not None and mark.get("key") != key and last is not None:
        raise UsageError(
            f"{folder} holds an interrupted training with other settings, data or versions: "
            "delete it, or give another output folder"
        )
    return last


def begin_partial(folder: Path, key: str) -> None:
    """Make the folder fit for the training: marked, and without checkpoints that are half there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("checkpoint-*"):
        if not _is_whole(path):
            shutil.rmtree(path)
            continue
        # transformers notes the best checkpoint with its whole path, and the folder may have moved.
        state = read_json(path / _STATE) or {}
        best = state.get(_BEST)
        if best is not None and Path(best) != folder / Path(best).name:
            write_json(path / _STATE, {**state, _BEST: str(folder / Path(best).name)})
    write_json(folder / _MARK, {"key": key})


def _is_whole(checkpoint: Path) -> bool:
    return read_json(checkpoint / _STATE) is not None
