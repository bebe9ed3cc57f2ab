"""The processes in which a server's python backend runs its models, as Linux shows them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PROGRAM = "triton_python_backend_stub"
_REGION = "/dev/shm/triton_python_backend_shm_region_"


@dataclass(frozen=True, slots=True)
class Stub:
    """One instance of a model.

    Attributes:
        pid: of the process.
        model: the model's name; None where the process died before anybody asked: it takes its
            name along.
        death: how it died; None while it runs, and where it ended in order.
    """

    pid: int
    model: str | None
    death: str | None = None


def stubs_of(server_pid: int) -> list[Stub]:
    """The stubs of a server; those that died too, since 2.51 does not collect them."""
    found = (_stub(pid) for pid in _children(server_pid))
    return [stub for stub in found if stub is not None]


def regions_of(pid: int) -> set[Path]:
    """The shared memory of the python backend that a process has mapped."""
    try:
        maps = (_PROC / str(pid) / "maps").read_text()
    except OSError:
        return set()
    # 7f0c…-7f0d… rw-s 00000000 00:1a 42    /dev/shm/triton_python_backend_shm_region_…
    paths = (Path(line.split(maxsplit=5)[5]) for line in maps.splitlines() if _REGION in line)
    # One that was unlinked already ends in " (deleted)".
    return {path for path in paths if not path.name.endswith(")")}


def remove_regions(regions: Iterable[Path]) -> None:
    """Give back the shared memory that a killed server has left behind."""
    for region in regions:
        region.unlink(missing_ok=True)


def _children(pid: int) -> list[int]:
    """Children of all threads of a process; the list of a thread that ends meanwhile is empty."""
    children: list[int] = []
    for thread in (_PROC / str(pid)).glob("task/*/children"):
        try:
            children += [int(child) for child in thread.read_text().split()]
        except OSError:
            continue
    return children


def _stub(pid: int) -> Stub | None:
    """The process as a stub; None where it is none, or gone."""
    folder = _PROC / str(pid)
    try:
        # pid (name) state …; the name is cut to 15 bytes and may hold anything.
        name, _, fields = (folder / "stat").read_text().partition("(")[2].rpartition(") ")
        if not _PROGRAM.startswith(name):
            return None
        if fields.startswith("Z"):
            return Stub(pid, None, _death(int(fields.split()[-1])))
        # stub, …/<model>/<version>/model.py, shared memory, …
        arguments = (folder / "cmdline").read_text().split("\0")
    except (OSError, ValueError):
        return None
    if len(arguments) < 2:  # between fork and exec, or between exit and zombie
        return None
    return Stub(pid, Path(arguments[1]).parent.parent.name)


def _death(status: int) -> str | None:
    """How a process ended, by its wait status; None for a good end."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}" if code else None
