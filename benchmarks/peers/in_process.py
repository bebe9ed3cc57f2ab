"""The cascade as a loop in a Python process of its own: no server, no network, no queue.

The process calls `PythonCascade.answers` with the next n texts, again and again. This is the best
case for a cascade in Python: its batches are always full and no request waits. n corresponds to the
concurrency of a server that gathers n requests.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cascadebert_build.errors import UsageError
from cascadebert_core.tokenization import Text

from ..tools.latency import Latency, latency_of
from .parallel import Worker, run_in_parallel
from .python_cascade import ONNXRUNTIME, Answer, cascade_from_repository

_WARM_UP_CALLS = 3
# Loading the members and one slow call may take this much longer than the time measured.
_GRACE_S = 180.0
# Arguments of `cascade_from_repository`.
_Source = tuple[Path, str, str, int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class InProcess:
    """The figures of a cascade in a Python process.

    Attributes:
        runtime: The runtime of the members.
        threads: The threads of the runtime.
        rows: The rows of one call.
        calls: The calls that were measured.
        rows_per_s: The throughput.
        all: The latencies of the calls. Each call answers its rows together.
        deferred_share: The share of the rows that were deferred.
    """

    runtime: str
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
    threads: int = 1,
    checkpoints: Sequence[str] = (),
) -> InProcess:
    """Call the cascade with `rows` texts at a time.

    Args:
        repository: The model repository.
        cascade: The name of the cascade.
        texts: Sent in turn, again and again.
        rows: The rows of one call.
        seconds: The time to measure. The last call may end later.
        runtime: One of `python_cascade.RUNTIMES`.
        threads: The threads of the runtime.
        checkpoints: For PyTorch, see `cascade_from_repository`.

    Raises:
        UsageError: There are no texts, or `rows` is less than 1.
        CheckFailed: The process failed.
    """
    if not texts or rows < 1:
        raise UsageError(f"{rows} rows a call of {len(texts)} texts: give one or more of both")
    source = (repository, cascade, runtime, threads, tuple(checkpoints))
    ((taken_ms, deferred),) = run_in_parallel(
        1, seconds + _GRACE_S, _calls, source, list(texts), rows, seconds
    )
    n_rows = rows * len(taken_ms)
    return InProcess(
        runtime=runtime,
        threads=threads,
        rows=rows,
        calls=len(taken_ms),
        rows_per_s=1000 * n_rows / sum(taken_ms),
        all=latency_of(taken_ms),
        deferred_share=deferred / n_rows,
    )


def answers_in_process(
    repository: Path,
    cascade: str,
    texts: Sequence[Text],
    *,
    runtime: str = ONNXRUNTIME,
    checkpoints: Sequence[str] = (),
) -> list[Answer]:
    """Return the answers of such a process. For arguments and errors see `measure_in_process`."""
    source = (repository, cascade, runtime, 1, tuple(checkpoints))
    (answers,) = run_in_parallel(1, _GRACE_S, _answers, source, list(texts))
    return answers


def _answers(worker: Worker, source: _Source, texts: list[Text]) -> list[Answer]:
    return cascade_from_repository(*source).answers(texts)


def _calls(
    worker: Worker, source: _Source, texts: list[Text], rows: int, seconds: float
) -> tuple[list[float], int]:
    """Return the times of all calls in ms, and the number of deferred rows."""
    cascade = cascade_from_repository(*source)
    at = 0

    def call() -> list[Answer]:
        nonlocal at
        part = [texts[(at + i) % len(texts)] for i in range(rows)]
        at += rows
        return cascade.answers(part)

    for _ in range(_WARM_UP_CALLS):
        call()
    taken_ms: list[float] = []
    deferred = 0
    end_s = time.perf_counter() + seconds
    while not taken_ms or time.perf_counter() < end_s:
        began_s = time.perf_counter()
        answers = call()
        taken_ms.append((time.perf_counter() - began_s) * 1000)
        deferred += sum(answer.exit_stage > 0 for answer in answers)
    return taken_ms, deferred
