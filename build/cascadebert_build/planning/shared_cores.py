"""Cores that tasks share, as an operating system shares them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import simpy

_DONE_S = 1e-12  # rounding errors of a task's work


def shares_of_cores(cores: float, weights: Sequence[float], most: Sequence[float]) -> list[float]:
    """Divide cores among tasks by their weights; no task gets more than it can use.

    Args:
        cores: What there is.
        weights: Of each task, above 0.
        most: The cores that each task can use.

    Returns:
        The cores of each task. They add up to `cores`, or to all that the tasks can use.
    """
    shares = list(most)
    if sum(most) <= cores:
        return shares
    open_tasks = list(range(len(weights)))
    left = cores
    while open_tasks:
        unit = left / sum(weights[i] for i in open_tasks)
        full = [i for i in open_tasks if weights[i] * unit >= most[i]]
        if not full:
            for i in open_tasks:
                shares[i] = weights[i] * unit
            break
        left -= sum(most[i] for i in full)
        open_tasks = [i for i in open_tasks if i not in full]
    return shares


@dataclass(slots=True, eq=False)
class _Task:
    left_s: float
    weight: float
    most: float
    done: simpy.Event
    share: float = 0.0


class SharedCores:
    """The cores of one machine. Tasks run at once, and slow each other down if there are many.

    Attributes:
        busy_s: Core-seconds that were used.
    """

    def __init__(self, env: simpy.Environment, cores: float) -> None:
        """Start idle.

        Args:
            env: The simulation.
            cores: How many.
        """
        self._env = env
        self._cores = cores
        self._tasks: list[_Task] = []
        self._looked_s = 0.0
        self._plan = 0
        self.busy_s = 0.0

    def run(self, work_s: float, *, weight: float = 1.0, most: float = 1.0) -> simpy.Event:
        """Start a task and return the event of its end.

        Args:
            work_s: Core-seconds.
            weight: Its share beside others'; see `weight_of_niceness`.
            most: The cores that it can use.
        """
        done = self._env.event()
        if work_s <= 0:
            return done.succeed()
        self._advance()
        self._tasks.append(_Task(work_s, weight, most, done))
        self._look()
        return done

    def _advance(self) -> None:
        """Take the time since the last look off the tasks' work."""
        passed_s = self._env.now - self._looked_s
        self._looked_s = self._env.now
        for task in self._tasks:
            task.left_s -= passed_s * task.share
            self.busy_s += passed_s * task.share

    def _look(self) -> None:
        """End tasks that are done, share the cores among the others, and plan the next look."""
        ended = [task for task in self._tasks if task.left_s <= _DONE_S]
        if ended:
            self._tasks = [task for task in self._tasks if task.left_s > _DONE_S]
            for task in ended:
                task.done.succeed()
        self._plan += 1
        if not self._tasks:
            return
        shares = shares_of_cores(
            self._cores, [t.weight for t in self._tasks], [t.most for t in self._tasks]
        )
        next_s = math.inf
        for task, share in zip(self._tasks, shares, strict=True):
            task.share = share
            next_s = min(next_s, task.left_s / share)
        timer = self._env.timeout(next_s, self._plan)
        assert timer.callbacks is not None
        timer.callbacks.append(self._wake)

    def _wake(self, timer: simpy.Event) -> None:
        if timer.value == self._plan:  # otherwise another look has made a new plan
            self._advance()
            self._look()


def weight_of_niceness(niceness: int) -> float:
    """Return a task's weight: each step of niceness is a factor of 1.25 (sched(7))."""
    return 1.25**-niceness
