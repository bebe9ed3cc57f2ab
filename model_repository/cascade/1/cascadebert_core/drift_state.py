"""The memory of broken guarantees: files that instances of a cascade, and its restarts, share."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

STATE_FOLDER = "state"
# Another folder than the model's own, which may be read-only.
STATE_VARIABLE = "CASCADEBERT_STATE_DIR"
_ENDING = ".json"


class DriftState:
    """The broken guarantees of one policy: a file for each operating point, which instances share.

    Attributes:
        folder: The folder of the files. It need not exist.
    """

    def __init__(self, folder: Path) -> None:
        """Read nothing yet."""
        self.folder = folder

    def points(self) -> frozenset[str]:
        """Return the broken operating points.

        Raises:
            FileNotFoundError: There is no folder: nothing was ever written, or it has gone.
            OSError: The folder cannot be read.
        """
        names = [path.name for path in self.folder.iterdir()]
        return frozenset(unquote(name.removesuffix(_ENDING)) for name in names if _is_ours(name))

    def evidence(self, point: str) -> dict[str, Any]:
        """Return what a point's file says; empty if it cannot be read: its name is enough."""
        try:
            found = json.loads(self._path(point).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def add(self, point: str, evidence: Mapping[str, Any]) -> bool:
        """Write that a point is broken; return whether it could be written."""
        path = self._path(point)
        # Each process writes a file of its own and renames it, so that no reader sees half of one.
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(evidence, indent=1), encoding="utf-8")
            part.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            return False
        return True

    def remove(self, point: str) -> bool:
        """Remove a point's file, as an operator does; return whether there was one.

        Raises:
            OSError: It cannot be removed.
        """
        try:
            self._path(point).unlink()
        except FileNotFoundError:
            return False
        return True

    def _path(self, point: str) -> Path:
        return self.folder / f"{quote(point, safe='')}{_ENDING}"


def _is_ours(name: str) -> bool:
    return name.endswith(_ENDING) and not name.startswith(".")


def state_folder(model_folder: Path, policy_id: str) -> Path:
    """Return the folder of a policy's broken guarantees.

    Args:
        model_folder: The cascade's folder in the model repository.
        policy_id: The id of the policy. A new policy is a new promise, and starts without any.
    """
    base = os.environ.get(STATE_VARIABLE)
    folder = Path(base) / model_folder.name if base else model_folder / STATE_FOLDER
    return folder / policy_id[:16]
