"""One task in several processes at once, so that all cores are busy while it is timed."""

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
class Together:
    """What the processes of one `run_together` share.

    Attributes:
        index: of this process, from 0.
        processes: how many there are.
    """

    index: int
    processes: int
    _barrier: Any
    _counter: Any
    _timeout_s: float

    def wait(self) -> None:
        """Go on once every process has come here."""
        self._barrier.wait(self._timeout_s)

    def next(self) -> int:
        """0, 1, 2, …: each number to one process."""
        with self._counter.get_lock():
            number: int = self._counter.value
            self._counter.value = number + 1
            return number

    def give_up(self) -> None:
        """Let nobody wait for this process."""
        self._barrier.abort()


def run_together(
    processes: int,
    timeout_s: float,
    task: Callable[Concatenate[Together, ParamsT], ResultT],
    *arguments: ParamsT.args,
    **options: ParamsT.kwargs,
) -> list[ResultT]:
    """Run a function of a module in new processes, and wait for all of them.

    Args:
        processes: how many, each with one run.
        timeout_s: for all of it; the processes are ended then.
        task: called with what they share, then the arguments.
        *arguments: of `task`.
        **options: of `task`.

    Returns:
        What each returned.

    Raises:
        CheckFailed: one of them failed, died or hung.
    """
    context = get_context("spawn")  # a fork would inherit threads' locks
    barrier, counter = context.Barrier(processes), context.Value("q", 0)
    deadline_s = time.monotonic() + timeout_s
    workers: list[tuple[Any, Any]] = []
    try:
        for index in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            together = Together(index, processes, barrier, counter, timeout_s)
            worker = context.Process(
                target=_work, args=(sender, task, together, arguments, options), daemon=True
            )
            worker.start()
            sender.close()  # now the end of the worker ends the pipe
            workers.append((worker, receiver))
        outcomes = [_outcome(worker, receiver, deadline_s) for worker, receiver in workers]
    finally:
        for worker, receiver in workers:
            worker.terminate()
            worker.join(_JOIN_S)
            receiver.close()
    failures = [outcome for outcome in outcomes if isinstance(outcome, _Failure)]
    if failures:
        # Those that waited for the one that failed have nothing to say.
        words = next((f.words for f in failures if not f.waited), failures[0].words)
        raise CheckFailed(f"a process of {processes} failed: {words}")
    return outcomes


@dataclass(frozen=True)
class _Failure:
    words: str
    waited: bool = False


def _outcome(worker: Any, receiver: Any, deadline_s: float) -> Any:
    try:
        if not receiver.poll(max(0.0, deadline_s - time.monotonic())):
            return _Failure("it did not end in time")
        outcome = receiver.recv()
        worker.join(_JOIN_S)  # what it holds of the system is given back only at its end
        return outcome
    except EOFError:
        worker.join(_JOIN_S)
        return _Failure(f"it ended with code {worker.exitcode}")


def _work(
    sender: Any, task: Callable[..., Any], together: Together, arguments: Any, options: Any
) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as the served cascade does
    try:
        outcome = task(together, *arguments, **options)
    except Exception as exc:  # noqa: BLE001 - it is raised in the process that waits
        together.give_up()
        waited = isinstance(exc, threading.BrokenBarrierError)
        outcome = _Failure(f"{type(exc).__name__}: {exc}", waited)
    sender.send(outcome)
