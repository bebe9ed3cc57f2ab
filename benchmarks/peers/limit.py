"""The bare-runtime limit: how fast the members are with no server, no gate and no waiting.

The corpus is tokenised and its exits are found beforehand. The rows that reach a stage are grouped
by the policy's buckets. Every bucket is timed in ONNX Runtime at several batch sizes, with the
stage's own settings and one thread, in one process for each core. All processes run at the same
time, and none is pinned to a core. The best batch size of each bucket is then timed again, because
the best of many figures is too good: once with all processes busy and once with one alone.

The limit in rows per second is `processes / sum over stages of (share of the rows that reach it x
time of such a row on one busy core)`, the mean over the lengths of those rows. To check this sum,
the processes then share the calls of whole passes over the corpus, padded beforehand, each call at
its best batch size. The measured rows per second are reported beside the limit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.placement import cores
from cascadebert_build.errors import UsageError
from cascadebert_build.graphs.session import OnnxSession
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_core.batching import StageBatch, bucket_of, pad_rows
from cascadebert_core.policy import Policy
from cascadebert_core.tokenization import EncodedRow, Encoder, Text

from .parallel import Worker, run_in_parallel
from .python_cascade import cascade_from_repository, encoders_of_cascade, onnx_path

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
# The tokens of calls that are tried first; a call of one row may have more. Larger calls are tried
# only if the largest of these is the best, because they take seconds in a large member.
MOST_TOKENS = 2048
# The most tokens and rows of any call.
_MOST_TOKENS_EVER, _MOST_CALL_ROWS = 16384, 512
# Doubling the rows must gain this much before they are doubled again.
_GAIN = 1.01
_THREADS = 1
# This many rows of the corpus, evenly spaced, are enough to know the mix of lengths.
_MOST_ROWS = 1000
_CELL_S = 0.5
_ROUNDS = 3
_PASSES_S = 10.0
_TIMEOUT_S = 1800.0


@dataclass(slots=True)
class Bucket:
    """Rows of one bucket that reach a stage, and what was measured of them.

    Attributes:
        stage: The stage, 0-based.
        length: The padded length in tokens.
        rows: The rows with that stage's tokens.
        share: The share of all rows of the corpus.
        tried: Rows per second of all processes together, by batch size.
        row_ms: The time of a row on one core at the best batch size, while the others are busy.
        alone_ms: The same while the others are idle.
    """

    stage: int
    length: int
    rows: Sequence[EncodedRow]
    share: float
    tried: dict[int, float] = field(default_factory=dict[int, float])
    row_ms: float = 0.0
    alone_ms: float = 0.0

    @property
    def best_batch(self) -> int:
        """The best of the batch sizes that were tried."""
        return max(self.tried, key=self.tried.__getitem__)


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a stage: the padded rows."""

    stage: int
    batch: StageBatch

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.batch.shape[0]


@dataclass(frozen=True, slots=True)
class BucketLimit:
    """The rows of one bucket that reach a stage.

    Attributes:
        length: The length in tokens.
        share: The share of all rows of the corpus.
        tried: Rows per second of all processes together, by batch size.
        best_batch: The best batch size.
        row_ms: The time of a row on one core at the best batch size, while the others are busy.
        row_alone_ms: The same while the others are idle.
    """

    length: int
    share: float
    tried: dict[int, float]
    best_batch: int
    row_ms: float
    row_alone_ms: float


@dataclass(frozen=True, slots=True)
class StageLimit:
    """One stage.

    Attributes:
        model: The name of its model.
        share: The share of all rows that reach it.
        row_ms: The mean over the rows that reach it, see `BucketLimit`.
        row_alone_ms: The mean over the rows that reach it, see `BucketLimit`.
        buckets: The buckets, ascending.
    """

    model: str
    share: float
    row_ms: float
    row_alone_ms: float
    buckets: tuple[BucketLimit, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of a cascade on this machine.

    Attributes:
        cascade: The name of the cascade.
        policy: The id of its policy.
        rows: The rows of the corpus that were used.
        processes: The processes, one for each core.
        threads: The threads of ONNX Runtime in each.
        stages: The stages, small to large.
        rows_per_s: The limit.
        alone_rows_per_s: The same sum for one process that has the machine to itself.
        scaling: The first over the second.
        measured_rows_per_s: The throughput of the passes over the corpus.
        measured_s: The time of these passes.
        passes: The number of passes.
    """

    cascade: str
    policy: str
    rows: int
    processes: int
    threads: int
    stages: tuple[StageLimit, ...]
    rows_per_s: float
    alone_rows_per_s: float
    scaling: float
    measured_rows_per_s: float
    measured_s: float
    passes: int


def measure_limit(
    repository: Path,
    cascade: str,
    texts: Sequence[Text],
    *,
    seconds: float = _PASSES_S,
    cell_s: float = _CELL_S,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    most_rows: int = _MOST_ROWS,
) -> Limit:
    """Measure the limit of a published cascade at its default operating point.

    Args:
        repository: A model repository whose stages are ONNX files.
        cascade: The name of the cascade.
        texts: The corpus.
        seconds: The time for the passes over the corpus. At least one is made.
        cell_s: The time for one bucket at one batch size. At least one call is made.
        batch_sizes: The batch sizes to try.
        most_rows: At most this many rows of the corpus are used, evenly spaced.

    Raises:
        UsageError: There is no such cascade, no text, or the texts are pairs and the task has none.
        CheckFailed: A member cannot be loaded, or a process failed.
    """
    policy = ModelRepository.read(repository).cascade(cascade).policy()
    if not texts or (policy.pair is not None and policy.pair != isinstance(texts[0], tuple)):
        wanted = "pairs of texts" if policy.pair else "single texts"
        raise UsageError(f"{len(texts)} rows: {cascade} needs one or more, {wanted}")
    n_rows = min(len(texts), most_rows)
    chosen: list[Text] = [texts[i * len(texts) // n_rows] for i in range(n_rows)]
    exits = cascade_from_repository(repository, cascade).exit_stages(chosen)
    encoders = encoders_of_cascade(repository, cascade)
    buckets = buckets_of_rows(policy, encoders, chosen, exits)
    calls = _Calls(policy, [encoder.pad_id for encoder in encoders])
    paths = [onnx_path(repository, policy, i) for i in range(len(policy.stages))]
    _try_sizes(buckets, calls, paths, cell_s, batch_sizes)
    _time_rows(buckets, calls, paths, cell_s)
    stages = stage_limits(policy, buckets)
    limit = rows_per_s(stages, cores())
    alone = 1000 / sum(stage.share * stage.row_alone_ms for stage in stages)
    passes = max(1, round(seconds * limit / len(chosen)))
    # The most expensive calls come first, so that none is left over at the end.
    corpus = [(call.rows * of.row_ms, call) for of in buckets for call in calls.of_all_rows(of)]
    corpus.sort(key=lambda cost_and_call: cost_and_call[0], reverse=True)
    measured_s = _passes_s(paths, [call for _, call in corpus], passes)
    return Limit(
        cascade=cascade,
        policy=policy.id,
        rows=len(chosen),
        processes=cores(),
        threads=_THREADS,
        stages=stages,
        rows_per_s=limit,
        alone_rows_per_s=alone,
        scaling=limit / alone,
        measured_rows_per_s=passes * len(chosen) / measured_s,
        measured_s=measured_s,
        passes=passes,
    )


def buckets_of_rows(
    policy: Policy, encoders: Sequence[Encoder], texts: Sequence[Text], exits: NDArray[np.int32]
) -> list[Bucket]:
    """Return the rows that reach every stage, by bucket.

    Args:
        policy: The policy with the buckets.
        encoders: The encoder of every stage.
        texts: The n rows.
        exits: The stage that answers each row, shape (n,).
    """
    found: list[Bucket] = []
    for index, stage in enumerate(policy.stages):
        reaching = [text for text, at in zip(texts, exits, strict=True) if at >= index]
        encoded = encoders[index].encode(reaching)
        for length in stage.buckets:
            rows = [row for row in encoded if bucket_of(len(row), stage.buckets) == length]
            if rows:
                found.append(Bucket(index, length, rows, len(rows) / len(texts)))
    return found


def sizes_of_length(length: int, sizes: Sequence[int]) -> list[int]:
    """Return the batch sizes to try with rows of this length: the smallest, and those that fit."""
    smallest, *others = sorted(sizes)
    return [smallest, *(size for size in others if size * length <= MOST_TOKENS)]


def next_size(length: int, tried: Mapping[int, float]) -> int | None:
    """Return a larger batch size to try if the largest one was clearly the best, else None.

    Args:
        length: The length of the rows in tokens.
        tried: Rows per second, by batch size.
    """
    largest = max(tried)
    others = [rate for size, rate in tried.items() if size != largest]
    size = 2 * largest
    if size * length > _MOST_TOKENS_EVER or size > _MOST_CALL_ROWS:
        return None
    return size if all(tried[largest] > _GAIN * rate for rate in others) else None


def stage_limits(policy: Policy, buckets: Sequence[Bucket]) -> tuple[StageLimit, ...]:
    """Return the time of a row at every stage that rows reach."""
    stages: list[StageLimit] = []
    for index, stage in enumerate(policy.stages):
        own = [of for of in buckets if of.stage == index]
        share = sum(of.share for of in own)
        if own:
            stages.append(
                StageLimit(
                    model=stage.model,
                    share=share,
                    row_ms=sum(of.share * of.row_ms for of in own) / share,
                    row_alone_ms=sum(of.share * of.alone_ms for of in own) / share,
                    buckets=tuple(
                        BucketLimit(
                            of.length, of.share, of.tried, of.best_batch, of.row_ms, of.alone_ms
                        )
                        for of in own
                    ),
                )
            )
    return tuple(stages)


def rows_per_s(stages: Sequence[StageLimit], processes: int) -> float:
    """Return the limit: a row costs every stage's time, times the share of rows that reach it."""
    return 1000 * processes / sum(stage.share * stage.row_ms for stage in stages)


@dataclass(frozen=True, slots=True)
class _Calls:
    """Makes calls of the rows of buckets."""

    policy: Policy
    pad_ids: Sequence[int]

    def of_size(self, of: Bucket, size: int) -> Call:
        """Return a call of this many rows, which are repeated if the bucket has fewer."""
        return self._call(of, [of.rows[i % len(of.rows)] for i in range(size)])

    def of_all_rows(self, of: Bucket) -> list[Call]:
        """Return calls of all rows, in equal parts up to the best batch size."""
        n = len(of.rows)
        parts = np.array_split(np.arange(n), ceil(n / of.best_batch))
        return [self._call(of, [of.rows[i] for i in part]) for part in parts]

    def _call(self, of: Bucket, rows: Sequence[EncodedRow]) -> Call:
        inputs = self.policy.stages[of.stage].inputs
        # With its length as the only bucket, rows are padded to it.
        return Call(of.stage, pad_rows(rows, inputs, (of.length,), self.pad_ids[of.stage]))


def _try_sizes(
    buckets: Sequence[Bucket],
    calls: _Calls,
    paths: Sequence[Path],
    cell_s: float,
    batch_sizes: Sequence[int],
) -> None:
    """Fill `tried` of every bucket, with all cores repeating the same call at the same time."""
    trials = [(of, size) for of in buckets for size in sizes_of_length(of.length, batch_sizes)]
    while trials:
        made = [calls.of_size(*trial) for trial in trials]
        runs = run_in_parallel(cores(), _TIMEOUT_S, _try_calls, list(paths), made, cell_s)
        for (of, size), rates in zip(trials, zip(*runs, strict=True), strict=True):
            of.tried[size] = float(sum(rates))
        larger = [(of, next_size(of.length, of.tried)) for of in buckets]
        trials = [(of, size) for of, size in larger if size is not None]


def _try_calls(worker: Worker, paths: list[Path], calls: list[Call], cell_s: float) -> list[float]:
    runner = _Runner(paths)
    rates: list[float] = []
    for call in calls:
        runner.run(call)  # the first call of a shape plans its memory
        worker.wait()
        rates.append(runner.rate(call, cell_s))
    return rates


def _time_rows(
    buckets: Sequence[Bucket], calls: _Calls, paths: Sequence[Path], cell_s: float
) -> None:
    """Fill the times of a row in every bucket, medians over some rounds of all buckets."""
    made = [calls.of_size(of, of.best_batch) for of in buckets]
    runs = run_in_parallel(cores(), _TIMEOUT_S, _time_calls, list(paths), made, cell_s)
    # (processes, calls, rounds, busy or alone). Only the first process was alone.
    rates = np.median(np.array(runs).sum(axis=0), axis=1)
    for of, (busy, alone) in zip(buckets, rates, strict=True):
        of.row_ms, of.alone_ms = float(1000 * cores() / busy), float(1000 / alone)


def _time_calls(
    worker: Worker, paths: list[Path], calls: list[Call], cell_s: float
) -> list[list[tuple[float, float]]]:
    """Return this process's rows per second in every call and round, busy and alone."""
    runner = _Runner(paths)
    rates: list[list[tuple[float, float]]] = [[] for _ in calls]
    for _ in range(_ROUNDS):
        for call, of_call in zip(calls, rates, strict=True):
            runner.run(call)
            worker.wait()
            busy = runner.rate(call, cell_s)
            worker.wait()
            of_call.append((busy, runner.rate(call, cell_s) if worker.index == 0 else 0.0))
            worker.wait()
    return rates


class _Runner:
    """The sessions of one process."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._sessions = [OnnxSession(path, _THREADS) for path in paths]

    def run(self, call: Call) -> None:
        self._sessions[call.stage].logits(call.batch)

    def rate(self, call: Call, at_least_s: float) -> float:
        """Return the rows per second of the call, repeated for some time."""
        began_s = time.perf_counter()
        rows = 0
        while not rows or time.perf_counter() - began_s < at_least_s:
            self.run(call)
            rows += call.rows
        return rows / (time.perf_counter() - began_s)


def _passes_s(paths: Sequence[Path], calls: Sequence[Call], passes: int) -> float:
    """Return the seconds that all cores take for some passes over the corpus."""
    runs = run_in_parallel(cores(), _TIMEOUT_S, _run_passes, list(paths), list(calls), passes)
    # The clock is the machine's, so times of different processes can be compared.
    return max(end for _, end in runs) - min(start for start, _ in runs)


def _run_passes(
    worker: Worker, paths: list[Path], calls: list[Call], passes: int
) -> tuple[float, float]:
    runner = _Runner(paths)
    largest: dict[int, Call] = {}
    for call in sorted(calls, key=lambda call: call.rows):
        largest[call.stage] = call
    for call in largest.values():
        runner.run(call)
    worker.wait()
    began_s = time.monotonic()
    while (number := worker.next()) < passes * len(calls):
        runner.run(calls[number % len(calls)])
    return began_s, time.monotonic()
