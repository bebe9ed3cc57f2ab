"""What a row costs in each stage: time on this machine, beside layers and multiplications."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import bucket_of
from cascadebert_core.policy import ONE_CALL
from cascadebert_core.tokenization import EncodedRow

from ..graphs.logits import Run, StageInput

BATCH_SIZES = (1, 4, 8, 16, 32, 64)
# Of a call, after a first one that plans its memory: until it has run for so long, within bounds.
_REPEATS = (2, 5)
_CALL_S = 1.0
# A larger call is not tried: it would take seconds, and shows nothing that this one does not.
_LARGEST_CALL_S = 0.5
# Of a call through the server, beside the stage's own work: people report 503 us for a BLS call.
_SERVED_CALL_MS = 0.5
# A size whose rows cost so much more than in the best calls is as good: times are not finer.
_AS_GOOD = 1.02


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds of one call of a stage, by padded length and rows.

    Attributes:
        ms: {length in tokens: {rows: median ms of a call}}.
    """

    ms: dict[int, dict[int, float]]

    def per_row(self, length: int) -> float:
        """Milliseconds a row in the largest calls that are made, as on a busy server.

        A length without a measurement has that of the next measured one, by the tokens.
        """
        known = sorted(self.ms)
        nearest = min(known, key=lambda known_length: abs(known_length - length))
        rows = self._largest(nearest, self.max_call_tokens())
        return self.ms[nearest][rows] / rows * length / nearest

    def call_tokens(self) -> int:
        """What a served call costs beside its tokens, in padded tokens; see `StagePolicy`.

        Where the line through the measured calls, time over padded tokens, meets zero tokens, with
        what a call through the server costs on top. Of calls that are too large to be made, nothing
        is asked.
        """
        most = self.max_call_tokens()
        points = [
            (length * rows, ms)
            for length, calls in self.ms.items()
            for rows, ms in calls.items()
            if rows <= self._largest(length, most)
        ]
        tokens, ms = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
        if len(set(tokens)) < 2:
            return ONE_CALL
        # Weighted to fit short calls as well as long ones, relative to what they take.
        slope, base = np.polyfit(tokens, ms, 1, w=1 / ms)
        if slope <= 0:  # nothing but the call costs
            return ONE_CALL
        return min(ONE_CALL, round(max(0.0, float(base) + _SERVED_CALL_MS) / float(slope)))

    def max_call_tokens(self) -> int:
        """The padded tokens of one call at most; see `StagePolicy`.

        The largest of the measured sizes whose rows cost no more than in the best, on average over
        the lengths; no limit where that is the largest of all.
        """
        sizes = sorted({length * rows for length, calls in self.ms.items() for rows in calls})
        costs = [self._relative_cost(tokens) for tokens in sizes]
        good = [
            tokens
            for tokens, cost in zip(sizes, costs, strict=True)
            if cost <= _AS_GOOD * min(costs)
        ]
        return ONE_CALL if good[-1] == sizes[-1] else good[-1]

    def _relative_cost(self, max_tokens: int) -> float:
        """What a row costs in calls of at most so many tokens, over what it does in the best."""
        ratios: list[float] = []
        for length, calls in self.ms.items():
            per_row = {rows: (ms + _SERVED_CALL_MS) / rows for rows, ms in calls.items()}
            ratios.append(per_row[self._largest(length, max_tokens)] / min(per_row.values()))
        return float(np.mean(ratios))

    def _largest(self, length: int, max_tokens: int) -> int:
        """Rows of the largest measured call of this length that has no more tokens, or one row."""
        return max(
            (rows for rows in self.ms[length] if rows * length <= max_tokens),
            default=min(self.ms[length]),
        )


def measure_stages(
    stages: Mapping[str, tuple[StageInput, Callable[[], Run]]],
    texts: Sequence[Any],
    max_batch_size: Mapping[str, int],
) -> dict[str, StageTimes]:
    """Time all stages on real rows, turn by turn, so that what disturbs one disturbs all.

    Args:
        stages: by name, how texts become batches and what loads the artefact.
        texts: real ones; the lengths that they have are measured.
        max_batch_size: rows in one call, by name.
    """
    calls: list[_Timed] = []
    for name, (stage, load) in stages.items():
        run = load()
        encoded = stage.encoder.encode(texts)
        by_bucket: dict[int, list[EncodedRow]] = {}
        for row in encoded:
            by_bucket.setdefault(bucket_of(len(row), stage.buckets), []).append(row)
        for bucket, rows in sorted(by_bucket.items()):
            for size in sorted({min(size, max_batch_size[name]) for size in BATCH_SIZES}):
                # Fewer rows than the call takes are repeated: the time is that of the shape.
                batch = stage.batch([rows[i % len(rows)] for i in range(size)])
                call = _Timed(name, bucket, size, partial(run, batch))
                calls.append(call)
                if call.run_s() > _LARGEST_CALL_S:  # its first run, which plans its memory
                    break
    least, most = _REPEATS
    for turn in range(most):
        for call in calls:
            if turn < least or sum(call.times_s) < _CALL_S:
                call.times_s.append(call.run_s())
    found: dict[str, dict[int, dict[int, float]]] = {name: {} for name in stages}
    for call in calls:
        ms = round(1e3 * float(np.median(call.times_s)), 4)
        found[call.stage].setdefault(call.length, {})[call.rows] = ms
    return {name: StageTimes(ms) for name, ms in found.items()}


def cost_of_rows(
    times: Sequence[StageTimes], lengths: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Milliseconds of each row in each stage, shape (n, n_stages).

    Args:
        times: of every stage.
        lengths: padded, of every row, by stage.
    """
    columns: list[NDArray[np.float64]] = []
    for stage, of_stage in zip(times, lengths, strict=True):
        distinct, inverse = np.unique(np.asarray(of_stage), return_inverse=True)
        columns.append(np.array([stage.per_row(int(length)) for length in distinct])[inverse])
    return np.stack(columns, axis=1)


@dataclass(frozen=True, slots=True)
class _Timed:
    """A call of a stage, and how long its runs took."""

    stage: str
    length: int
    rows: int
    run: Callable[[], Any]
    times_s: list[float] = field(default_factory=list)

    def run_s(self) -> float:
        """Run it once."""
        started_s = time.perf_counter()
        self.run()
        return time.perf_counter() - started_s
