"""Run one task in several processes at once, so that all cores are busy while it is timed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Concatenate, ParamSpec, TypeVar

from cascadebert_build.errors import CheckFailed

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")

_JOIN_S = 10.0


@dataclass(frozen=True)
class Worker:
    """What one process of `run_in_parallel` knows of the others.

    Attributes:
        index: The number of this process, from 0.
        processes: The number of processes.
    """

    index: int
    processes: int
    _barrier: Any
    _counter: Any
    _timeout_s: float

    def wait(self) -> None:
        """Wait until every process has reached this point."""
        self._barrier.wait(self._timeout_s)

    def next(self) -> int:
        """Return 0, 1, 2, …: each number in one process."""
        with self._counter.get_lock():
            number: int = self._counter.value
            self._counter.value = number + 1
            return number

    def abort(self) -> None:
        """Release the processes that wait for this one."""
        self._barrier.abort()


def run_in_parallel(
    processes: int,
    timeout_s: float,
    task: Callable[Concatenate[Worker, ParamsT], ResultT],
    *arguments: ParamsT.args,
    **options: ParamsT.kwargs,
) -> list[ResultT]:
    """Run a module's function in new processes, and wait for all of them.

    Args:
        processes: The number of processes. Each runs the function once.
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
    barrier, counter = context.Barrier(processes), context.Value("q", 0)
    deadline_s = time.monotonic() + timeout_s
    running: list[tuple[Any, Any]] = []
    try:
        for index in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            worker = Worker(index, processes, barrier, counter, timeout_s)
            process = context.Process(
                target=_work, args=(sender, task, worker, arguments, options), daemon=True
            )
            process.start()
            sender.close()  # now the pipe ends when the process ends
            running.append((process, receiver))
        outcomes = [_outcome(process, receiver, deadline_s) for process, receiver in running]
    finally:
        for process, receiver in running:
            process.terminate()
            process.join(_JOIN_S)
            receiver.close()
    failures = [outcome for outcome in outcomes if isinstance(outcome, _Failure)]
    if failures:
        # A process that only waited for the failed one does not know the cause.
        reason = next((f.reason for f in failures if not f.waited), failures[0].reason)
        raise CheckFailed(f"a process of {processes} failed: {reason}")
    return outcomes


@dataclass(frozen=True)
class _Failure:
    reason: str
    waited: bool = False


def _outcome(process: Any, receiver: Any, deadline_s: float) -> Any:
    try:
        if not receiver.poll(max(0.0, deadline_s - time.monotonic())):
            return _Failure("it did not end in time")
        outcome = receiver.recv()
        process.join(_JOIN_S)  # its resources are freed only at its end
        return outcome
    except EOFError:
        process.join(_JOIN_S)
        return _Failure(f"it ended with code {process.exitcode}")


def _work(
    sender: Any, task: Callable[..., Any], worker: Worker, arguments: Any, options: Any
) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as in the served cascade
    try:
        outcome = task(worker, *arguments, **options)
    except Exception as exc:  # noqa: BLE001 - it is raised in the process that waits
        worker.abort()
        waited = isinstance(exc, threading.BrokenBarrierError)
        outcome = _Failure(f"{type(exc).__name__}: {exc}", waited)
    sender.send(outcome)
