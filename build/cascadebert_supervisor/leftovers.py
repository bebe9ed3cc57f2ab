"""What a server leaves behind if the program that started it was killed, and its removal.

A killed program cannot stop its server. The processes go on and hold the ports; their shared memory
and temporary files stay. Each embedded server has a temporary folder, whose path is among the
arguments of all its processes. That is how they are found, however little else is known.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .stubs import PROGRAM, regions_of, remove_regions

FOLDER_PREFIX = "cascadebert-serve-"

_PROC = Path("/proc")
_OWNER = "owner"  # a file: the process that started the server
_REGIONS = "regions"  # a file: the shared memory that was seen, a path a line
_BACKENDS = "backends"
_GONE_S = 10.0  # a killed process ends as soon as the kernel gets to it


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed.

    Attributes:
        folder: The temporary folder of the server.
        processes: How many processes were killed.
        regions: How many regions of shared memory were freed.
    """

    folder: Path
    processes: int
    regions: int

    def __str__(self) -> str:
        return (
            f"{self.folder} of a server whose `serve` was killed: {self.processes} processes and "
            f"{self.regions} regions of shared memory"
        )


def backends_of(folder: Path) -> Path:
    """Return where a server's backends lie in its temporary folder."""
    return folder / _BACKENDS


def claim(folder: Path) -> None:
    """Write down that this process owns the folder."""
    # Renamed into place: another start may be looking at this moment.
    written = folder / f"{_OWNER}.new"
    written.write_text(f"{_namespace()}\n{_identity(os.getpid())}", encoding="utf-8")
    written.replace(folder / _OWNER)


def release(folder: Path) -> None:
    """Give the folder up: its server was stopped, and what still lies there is to be read."""
    for name in (_OWNER, _REGIONS):
        (folder / name).unlink(missing_ok=True)


def remember_regions(folder: Path, regions: Iterable[Path]) -> None:
    """Write down the shared memory of the folder's server, in case no other process can."""
    lines = "".join(f"{region}\n" for region in sorted(regions))
    with contextlib.suppress(OSError):  # a full disk must not end a server
        (folder / _REGIONS).write_text(lines, encoding="utf-8")


def is_abandoned(folder: Path) -> bool:
    """Return whether the process that owned the folder is gone; False if it never had one."""
    try:
        namespace, _, owner = (folder / _OWNER).read_text(encoding="utf-8").partition("\n")
        is_ours = folder.stat().st_uid == os.getuid()
    except OSError:
        return False
    pid = owner.partition(" ")[0]
    # The processes of another container that shares the folder cannot be seen from here.
    can_tell = is_ours and namespace == _namespace() and pid.isdecimal()
    return can_tell and owner != _identity(int(pid))


def remove_abandoned(parents: Iterable[Path]) -> list[Removed]:
    """Remove what killed programs left behind.

    Args:
        parents: The folders in which servers have their temporary folders.
    """
    folders = [folder for parent in parents for folder in parent.glob(f"{FOLDER_PREFIX}*")]
    return [remove(folder) for folder in folders if is_abandoned(folder)]


def remove(folder: Path) -> Removed:
    """Kill the server of this folder, free its shared memory, and delete the folder."""
    processes = processes_of(folder)
    regions = _recorded_regions(folder).union(*(regions_of(pid) for pid in processes))
    for pid in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + _GONE_S
    while any(_runs(pid) for pid in processes) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    there = [region for region in regions if region.exists()]
    remove_regions(there)
    shutil.rmtree(folder, ignore_errors=True)
    return Removed(folder, len(processes), len(there))


def processes_of(folder: Path) -> list[int]:
    """Return the processes of a folder's server: tritonserver and its stubs."""
    backends = str(backends_of(folder))
    found: list[int] = []
    for each in _PROC.iterdir():
        if not each.name.isdecimal():
            continue
        try:
            arguments = (each / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended meanwhile
            continue
        # Not every process that names the folder: a user may read the log in it.
        is_server = f"--backend-directory={backends}" in arguments
        is_stub = Path(arguments[0]).name == PROGRAM and any(
            argument.startswith(f"{backends}/") for argument in arguments
        )
        if is_server or is_stub:
            found.append(int(each.name))
    return found


def _recorded_regions(folder: Path) -> set[Path]:
    try:
        lines = (folder / _REGIONS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {Path(line) for line in lines if line}


def _namespace() -> str:
    """The process namespace: the same numbers mean other processes in another one."""
    try:
        return str((_PROC / "self" / "ns" / "pid").readlink())
    except OSError:
        return ""


def _identity(pid: int) -> str | None:
    """A process by its number and the time of its start, since numbers are used again."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    is_dead = fields[0] in "ZX"
    return None if is_dead else f"{pid} {fields[19]}"


def _runs(pid: int) -> bool:
    return _identity(pid) is not None
