"""Run one task in several processes at once, so that all cores are busy while it is timed."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from threading import BrokenBarrierError
from typing import Any, Concatenate, ParamSpec, TypeVar

from cascadebert_build.errors import CheckFailed

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")

# The barrier and the counter of this process. They can only be given to a process that starts.
_shared: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Worker:
    """One process of `run_in_parallel`, with its number from 0."""

    index: int

    def wait(self) -> None:
        """Wait until every process has reached this point."""
        _shared["barrier"].wait()

    def next(self) -> int:
        """Return 0, 1, 2, …: each number in one process."""
        with _shared["counter"].get_lock():
            number: int = _shared["counter"].value
            _shared["counter"].value = number + 1
            return number


def run_in_parallel(
    processes: int,
    timeout_s: float,
    task: Callable[Concatenate[Worker, ParamsT], ResultT],
    *arguments: ParamsT.args,
    **options: ParamsT.kwargs,
) -> list[ResultT]:
    """Run a module's function in new processes, once in each, and wait for all of them.

    Args:
        processes: The number of processes.
        timeout_s: The time for all of it. The processes are killed afterwards.
        task: The function. It gets a `Worker`, then the arguments.
        *arguments: Arguments of `task`.
        **options: Keyword arguments of `task`.

    Returns:
        The result of each process.

    Raises:
        CheckFailed: A process failed, died or hung.
    """
    context = get_context("spawn")  # a fork would inherit the locks of threads
    shared = (context.Barrier(processes, timeout=timeout_s), context.Value("q", 0))
    others = set(active_children())
    with ProcessPoolExecutor(processes, context, _share, shared) as pool:
        futures = [pool.submit(_work, i, task, arguments, options) for i in range(processes)]
        if wait(futures, timeout_s).not_done:
            for process in set(active_children()) - others:
                process.kill()  # the pool is broken then, and so is what its futures hold
        failures = [failure for of in futures if (failure := of.exception()) is not None]
    if failures:
        # A process that only waited for the failed one does not know the cause.
        causes = [of for of in failures if not isinstance(of, BrokenBarrierError)] or failures
        raise CheckFailed(f"a process of {processes} failed: {causes[0]!r}") from causes[0]
    return [of.result() for of in futures]


def _share(barrier: Any, counter: Any) -> None:
    _shared.update(barrier=barrier, counter=counter)


def _work(index: int, task: Callable[..., Any], arguments: Any, options: Any) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as in the served cascade
    worker = Worker(index)
    worker.wait()  # so no process takes two tasks
    try:
        return task(worker, *arguments, **options)
    except BaseException:
        _shared["barrier"].abort()
        raise
