"""The process that listens on a port of this machine, read from /proc."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class PortHolder:
    """Who listens on a port.

    Attributes:
        user: The name of the user, or the number if it has none.
        pid: The process; None if only its user or root may know it.
        program: The name of its program; empty if unknown.
    """

    user: str
    pid: int | None = None
    program: str = ""

    def __str__(self) -> str:
        if self.pid is None:
            return f"a process of {self.user}"
        return f"{self.program or 'process'} (process {self.pid} of {self.user})"


def holder_of(port: int) -> PortHolder | None:
    """Return who listens on a TCP port; None if no process does, or if that is not known."""
    found = _listener(port)
    if found is None:
        return None
    uid, inode = found
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = f"user {uid}"
    pid = _process_with(f"socket:[{inode}]")
    return PortHolder(user) if pid is None else PortHolder(user, pid, _program(pid))


def _listener(port: int) -> tuple[int, int] | None:
    """The user and the inode of the socket that listens on a port."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            #   0: 0100007F:1F41 00000000:0000 0A 0…:0… 00:0… 00000000  1000  0 178553 …
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                return int(fields[7]), int(fields[9])
    return None


def _process_with(link: str) -> int | None:
    """The process that has this file open; the eldest, since children inherit sockets."""
    pids = sorted(int(each.name) for each in _PROC.iterdir() if each.name.isdecimal())
    for pid in pids:
        try:
            with os.scandir(_PROC / str(pid) / "fd") as files:
                if any(_target(Path(file)) == link for file in files):
                    return pid
        except OSError:  # another user's, or gone
            continue
    return None


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _program(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""
