"""Disk space that a build or a training will take, estimated before it starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")  # transformers prefers the first
_HALF = {"float16", "bfloat16"}

# Of a training: the best checkpoint, the last one and the one that is being written, each with
# weights and AdamW's two moments; and the weights of the result.
_TRAINING_COPIES = 3 * 3 + 1


@dataclass(frozen=True, slots=True)
class Need:
    """Space that will be taken.

    Attributes:
        folder: Where; it need not exist.
        size: In bytes.
    """

    folder: Path
    size: int


def fp32_size(folder: Path, config: Mapping[str, object]) -> int:
    """Bytes of a checkpoint's weights in FP32, as its files tell; 0 if it has none.

    Args:
        folder: The checkpoint.
        config: The contents of its config.json.
    """
    for pattern in _WEIGHTS:
        size = sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())
        if size:
            half = str(config.get("dtype") or config.get("torch_dtype")) in _HALF
            return 2 * size if half else size
    return 0


def training_size(weights: int) -> int:
    """The most bytes that a training writes, from the bytes of its base's weights."""
    return _TRAINING_COPIES * weights


def check_space(needs: Sequence[Need], remedy: str) -> None:
    """Refuse what does not fit on the disk. Folders of one file system share its space.

    Args:
        needs: The space that will be taken.
        remedy: The end of the message.

    Raises:
        UsageError: A file system has less space than is needed.
    """
    by_device: dict[int, list[Need]] = {}
    for need in needs:
        by_device.setdefault(existing_parent(need.folder).stat().st_dev, []).append(need)
    for on_device in by_device.values():
        total = sum(need.size for need in on_device)
        free = shutil.disk_usage(existing_parent(on_device[0].folder)).free
        if total > free:
            where = " and ".join(str(need.folder) for need in on_device if need.size)
            raise UsageError(
                f"about {_gigabytes(total)} are needed in {where}, and {_gigabytes(free)} are free "
                f"there: {remedy}"
            )


def check_folder(path: Path, what: str) -> None:
    """Refuse a folder that cannot be made or written to.

    Args:
        path: The folder; it need not exist.
        what: What it is, for the message.

    Raises:
        UsageError: Something else is in its place, or the rights are missing.
    """
    parent = existing_parent(path)
    if not parent.is_dir():
        raise UsageError(f"{what} {path} cannot be written: {parent} is a file; give another path")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{what} {path} cannot be written: {parent} allows it to other users only")


def existing_parent(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
