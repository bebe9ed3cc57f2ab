"""The cascade as a loop in Python processes: no server, no network, no queue.

Each process calls `PythonCascade.answers` with the next n texts, over and over. That is the best
case for a cascade in Python: its batches are always full, and nobody waits for them. n stands for
the concurrency of a server that would gather so many requests in each process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascadebert_build.errors import UsageError
from cascadebert_core.tokenization import Text

from ..tools.window import Latency, latency_of
from .parallel import Together, run_together
from .python_cascade import ONNXRUNTIME, Answer, cascade_from_repository

_WARM_UP_CALLS = 3
# What loading the members and one slow call may take beyond the time measured.
_GRACE_S = 180.0


@dataclass(frozen=True, slots=True)
class InProcess:
    """A cascade in a number of Python processes.

    Attributes:
        runtime: of the members.
        processes: each with the whole cascade.
        threads: of the runtime in each.
        rows: of one call.
        calls: how many were measured.
        rows_per_s: of all processes together.
        all: latencies of the calls, each of which answers its rows together.
        deferred_share: of the rows.
    """

    runtime: str
    processes: int
    threads: int
    rows: int
    calls: int
    rows_per_s: float
    all: Latency
    deferred_share: float


def measure_in_process(
    repository: Path,
    cascade: str,
    texts: Sequence[Text],
    *,
    rows: int,
    seconds: float,
    runtime: str = ONNXRUNTIME,
    processes: int = 1,
    threads: int = 1,
    checkpoints: Sequence[str] = (),
) -> InProcess:
    """Call the cascade with `rows` texts at a time.

    Args:
        repository: the model repository.
        cascade: its name there.
        texts: sent in turn, round and round; every process starts elsewhere in them.
        rows: of one call.
        seconds: to measure; the call that is under way then still counts.
        runtime: one of `cascade.RUNTIMES`.
        processes: at the same time.
        threads: of the runtime in each.
        checkpoints: for PyTorch, see `cascade_from_repository`.

    Raises:
        UsageError: there are no texts, or `rows` is less than 1.
        CheckFailed: a process failed.
    """
    if not texts or rows < 1:
        raise UsageError(f"{rows} rows a call of {len(texts)} texts: give one or more of both")
    runs = run_together(
        processes,
        seconds + _GRACE_S,
        _calls,
        (repository, cascade, runtime, threads, tuple(checkpoints)),
        list(texts),
        rows,
        seconds,
    )
    calls_ms = [taken_ms for taken_ms, _ in runs]
    n_calls = sum(map(len, calls_ms))
    return InProcess(
        runtime=runtime,
        processes=processes,
        threads=threads,
        rows=rows,
        calls=n_calls,
        rows_per_s=sum(rows * len(run) / (sum(run) / 1000) for run in calls_ms),
        all=latency_of(np.concatenate(calls_ms)),
        deferred_share=sum(deferred for _, deferred in runs) / (rows * n_calls),
    )


def answers_in_process(
    repository: Path,
    cascade: str,
    texts: Sequence[Text],
    *,
    runtime: str = ONNXRUNTIME,
    checkpoints: Sequence[str] = (),
) -> list[Answer]:
    """What such a process answers; arguments and errors as of `measure_in_process`."""
    source = (repository, cascade, runtime, 1, tuple(checkpoints))
    (answers,) = run_together(1, _GRACE_S, _answers, source, list(texts))
    return answers


def _answers(
    together: Together, source: tuple[Path, str, str, int, tuple[str, ...]], texts: list[Text]
) -> list[Answer]:
    together.wait()
    return cascade_from_repository(*source).answers(texts)


def _calls(
    together: Together,
    source: tuple[Path, str, str, int, tuple[str, ...]],
    texts: list[Text],
    rows: int,
    seconds: float,
) -> tuple[list[float], int]:
    """The time of every call of one process, in ms, and how many rows were deferred."""
    cascade = cascade_from_repository(*source)
    at = together.index * len(texts) // together.processes

    def call() -> list[Answer]:
        nonlocal at
        part = [texts[(at + i) % len(texts)] for i in range(rows)]
        at += rows
        return cascade.answers(part)

    for _ in range(_WARM_UP_CALLS):
        call()
    together.wait()
    taken_ms: list[float] = []
    deferred = 0
    end_s = time.perf_counter() + seconds
    while not taken_ms or time.perf_counter() < end_s:
        began_s = time.perf_counter()
        answers = call()
        taken_ms.append((time.perf_counter() - began_s) * 1000)
        deferred += sum(answer.exit_stage > 0 for answer in answers)
    return taken_ms, deferred
