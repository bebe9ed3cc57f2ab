"""Temporary folders of embedded servers, and paths that the server can use."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from cascadebert_supervisor.leftovers import FOLDER_PREFIX

from ..errors import UsageError

# The python backend starts a stub with a shell command, in which it does not quote the paths. With
# a space in one, the stub takes a part of the path for a number and dies (`stol`).
_PLAIN = re.compile(r"[\w@%+=:,./-]+")


def is_plain(path: Path) -> bool:
    """Return whether a shell reads the path as one word, as it stands."""
    return _PLAIN.fullmatch(str(path)) is not None


def parents() -> list[Path]:
    """Return the folders that can hold the temporary folder of a server, the usual one first."""
    usual = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    return [path for path in dict.fromkeys(usual) if is_plain(path) and path.is_dir()]


def make_folder() -> Path:
    """Make a temporary folder for a server.

    Raises:
        UsageError: No folder for temporary files can be used.
    """
    reason = f"{tempfile.gettempdir()} has a space or another character that a shell would read"
    for parent in parents():
        try:
            return Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent)).resolve()
        except OSError as exc:
            reason = str(exc)
    raise UsageError(
        f"no folder for temporary files can be used ({reason}): set TMPDIR to a folder that can be "
        "written, with letters and digits in its path"
    )


def plain_path(path: Path, folder: Path) -> Path:
    """Return the path, or a symbolic link to it in `folder` if a shell would not read it as one.

    Args:
        path: An absolute path.
        folder: The temporary folder of a server.
    """
    if is_plain(path):
        return path
    link = folder / "repository"
    link.unlink(missing_ok=True)
    link.symlink_to(path, target_is_directory=True)
    return link
