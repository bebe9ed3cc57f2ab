"""Version folders of a model in a repository."""

from __future__ import annotations

import re
from pathlib import Path

_NUMBER = re.compile(r"[1-9][0-9]*")


def version_folders(model: Path) -> list[int]:
    """Numbers of a model's version folders, ascending."""
    if not model.is_dir():
        return []
    return sorted(
        int(path.name) for path in model.iterdir() if _NUMBER.fullmatch(path.name) and path.is_dir()
    )
