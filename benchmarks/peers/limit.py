"""The bare-runtime limit: how fast the members are with no server, no gate and no waiting.

The corpus is tokenised and its exits are found beforehand. The rows that reach a stage are grouped
by the policy's buckets, and every bucket is timed in ONNX Runtime at several batch sizes, with the
stages' own settings and one thread in as many processes as there are cores, all of them busy at
the same time; nobody is pinned to a core. The best batch of each bucket is then timed anew, since
the best of many figures flatters, with all processes busy and with one alone in turn.

The limit in rows a second is `processes / sum over stages of (share of the rows that reach it x
time of such a row on one of the busy cores)`, the mean over the lengths of those very rows. As a
check that this sum is real, the processes then share the calls of whole passes over the corpus,
padded beforehand, each in its best batches, and the rows a second that this gives stand beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.placement import cores
from cascadebert_build.config.rows import rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_build.errors import BuildError, UsageError
from cascadebert_build.graphs.session import OnnxSession
from cascadebert_build.repository.model_repository import ModelRepository
from cascadebert_core.batching import StageBatch, bucket_of, pad_rows
from cascadebert_core.policy import Policy
from cascadebert_core.tokenization import EncodedRow, Encoder, Text

from .parallel import Together, run_together
from .python_cascade import cascade_from_repository, encoders_of_cascade, onnx_path

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
# Of the calls that are tried first, unless they have one row; larger ones only where the largest
# of these is the best, since a call of so many tokens takes seconds in a large member.
MOST_TOKENS = 2048
# Of any call.
_MOST_TOKENS_EVER, _MOST_CALL_ROWS = 16384, 512
# What twice the rows must bring for twice as many again to be tried.
_GAIN = 1.01
_THREADS = 1
# Of the corpus, evenly spaced: the mix of lengths is known well enough from them.
_MOST_ROWS = 1000
_CELL_S = 0.5
_ROUNDS = 3
_PASSES_S = 10.0
_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Cell:
    """Rows that take the same time.

    Attributes:
        stage: that they reach, 0-based.
        length: in tokens, padded: a bucket.
    """

    stage: int
    length: int


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a stage: the padded rows."""

    stage: int
    batch: StageBatch

    @property
    def rows(self) -> int:
        """How many."""
        return self.batch.shape[0]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a row takes in a call.

    Attributes:
        row_ms: of one core, while the others are busy with the same.
        alone_ms: of one core, while the others are idle.
    """

    row_ms: float
    alone_ms: float


@dataclass(frozen=True, slots=True)
class BucketLimit:
    """The rows of one bucket that reach a stage.

    Attributes:
        length: in tokens.
        share: of all rows of the corpus.
        tried: rows a second of all processes together, by batch size.
        best_batch: of the sizes.
        row_ms: time of one core for a row at the best batch while the others are busy too.
        row_alone_ms: the same with one process at work.
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
        model: its name.
        share: of all rows, that reach it.
        row_ms, row_alone_ms: mean over the rows that reach it, see `BucketLimit`.
        buckets: ascending.
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
        cascade: its name.
        policy: its id.
        rows: of the corpus that were used.
        processes: one for each core.
        threads: of ONNX Runtime in each.
        stages: small to large.
        rows_per_s: the limit.
        alone_rows_per_s: the same sum for one process that has the machine to itself.
        scaling: the first over the second.
        measured_rows_per_s: of the passes over the corpus.
        measured_s: how long they took.
        passes: over the corpus.
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

    def __str__(self) -> str:
        width = max(len(stage.model) for stage in self.stages) + 2
        lines = [
            f"{'':{width}}{'reached by':>11}{'ms a row':>10}{'alone':>8}   "
            "best batches (tokens: rows)"
        ]
        for stage in self.stages:
            best = ", ".join(f"{b.length}: {b.best_batch}" for b in stage.buckets)
            lines.append(
                f"{stage.model:{width}}{stage.share:>11.1%}{stage.row_ms:>10.2f}"
                f"{stage.row_alone_ms:>8.2f}   {best}"
            )
        lines += [
            "",
            f"limit of {self.processes} processes: {self.rows_per_s:.1f} rows/s, "
            f"{self.scaling:.2f} times one alone ({self.alone_rows_per_s:.1f} rows/s)",
            f"measured: {self.measured_rows_per_s:.1f} rows/s in {self.passes} passes over "
            f"{self.rows} rows, {self.measured_s:.1f} s",
        ]
        return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the limit; 0 done, 1 a check failed, 2 wrong use or bad input."""
    args = _parser().parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as the served cascade does
    try:
        rows = rows_from_source(
            DataConfig(path=args.data, text=args.text, text_pair=args.text_pair, label=None)
        )
        limit = measure_limit(
            args.model_repository,
            args.cascade,
            rows.texts,
            seconds=args.seconds,
            cell_s=args.cell_seconds,
        )
    except BuildError as exc:
        sys.stderr.write(f"benchmarks.peers.limit: {exc}\n")
        return exc.exit_code
    print(json.dumps(asdict(limit)) if args.json else limit)
    return 0


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
        repository: a model repository whose stages are ONNX files.
        cascade: its name there.
        texts: the corpus.
        seconds: for the passes over the corpus; at least one is made.
        cell_s: to time one bucket at one batch size; at least one call is made.
        batch_sizes: to try.
        most_rows: of the corpus, evenly spaced.

    Raises:
        UsageError: there is no such cascade, no text, or pairs where the task has none.
        CheckFailed: a member cannot be loaded, or a process failed.
    """
    policy = ModelRepository.read(repository).cascade(cascade).policy()
    if not texts or (policy.pair is not None and policy.pair != isinstance(texts[0], tuple)):
        wanted = "pairs of texts" if policy.pair else "single texts"
        raise UsageError(f"{len(texts)} rows: {cascade} needs one or more, {wanted}")
    n_rows = min(len(texts), most_rows)
    chosen: list[Text] = [texts[i * len(texts) // n_rows] for i in range(n_rows)]
    exits = cascade_from_repository(repository, cascade).exit_stages(chosen)
    encoders = encoders_of_cascade(repository, cascade)
    cells = cells_of_rows(policy, encoders, chosen, exits)
    calls = _Calls(policy, [encoder.pad_id for encoder in encoders], cells)
    paths = [onnx_path(repository, policy, i) for i in range(len(policy.stages))]

    trials = [(cell, size) for cell in cells for size in sizes_of_length(cell.length, batch_sizes)]
    rates = _tried(paths, [calls.of_size(*trial) for trial in trials], cell_s)
    tried = {
        cell: {size: rate for (of, size), rate in zip(trials, rates, strict=True) if of == cell}
        for cell in cells
    }
    while larger := [
        (cell, size) for cell, of in tried.items() if (size := next_size(cell.length, of))
    ]:
        rates = _tried(paths, [calls.of_size(*trial) for trial in larger], cell_s)
        for (cell, size), rate in zip(larger, rates, strict=True):
            tried[cell][size] = rate
    best = {cell: max(by_size, key=by_size.__getitem__) for cell, by_size in tried.items()}
    paces = _paces(paths, [calls.of_size(*trial) for trial in best.items()], cell_s)
    stages = stage_limits(
        policy,
        {cell: len(rows) / len(chosen) for cell, rows in cells.items()},
        tried,
        dict(zip(cells, paces, strict=True)),
    )
    limit = rows_per_s(stages, cores())
    alone = 1000 / sum(stage.share * stage.row_alone_ms for stage in stages)
    passes = max(1, round(seconds * limit / len(chosen)))
    # The dearest calls first, so that no process is left with one when the others have ended.
    row_ms = {cell: pace.row_ms for cell, pace in zip(cells, paces, strict=True)}
    corpus = sorted(calls.of_corpus(best), key=lambda c: c[1].rows * row_ms[c[0]], reverse=True)
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


def cells_of_rows(
    policy: Policy,
    encoders: Sequence[Encoder],
    texts: Sequence[Text],
    exits: NDArray[np.int32],
) -> dict[Cell, list[EncodedRow]]:
    """The rows that reach every stage, by bucket, with that stage's tokens.

    Args:
        policy: for the buckets.
        encoders: of the stages.
        texts: n of them.
        exits: the stage that answers each, shape (n,).
    """
    cells: dict[Cell, list[EncodedRow]] = {}
    for index, stage in enumerate(policy.stages):
        reaching = [
            text for text, exit_stage in zip(texts, exits, strict=True) if exit_stage >= index
        ]
        encoded = encoders[index].encode(reaching)
        for length in stage.buckets:
            rows = [row for row in encoded if bucket_of(len(row), stage.buckets) == length]
            if rows:
                cells[Cell(index, length)] = rows
    return cells


def sizes_of_length(length: int, sizes: Sequence[int]) -> list[int]:
    """The batch sizes to try with rows of so many tokens: the smallest, and those that fit."""
    smallest, *others = sorted(sizes)
    return [smallest, *(size for size in others if size * length <= MOST_TOKENS)]


def next_size(length: int, tried: Mapping[int, float]) -> int | None:
    """A larger batch to try where the largest one was clearly the best; None: none.

    Args:
        length: of the rows, in tokens.
        tried: rows a second, by batch size.
    """
    largest = max(tried)
    others = [rate for size, rate in tried.items() if size != largest]
    size = 2 * largest
    if size * length > _MOST_TOKENS_EVER or size > _MOST_CALL_ROWS:
        return None
    return size if all(tried[largest] > _GAIN * rate for rate in others) else None


def stage_limits(
    policy: Policy,
    shares: Mapping[Cell, float],
    tried: Mapping[Cell, Mapping[int, float]],
    paces: Mapping[Cell, Pace],
) -> tuple[StageLimit, ...]:
    """The time of a row at every stage that rows reach.

    Args:
        policy: the cascade's.
        shares: of the corpus, in every cell.
        tried: rows a second of all processes together, by batch size.
        paces: at the best of these sizes.
    """
    stages: list[StageLimit] = []
    for index, stage in enumerate(policy.stages):
        own = [cell for cell in shares if cell.stage == index]
        share = sum(shares[cell] for cell in own)
        if not own:
            continue
        stages.append(
            StageLimit(
                model=stage.model,
                share=share,
                row_ms=sum(shares[cell] * paces[cell].row_ms for cell in own) / share,
                row_alone_ms=sum(shares[cell] * paces[cell].alone_ms for cell in own) / share,
                buckets=tuple(
                    BucketLimit(
                        length=cell.length,
                        share=shares[cell],
                        tried=dict(tried[cell]),
                        best_batch=max(tried[cell], key=tried[cell].__getitem__),
                        row_ms=paces[cell].row_ms,
                        row_alone_ms=paces[cell].alone_ms,
                    )
                    for cell in own
                ),
            )
        )
    return tuple(stages)


def rows_per_s(stages: Sequence[StageLimit], processes: int) -> float:
    """The limit: each row costs every stage's time, times the share of the rows that reach it."""
    return 1000 * processes / sum(stage.share * stage.row_ms for stage in stages)


@dataclass(frozen=True, slots=True)
class _Calls:
    """Makes calls of the rows of cells."""

    policy: Policy
    pad_ids: Sequence[int]
    cells: Mapping[Cell, Sequence[EncodedRow]]

    def of_size(self, cell: Cell, size: int) -> Call:
        """A call of so many rows, taken in turn where the cell has fewer."""
        rows = self.cells[cell]
        return self._call(cell, [rows[i % len(rows)] for i in range(size)])

    def of_corpus(self, best: Mapping[Cell, int]) -> list[tuple[Cell, Call]]:
        """Calls of all rows of all cells, in equal parts of at most the best batch."""
        return [
            (cell, self._call(cell, [rows[i] for i in part]))
            for cell, rows in self.cells.items()
            for part in np.array_split(np.arange(len(rows)), ceil(len(rows) / best[cell]))
        ]

    def _call(self, cell: Cell, rows: Sequence[EncodedRow]) -> Call:
        inputs = self.policy.stages[cell.stage].inputs
        # One bucket is given, so that rows are padded to the cell's.
        return Call(cell.stage, pad_rows(rows, inputs, (cell.length,), self.pad_ids[cell.stage]))


def _tried(paths: Sequence[Path], calls: Sequence[Call], cell_s: float) -> list[float]:
    """Rows a second of every call, of all cores that repeat it at the same time."""
    runs = run_together(cores(), _TIMEOUT_S, _try_calls, list(paths), list(calls), cell_s)
    return [float(sum(rates)) for rates in zip(*runs, strict=True)]


def _try_calls(
    together: Together, paths: list[Path], calls: list[Call], cell_s: float
) -> list[float]:
    runner = _Runner(paths)
    rates: list[float] = []
    for call in calls:
        runner.run(call)  # the first call of a shape plans its memory
        together.wait()
        rates.append(runner.rate(call, cell_s))
    return rates


def _paces(paths: Sequence[Path], calls: Sequence[Call], cell_s: float) -> list[Pace]:
    """The pace of every call, medians over some rounds of all of them."""
    runs = run_together(cores(), _TIMEOUT_S, _time_calls, list(paths), list(calls), cell_s)
    # (processes, calls, rounds, busy or alone); only one process was ever alone
    rates = np.array(runs)
    busy, alone = np.median(rates.sum(axis=0), axis=1).T
    return [
        Pace(float(1000 * cores() / of_all), float(1000 / of_one))
        for of_all, of_one in zip(busy, alone, strict=True)
    ]


def _time_calls(
    together: Together, paths: list[Path], calls: list[Call], cell_s: float
) -> list[list[tuple[float, float]]]:
    """Rows a second of this process: of every call, in every round, busy and alone."""
    runner = _Runner(paths)
    rates: list[list[tuple[float, float]]] = [[] for _ in calls]
    for _ in range(_ROUNDS):
        for call, of_call in zip(calls, rates, strict=True):
            runner.run(call)
            together.wait()
            busy = runner.rate(call, cell_s)
            together.wait()
            of_call.append((busy, runner.rate(call, cell_s) if together.index == 0 else 0.0))
            together.wait()
    return rates


class _Runner:
    """The sessions of one process."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._sessions = [OnnxSession(path, _THREADS) for path in paths]

    def run(self, call: Call) -> None:
        self._sessions[call.stage].logits(call.batch)

    def rate(self, call: Call, at_least_s: float) -> float:
        """Rows a second of the call, repeated for so long."""
        began_s = time.perf_counter()
        rows = 0
        while not rows or time.perf_counter() - began_s < at_least_s:
            self.run(call)
            rows += call.rows
        return rows / (time.perf_counter() - began_s)


def _passes_s(paths: Sequence[Path], calls: Sequence[Call], passes: int) -> float:
    """How long all cores take for so many passes over the corpus."""
    runs = run_together(cores(), _TIMEOUT_S, _run_passes, list(paths), list(calls), passes)
    # The clock is the machine's, so times of different processes compare.
    return max(end for _, end in runs) - min(start for start, _ in runs)


def _run_passes(
    together: Together, paths: list[Path], calls: list[Call], passes: int
) -> tuple[float, float]:
    runner = _Runner(paths)
    largest: dict[int, Call] = {}
    for call in sorted(calls, key=lambda call: call.rows):
        largest[call.stage] = call
    for call in largest.values():
        runner.run(call)
    together.wait()
    began_s = time.monotonic()
    while (number := together.next()) < passes * len(calls):
        runner.run(calls[number % len(calls)])
    return began_s, time.monotonic()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.limit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model-repository", type=Path, required=True, metavar="DIR")
    parser.add_argument("--cascade", required=True, metavar="NAME")
    parser.add_argument("--data", required=True, metavar="FILE", help="a tsv, csv or jsonl")
    parser.add_argument("--text", required=True, metavar="COLUMN")
    parser.add_argument("--text-pair", metavar="COLUMN")
    parser.add_argument(
        "--seconds", type=float, default=_PASSES_S, metavar="S",
        help="for the passes over the corpus (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--cell-seconds", type=float, default=_CELL_S, metavar="S",
        help="for one bucket at one batch size (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
