"""The bare-runtime limit: how fast the members are with no server, no gate and no waiting.

The corpus is tokenised beforehand. All its rows go through every stage, grouped by the policy's
buckets. Every bucket is timed in ONNX Runtime at several batch sizes, with the stage's own settings
and one thread, in one process for each core. All processes run at the same time, and none is pinned
to a core. The best batch size of each bucket is then timed again, because the best of many figures
is too good: once with all processes busy and once with one alone.

The limit in rows per second is `processes / sum over stages of the time of a row on one busy core`,
the mean over the lengths of the rows. To check this sum, the processes then share the calls of
whole passes over the corpus, padded beforehand, each call at its best batch size.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from .python_cascade import encoders_of_cascade, onnx_paths

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
# The tokens of calls that are tried first; a call of one row may have more. Larger calls are tried
# only if the largest of these is the best, because they take seconds in a large member.
MOST_TOKENS = 2048
# The most tokens and rows of any call.
_MOST_TOKENS_EVER, _MOST_CALL_ROWS = 16384, 512
# Doubling the rows must gain this much before they are doubled again.
_GAIN = 1.01
_THREADS = 1
_ROUNDS = 3
_TIMEOUT_S = 1800.0

# A stage and the padded rows of one of its calls.
Call = tuple[int, StageBatch]


@dataclass(frozen=True, slots=True)
class BucketLimit:
    """The rows of one bucket in a stage.

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
    """One stage: the name of its model, and its buckets."""

    model: str
    buckets: tuple[BucketLimit, ...]

    @property
    def row_ms(self) -> float:
        """The mean over all rows."""
        return sum(of.share * of.row_ms for of in self.buckets)


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of a cascade on this machine.

    Attributes:
        rows: The rows of the corpus.
        processes: The processes, one for each core.
        threads: The threads of ONNX Runtime in each.
        stages: The stages, small to large.
        measured_rows_per_s: The throughput of passes over the corpus.
    """

    rows: int
    processes: int
    threads: int
    stages: tuple[StageLimit, ...]
    measured_rows_per_s: float

    @property
    def rows_per_s(self) -> float:
        """The limit if all rows go through all stages."""
        return 1000 * self.processes / sum(stage.row_ms for stage in self.stages)


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one stage and bucket, with their tokens, and how they are padded."""

    stage: int
    length: int
    rows: Sequence[EncodedRow]
    inputs: tuple[str, ...]
    pad_id: int

    def call(self, size: int) -> Call:
        """Return a call of this many rows, which are repeated if there are fewer."""
        return self._call([self.rows[i % len(self.rows)] for i in range(size)])

    def calls(self, largest: int) -> list[Call]:
        """Return calls of all rows, in equal parts up to the largest batch size."""
        n = len(self.rows)
        parts = np.array_split(np.arange(n), ceil(n / largest))
        return [self._call([self.rows[i] for i in part]) for part in parts]

    def _call(self, rows: Sequence[EncodedRow]) -> Call:
        # With its length as the only bucket, rows are padded to it.
        return self.stage, pad_rows(rows, self.inputs, (self.length,), self.pad_id)


def measure_limit(
    repository: Path,
    cascade: str,
    texts: Sequence[Text],
    *,
    seconds: float = 10.0,
    cell_s: float = 0.5,
) -> Limit:
    """Measure how fast the members of a published cascade are on all cores.

    Args:
        repository: A model repository whose stages are ONNX files.
        cascade: The name of the cascade.
        texts: The corpus.
        seconds: The time for the passes over the corpus. At least one is made.
        cell_s: The time for one bucket at one batch size. At least one call is made.

    Raises:
        UsageError: There is no such cascade, no text, or the texts are pairs and the task has none.
        CheckFailed: A member cannot be loaded, or a process failed.
    """
    policy = ModelRepository.read(repository).cascade(cascade).policy()
    if not texts or (policy.pair is not None and policy.pair != isinstance(texts[0], tuple)):
        wanted = "pairs of texts" if policy.pair else "single texts"
        raise UsageError(f"{len(texts)} rows: {cascade} needs one or more, {wanted}")
    paths, n = onnx_paths(repository, policy), len(texts)
    groups = groups_of_rows(policy, encoders_of_cascade(repository, cascade), texts)
    tried = _tried(paths, groups, cell_s)
    best = [max(of, key=of.__getitem__) for of in tried]
    calls = [group.call(size) for group, size in zip(groups, best, strict=True)]
    busy, alone = _rates(paths, calls, cell_s, rounds=_ROUNDS, alone=True).T
    buckets = [
        BucketLimit(
            length=group.length,
            share=len(group.rows) / n,
            tried=tried[i],
            best_batch=best[i],
            row_ms=float(1000 * cores() / busy[i]),
            row_alone_ms=float(1000 / alone[i]),
        )
        for i, group in enumerate(groups)
    ]
    stages = tuple(
        StageLimit(
            stage.model,
            tuple(of for of, group in zip(buckets, groups, strict=True) if group.stage == index),
        )
        for index, stage in enumerate(policy.stages)
    )
    limit = Limit(n, cores(), _THREADS, stages, 0.0)
    passes = max(1, round(seconds * limit.rows_per_s / n))
    # The most expensive calls come first, so that none is left over at the end.
    corpus = [
        (call[1].shape[0] * of.row_ms, call)
        for group, of in zip(groups, buckets, strict=True)
        for call in group.calls(of.best_batch)
    ]
    corpus.sort(key=lambda cost_and_call: cost_and_call[0], reverse=True)
    runs = run_in_parallel(
        cores(), _TIMEOUT_S, _run_passes, paths, [call for _, call in corpus], passes
    )
    # The clock is the machine's, so times of different processes can be compared.
    took_s = max(end for _, end in runs) - min(start for start, _ in runs)
    return replace(limit, measured_rows_per_s=passes * n / took_s)


def groups_of_rows(
    policy: Policy, encoders: Sequence[Encoder], texts: Sequence[Text]
) -> list[Group]:
    """Return the rows of every stage by bucket, short ones first."""
    groups: list[Group] = []
    for index, (stage, encoder) in enumerate(zip(policy.stages, encoders, strict=True)):
        encoded = encoder.encode(texts)
        for length in stage.buckets:
            rows = [row for row in encoded if bucket_of(len(row), stage.buckets) == length]
            if rows:
                groups.append(Group(index, length, rows, stage.inputs, encoder.pad_id))
    return groups


def sizes_of_length(length: int) -> list[int]:
    """Return the batch sizes to try with rows of this length: one row, and what fits."""
    return [size for size in BATCH_SIZES if size == 1 or size * length <= MOST_TOKENS]


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


def _tried(paths: list[Path], groups: Sequence[Group], cell_s: float) -> list[dict[int, float]]:
    """Return the rows per second of each group by batch size, with all cores at the same call."""
    tried: list[dict[int, float]] = [{} for _ in groups]
    trials = [(i, size) for i, of in enumerate(groups) for size in sizes_of_length(of.length)]
    while trials:
        rates = _rates(paths, [groups[i].call(size) for i, size in trials], cell_s)
        for (i, size), rate in zip(trials, rates[:, 0].tolist(), strict=True):
            tried[i][size] = rate
        larger = [next_size(of.length, rates) for of, rates in zip(groups, tried, strict=True)]
        trials = [(i, size) for i, size in enumerate(larger) if size is not None]
    return tried


def _rates(
    paths: list[Path], calls: list[Call], cell_s: float, *, rounds: int = 1, alone: bool = False
) -> NDArray[np.float64]:
    """Return the rows per second of each call, shape (n_calls, 2), medians over some rounds.

    The columns are all processes together, and one process that has the machine to itself.
    """
    runs = run_in_parallel(
        cores(), _TIMEOUT_S, _time_calls, paths, calls, cell_s, rounds=rounds, alone=alone
    )
    return np.median(np.sum(runs, axis=0), axis=0)


def _time_calls(
    worker: Worker, paths: list[Path], calls: list[Call], cell_s: float, *, rounds: int, alone: bool
) -> NDArray[np.float64]:
    """Return this process's rows per second, shape (rounds, n_calls, 2)."""
    runner = _Runner(paths)
    rates = np.zeros((rounds, len(calls), 2))
    for of_round in rates:
        for call, rate in zip(calls, of_round, strict=True):
            runner.run(call)  # the first call of a shape plans its memory
            worker.wait()
            rate[0] = runner.rate(call, cell_s)
            worker.wait()
            if alone and worker.index == 0:
                rate[1] = runner.rate(call, cell_s)
            worker.wait()
    return rates


class _Runner:
    """The sessions of one process."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._sessions = [OnnxSession(path, _THREADS) for path in paths]

    def run(self, call: Call) -> int:
        """Run a call, and return its rows."""
        stage, batch = call
        self._sessions[stage].logits(batch)
        return batch.shape[0]

    def rate(self, call: Call, at_least_s: float) -> float:
        """Return the rows per second of the call, repeated for some time."""
        began_s = time.perf_counter()
        rows = 0
        while not rows or time.perf_counter() - began_s < at_least_s:
            rows += self.run(call)
        return rows / (time.perf_counter() - began_s)


def _run_passes(
    worker: Worker, paths: list[Path], calls: list[Call], passes: int
) -> tuple[float, float]:
    """Share the calls of all passes; return when this process began and ended."""
    runner = _Runner(paths)
    for call in {call[0]: call for call in calls[::-1]}.values():  # the largest of each stage
        runner.run(call)
    worker.wait()
    began_s = time.monotonic()
    while (number := worker.next()) < passes * len(calls):
        runner.run(calls[number % len(calls)])
    return began_s, time.monotonic()
