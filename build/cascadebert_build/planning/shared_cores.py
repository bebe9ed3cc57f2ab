"""Cores that tasks share, as an operating system shares them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import simpy

_DONE_S = 1e-12  # rounding errors of a task's work


@dataclass(slots=True, eq=False)
class _Task:
    left_s: float
    weight: float
    done: simpy.Event


class _Core:
    """One core: its tasks get shares of it by their weights."""

    def __init__(self, cores: SharedCores, env: simpy.Environment) -> None:
        self.tasks: list[_Task] = []
        self._cores, self._env = cores, env
        self._looked_s = 0.0
        self._plan = 0

    def take(self, task: _Task) -> None:
        self._advance()
        self.tasks.append(task)
        self._look()

    def _advance(self) -> None:
        """Take the time since the last look off the tasks' work."""
        passed_s = self._env.now - self._looked_s
        self._looked_s = self._env.now
        if not self.tasks:
            return
        self._cores.busy_s += passed_s
        unit_s = passed_s / sum(task.weight for task in self.tasks)
        for task in self.tasks:
            task.left_s -= unit_s * task.weight

    def _look(self) -> None:
        """End tasks that are done, and plan the next look."""
        ended = [task for task in self.tasks if task.left_s <= _DONE_S]
        if ended:
            self.tasks = [task for task in self.tasks if task.left_s > _DONE_S]
            for task in ended:
                task.done.succeed()
        self._plan += 1
        if not self.tasks:
            return
        weights = sum(task.weight for task in self.tasks)
        next_s = min(task.left_s * weights / task.weight for task in self.tasks)
        timer = self._env.timeout(max(next_s, _DONE_S), self._plan)
        assert timer.callbacks is not None
        timer.callbacks.append(self._wake)

    def _wake(self, timer: simpy.Event) -> None:
        if timer.value == self._plan:  # otherwise another look has made a new plan
            self._advance()
            self._look()


class SharedCores:
    """The cores of one machine.

    As in Linux, a task begins on an idle core, or shares one if none is idle. It stays there: Linux
    moves tasks too, but seldom in the milliseconds of a call. Tasks that moved to each core that
    falls idle were further from the real server's latencies.

    Attributes:
        busy_s: Core-seconds that were used.
    """

    def __init__(self, env: simpy.Environment, cores: int) -> None:
        """Start idle.

        Args:
            env: The simulation.
            cores: How many.
        """
        self._env = env
        self._cores = [_Core(self, env) for _ in range(cores)]
        self._random = random.Random(0)
        self.busy_s = 0.0

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return self._env.now

    def run(self, work_s: float, *, weight: float = 1.0, threads: int = 1) -> simpy.Event:
        """Start a task and return the event of its end.

        Args:
            work_s: Core-seconds.
            weight: Its share of a core beside others'; see `weight_of_niceness`.
            threads: They divide the work evenly.
        """
        if work_s <= 0:
            return self._env.event().succeed()
        events: list[simpy.Event] = []
        for _ in range(threads):
            idle = [core for core in self._cores if not core.tasks]
            events.append(self._env.event())
            core = self._random.choice(idle or self._cores)
            core.take(_Task(work_s / threads, weight, events[-1]))
        return events[0] if threads == 1 else self._env.all_of(events)


def weight_of_niceness(niceness: int) -> float:
    """Return a task's weight: each step of niceness is a factor of 1.25 (sched(7))."""
    return 1.25**-niceness
