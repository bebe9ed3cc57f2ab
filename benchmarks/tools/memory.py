"""The memory of a server and of its stubs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from cascadebert_supervisor.stubs import regions_of, stubs_of

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory at one moment, in bytes.

    Attributes:
        at_s: The moment, on the clock of `time.monotonic`.
        resident: Memory without shared memory, by process: "server", or the model's name and a
            number.
        proportional: Pss by process: shared pages are divided among the processes that share them.
        shared: Memory in /dev/shm that this server uses.
    """

    at_s: float
    resident: dict[str, int]
    proportional: dict[str, int]
    shared: int

    @property
    def total(self) -> int:
        """The resident memory of all processes."""
        return sum(self.resident.values())


def memory_of(server_pid: int) -> Memory:
    """Return the memory of a server and its stubs now."""
    processes = {"server": server_pid}
    for stub in stubs_of(server_pid):
        if stub.model is not None:
            number = sum(name.startswith(f"{stub.model} ") for name in processes)
            processes[f"{stub.model} {number}"] = stub.pid
    status = {name: _sizes(pid, "status") for name, pid in processes.items()}
    rolled = {name: _sizes(pid, "smaps_rollup") for name, pid in processes.items()}
    return Memory(
        at_s=time.monotonic(),
        # A process that has just ended has no sizes.
        resident={n: s["RssAnon"] + s["RssFile"] for n, s in status.items() if "RssAnon" in s},
        proportional={name: sizes["Pss"] for name, sizes in rolled.items() if "Pss" in sizes},
        shared=sum(_allocated(region) for region in regions_of(server_pid)),
    )


def _sizes(pid: int, file: str) -> dict[str, int]:
    """Return the lines of a file of /proc/<pid> that end in kB, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(kib) * _KIB for name, kib, _ in fields}


def _allocated(region: Path) -> int:
    try:
        return region.stat().st_blocks * 512
    except OSError:
        return 0
