"""The memory of a server and of its stubs, over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cascadebert_build.stubs import regions_of, stubs_of

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """At one moment, in bytes.

    Attributes:
        at_s: of `time.monotonic`.
        resident: without shared memory, by process: "server", or the model's name and its number.
        proportional: Pss, likewise: shared pages are divided among those who share them.
        shared: in use in /dev/shm by this server.
    """

    at_s: float
    resident: dict[str, int]
    proportional: dict[str, int]
    shared: int

    @property
    def total(self) -> int:
        """Resident memory of all processes."""
        return sum(self.resident.values())


def memory_of(server_pid: int) -> Memory:
    """The memory of a server and its stubs now."""
    processes = {"server": server_pid}
    for stub in stubs_of(server_pid):
        if stub.model is not None:
            number = sum(name.startswith(f"{stub.model} ") for name in processes)
            processes[f"{stub.model} {number}"] = stub.pid
    status = {name: _sizes(pid, "status") for name, pid in processes.items()}
    rolled = {name: _sizes(pid, "smaps_rollup") for name, pid in processes.items()}
    return Memory(
        at_s=time.monotonic(),
        # A process that has just ended has none.
        resident={n: s["RssAnon"] + s["RssFile"] for n, s in status.items() if "RssAnon" in s},
        proportional={name: sizes["Pss"] for name, sizes in rolled.items() if "Pss" in sizes},
        shared=sum(_allocated(region) for region in regions_of(server_pid)),
    )


@dataclass
class MemoryLog:
    """Samples in the order of time."""

    samples: list[Memory] = field(default_factory=list[Memory])

    def between(self, start_s: float, end_s: float = float("inf")) -> list[Memory]:
        """The samples of a span of time."""
        return [sample for sample in self.samples if start_s <= sample.at_s < end_s]

    def growth(self, start_s: float) -> float:
        """Relative growth of the total after `start_s`: last tenth to first tenth, by medians."""
        totals = [sample.total for sample in self.between(start_s)]
        tenth = max(1, len(totals) // 10)
        first, last = sorted(totals[:tenth])[tenth // 2], sorted(totals[-tenth:])[tenth // 2]
        return last / first - 1


@contextmanager
def memory_log(server_pid: int, every_s: float = 1.0) -> Generator[MemoryLog, None, None]:
    """Samples the memory until the block ends."""
    log = MemoryLog()
    stopped = threading.Event()

    def run() -> None:
        while True:
            log.samples.append(memory_of(server_pid))
            if stopped.wait(every_s):
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield log
    finally:
        stopped.set()
        thread.join()


def _sizes(pid: int, file: str) -> dict[str, int]:
    """The lines of a file of /proc/<pid> that end in kB, in bytes."""
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
