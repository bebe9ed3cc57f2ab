"""What workers do: tasks, each of which writes one file that says that it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

WORK = "_work"
"""The folder of what a run needs until it ends, inside its output folder."""

BLOCKS = f"{WORK}/blocks"


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work. The same task always writes the same file.

    Attributes:
        name: The file that it writes last, relative to the output folder. If it exists, the task is
            done.
        rows: The rows that it takes, for progress.
        what: What the worker needs to know.
    """

    name: str
    rows: int
    what: dict[str, Any] = field(default_factory=dict[str, Any])


Result = Mapping[str, Any]
"""What a task found out. It can be read from the task's file again."""


class Work(Protocol):
    """A kind of work. It travels to the workers, and must be small and picklable.

    Attributes:
        has_state: Whether `start` loads something that is worth keeping between tasks.
        output: The output folder.
    """

    has_state: ClassVar[bool]

    @property
    def output(self) -> str: ...  # noqa: D102 - an attribute

    def start(self) -> Callable[[Task], Result]:
        """Load what all tasks need, and return what does one."""
        ...


class Workers(Protocol):
    """Processes that do tasks.

    Attributes:
        number: How many.
    """

    number: int

    def run(self, work: Work, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield each task as it is done, in any order.

        Raises:
            BuildError: A task failed, or lost its worker too often.
        """
        ...


class OneProcess:
    """No workers: the tasks run here, one after the other."""

    number = 1

    def run(self, work: Work, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """See `Workers`."""
        if not tasks:
            return
        do = work.start()
        for task in tasks:
            yield task, do(task)


def block_name(file: int, block: int) -> str:
    """The name of a block of rows, which sorts as the rows lie."""
    return f"{file:05}-{block:06}"


def block_file(block: str) -> str:
    """The file with the rows of a block."""
    return f"{BLOCKS}/{block}.arrow"
