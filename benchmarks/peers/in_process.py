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

from .cascade import ONNXRUNTIME, cascade_from_repository
from .together import Together, run_together

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
        p50_ms, p99_ms: of a call, which answers its rows together.
    """

    runtime: str
    processes: int
    threads: int
    rows: int
    calls: int
    rows_per_s: float
    p50_ms: float
    p99_ms: float


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
        _calls_ms,
        (repository, cascade, runtime, threads, tuple(checkpoints)),
        list(texts),
        rows,
        seconds,
    )
    calls_ms = np.concatenate(runs)
    p50, p99 = np.percentile(calls_ms, (50, 99))
    return InProcess(
        runtime=runtime,
        processes=processes,
        threads=threads,
        rows=rows,
        calls=len(calls_ms),
        rows_per_s=sum(rows * len(run) / (sum(run) / 1000) for run in runs),
        p50_ms=float(p50),
        p99_ms=float(p99),
    )


def _calls_ms(
    together: Together,
    source: tuple[Path, str, str, int, tuple[str, ...]],
    texts: list[Text],
    rows: int,
    seconds: float,
) -> list[float]:
    """The time of every call of one process."""
    cascade = cascade_from_repository(*source)
    at = together.index * len(texts) // together.processes

    def call() -> None:
        nonlocal at
        part = [texts[(at + i) % len(texts)] for i in range(rows)]
        at += rows
        cascade.answers(part)

    for _ in range(_WARM_UP_CALLS):
        call()
    together.wait()
    taken_ms: list[float] = []
    end_s = time.perf_counter() + seconds
    while not taken_ms or time.perf_counter() < end_s:
        began_s = time.perf_counter()
        call()
        taken_ms.append((time.perf_counter() - began_s) * 1000)
    return taken_ms
