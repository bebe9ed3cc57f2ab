"""The memory of a server and of its stubs, over time."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.tools.memory import Memory, memory_of


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
