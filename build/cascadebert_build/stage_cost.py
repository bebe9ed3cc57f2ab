"""What a row costs in each stage: time on this machine, beside layers and multiplications."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import bucket_of
from cascadebert_core.policy import ONE_CALL
from cascadebert_core.tokenization import EncodedRow

from .logits import Run, StageInput

BATCH_SIZES = (1, 8, 32)
_REPEATS = 5
# Of a call through the server, beside the stage's own work: people report 503 us for a BLS call.
_SERVED_CALL_MS = 0.5


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds of one call of a stage, by padded length and rows.

    Attributes:
        ms: {length in tokens: {rows: median ms of a call}}.
    """

    ms: dict[int, dict[int, float]]

    def per_row(self, length: int) -> float:
        """Milliseconds a row in the largest calls that were measured, as on a busy server.

        A length without a measurement has that of the next measured one, by the tokens.
        """
        known = sorted(self.ms)
        nearest = min(known, key=lambda known_length: abs(known_length - length))
        calls = self.ms[nearest]
        rows = max(calls)
        return calls[rows] / rows * length / nearest

    def call_tokens(self) -> int:
        """What a served call costs beside its tokens, in padded tokens; see `StagePolicy`.

        Where the line through the measured calls, time over padded tokens, meets zero tokens, with
        what a call through the server costs on top.
        """
        points = [
            (length * rows, ms) for length, calls in self.ms.items() for rows, ms in calls.items()
        ]
        tokens, ms = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
        if len(set(tokens)) < 2:
            return ONE_CALL
        # Weighted to fit short calls as well as long ones, relative to what they take.
        slope, base = np.polyfit(tokens, ms, 1, w=1 / ms)
        if slope <= 0:  # nothing but the call costs
            return ONE_CALL
        return min(ONE_CALL, round(max(0.0, float(base) + _SERVED_CALL_MS) / float(slope)))


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
    calls: list[tuple[str, int, int, Callable[[], Any]]] = []
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
                calls.append((name, bucket, size, _call(run, batch)))
    times: dict[tuple[str, int, int], list[float]] = {}
    for turn in range(_REPEATS + 1):
        for name, bucket, size, call in calls:
            started = time.perf_counter()
            call()
            if turn:  # the first one warms up
                elapsed = 1e3 * (time.perf_counter() - started)
                times.setdefault((name, bucket, size), []).append(elapsed)
    found: dict[str, dict[int, dict[int, float]]] = {name: {} for name in stages}
    for (name, bucket, size), values in times.items():
        found[name].setdefault(bucket, {})[size] = round(float(np.median(values)), 4)
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


def _call(run: Run, batch: Any) -> Callable[[], Any]:
    return lambda: run(batch)
