"""The cost of a row in each stage, measured as time on this machine."""

from __future__ import annotations

import math
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

from ..evaluation.costs import RowCosts
from ..graphs.logits import Run, StageInput
from ..progress import Advance, counted
from ..verification.allowance import Allowance

BATCH_SIZES = (1, 4, 8, 16, 32, 64)
# After a first run that allocates memory, a call is repeated 2 to 5 times, until it has taken a
# second in total.
_REPEATS = (2, 5)
_CALL_S = 1.0
# Larger calls than the first one this slow are not measured: they take seconds and add nothing.
_LARGEST_CALL_S = 0.5
# What the server adds to the time of a call: users report 503 us for a BLS call.
_SERVED_CALL_MS = 0.5
# Costs within this factor are equal: the measurement is no finer.
_AS_GOOD = 1.02


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds of one call of a stage, by padded length and rows.

    Attributes:
        ms: {length in tokens: {rows: median milliseconds of a call}}.
        repeats_ms: The milliseconds of each repeat of these calls, in the order of time; empty if
            they are not known.
    """

    ms: dict[int, dict[int, float]]
    repeats_ms: dict[int, dict[int, tuple[float, ...]]] = field(
        default_factory=dict[int, dict[int, tuple[float, ...]]]
    )

    def per_row(self, length: int, repeat: int | None = None) -> float:
        """Milliseconds a row in the largest calls, as on a busy server.

        For a length that was not measured, the nearest measured one is scaled by the tokens.

        Args:
            length: In tokens.
            repeat: One of the `n_repeats` repeats of the measurement; None: their median. A slow
                call has fewer repeats, which are used again.
        """
        known = sorted(self.ms)
        nearest = min(known, key=lambda known_length: abs(known_length - length))
        rows = self._largest(nearest, self.max_call_tokens())
        ms = self.ms[nearest][rows]
        if repeat is not None:
            of_call = self.repeats_ms[nearest][rows]
            ms = of_call[repeat % len(of_call)]
        return ms / rows * length / nearest

    @property
    def n_repeats(self) -> int:
        """The most repeats of a call."""
        counts = [len(ms) for calls in self.repeats_ms.values() for ms in calls.values()]
        return max(counts, default=0)

    @property
    def spread(self) -> tuple[float, ...]:
        """All repeats over the median of their call, ascending; (1.0,) without repeats."""
        ratios = [
            one / self.ms[length][rows]
            for length, calls in self.repeats_ms.items()
            for rows, ms in calls.items()
            for one in ms
        ]
        return tuple(sorted(ratios)) or (1.0,)

    def to_json(self) -> dict[str, Any]:
        """The times as JSON: its keys are strings, and a policy's id is of what a reader sees."""

        def with_string_keys(table: Mapping[int, Mapping[int, Any]]) -> dict[str, dict[str, Any]]:
            return {
                str(length): {str(rows): value for rows, value in calls.items()}
                for length, calls in table.items()
            }

        repeats = {
            length: {rows: list(ms) for rows, ms in calls.items()}
            for length, calls in self.repeats_ms.items()
        }
        return {"ms": with_string_keys(self.ms), "repeats_ms": with_string_keys(repeats)}

    def call_tokens(self) -> int:
        """The fixed cost of a served call, in padded tokens; see `StagePolicy`.

        This is the intercept of a line through the measured calls (time over padded tokens), plus
        what the server adds. Calls beyond `max_call_tokens` are left out.
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
        # The weights make the relative errors of short and long calls count the same.
        slope, base = np.polyfit(tokens, ms, 1, w=1 / ms)
        if slope <= 0:  # tokens cost nothing
            return ONE_CALL
        return min(ONE_CALL, round(max(0.0, float(base) + _SERVED_CALL_MS) / float(slope)))

    def max_call_tokens(self) -> int:
        """The most padded tokens of one call; see `StagePolicy`.

        This is the largest measured size at which a row costs no more than at the best size, as the
        mean over the lengths. If it is the largest of all measured sizes, there is no limit.
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
        """Cost of a row in calls of at most `max_tokens`, relative to the best calls."""
        ratios: list[float] = []
        for length, calls in self.ms.items():
            per_row = {rows: (ms + _SERVED_CALL_MS) / rows for rows, ms in calls.items()}
            ratios.append(per_row[self._largest(length, max_tokens)] / min(per_row.values()))
        return float(np.mean(ratios))

    def _largest(self, length: int, max_tokens: int) -> int:
        """Rows of the largest measured call of this length within `max_tokens`, else the fewest."""
        return max(
            (rows for rows in self.ms[length] if rows * length <= max_tokens),
            default=min(self.ms[length]),
        )


def stage_times_from_json(raw: Mapping[str, Any]) -> StageTimes:
    """The times from their JSON; those of an earlier release have no repeats."""

    def with_numbers(table: Mapping[str, Mapping[str, Any]]) -> dict[int, dict[int, Any]]:
        return {
            int(length): {int(rows): value for rows, value in calls.items()}
            for length, calls in table.items()
        }

    repeats = with_numbers(raw.get("repeats_ms", {}))
    return StageTimes(
        with_numbers(raw["ms"]),
        {length: {rows: tuple(ms) for rows, ms in of.items()} for length, of in repeats.items()},
    )


def measure_stages(
    stages: Mapping[str, tuple[StageInput, Callable[[], Run]]],
    texts: Sequence[Any],
    max_batch_size: Mapping[str, int],
    *,
    seconds: float | None = None,
    left_out: list[str] | None = None,
) -> dict[str, StageTimes]:
    """Time all stages on real rows, in turns, so that a disturbance affects all of them.

    Args:
        stages: By name, how texts become batches, and a function that loads the artefact.
        texts: Real texts; of their padded lengths, one in 16 tokens is measured.
        max_batch_size: Rows in one call, by name.
        seconds: About how long it may take. Then the most frequent lengths are measured first, and
            those that no time is left for are not; `StageTimes.per_row` scales them. None: as long
            as it takes.
        left_out: Gets a text for each stage with shapes that no time was left for.
    """
    least, most = _REPEATS
    allowed = Allowance(seconds)
    calls: list[_Timed] = []
    with counted("shape", what="first calls") as advance:
        for name, (stage, load) in stages.items():
            run = load()
            # A call runs once here, and at least `least` times below.
            share = None if seconds is None else seconds / len(stages) / (1 + least)
            of_stage, n_left = _first_calls(
                name, stage, run, texts,
                max_batch_size=max_batch_size[name], seconds=share, advance=advance,
            )  # fmt: skip
            calls += of_stage
            if n_left and left_out is not None:
                left_out.append(f"times of {name}: {n_left} of {len(of_stage) + n_left} shapes")
    expected = [call.first_s * _repeats_of(call.first_s) for call in calls]
    with counted("shape", len(calls), expected_s=sum(expected), work=sum(expected)) as advance:
        for turn in range(most):
            for call in calls:
                if turn < least or (sum(call.times_s) < _CALL_S and not allowed.is_up):
                    took_s = call.run_s()
                    call.times_s.append(took_s)
                    advance(int(turn == 0), work=took_s)
    found = {name: StageTimes({}) for name in stages}
    for call in calls:
        times = found[call.stage]
        repeats = tuple(round(1e3 * seconds, 4) for seconds in call.times_s)
        times.ms.setdefault(call.length, {})[call.rows] = round(float(np.median(repeats)), 4)
        times.repeats_ms.setdefault(call.length, {})[call.rows] = repeats
    return found


def _first_calls(
    name: str,
    stage: StageInput,
    run: Run,
    texts: Sequence[Any],
    *,
    max_batch_size: int,
    seconds: float | None,
    advance: Advance,
) -> tuple[list[_Timed], int]:
    """Run a call of every length and size once; the first run allocates memory.

    Returns:
        The calls, by length and rows, and the number of shapes that no time was left for.
    """
    by_bucket: dict[int, list[EncodedRow]] = {}
    for row in stage.encoder.encode(texts):
        by_bucket.setdefault(bucket_of(len(row), stage.sampled_buckets), []).append(row)
    allowed = Allowance(seconds)
    buckets = sorted(by_bucket)
    if allowed.is_limited:
        buckets.sort(key=lambda bucket: -len(by_bucket[bucket]))
    calls: list[_Timed] = []
    sizes = sorted({min(size, max_batch_size) for size in BATCH_SIZES})
    n_left = 0
    for bucket in buckets:
        rows = by_bucket[bucket]
        for i, size in enumerate(sizes):
            if not allowed.fits(size * bucket):
                n_left += len(sizes) - i
                break
            # Rows are repeated to fill the call: the time depends only on the shape.
            batch = stage.batch([rows[i % len(rows)] for i in range(size)], bucket)
            call = _Timed(name, bucket, size, partial(run, batch))
            call.first_s = call.run_s()
            calls.append(call)
            allowed.done(size * bucket)
            advance(1)
            if call.first_s > _LARGEST_CALL_S:
                break
    return sorted(calls, key=lambda call: (call.length, call.rows)), n_left


def _repeats_of(call_s: float) -> int:
    """How often a call that takes this long is repeated."""
    least, most = _REPEATS
    return min(most, max(least, math.ceil(_CALL_S / max(call_s, 1e-9))))


def cost_of_rows(
    times: Sequence[StageTimes],
    lengths: Sequence[Sequence[int]],
    macs_per_token: Sequence[int] | None = None,
) -> RowCosts:
    """What each row costs in each stage.

    Args:
        times: Of every stage.
        lengths: Padded lengths of every row, by stage.
        macs_per_token: Multiply-accumulates of a token, by stage; None if they are not known.
    """

    def of_rows(repeat: int | None) -> NDArray[np.float64]:
        columns: list[NDArray[np.float64]] = []
        for stage, of_stage in zip(times, lengths, strict=True):
            distinct, inverse = np.unique(np.asarray(of_stage), return_inverse=True)
            ms = [stage.per_row(int(length), repeat) for length in distinct]
            columns.append(np.array(ms)[inverse])
        return np.stack(columns, axis=1)

    tokens = np.array(lengths, dtype=np.float64).T
    # All stages were timed in turns: a repeat of one belongs to the same repeat of the others.
    n_repeats = max(each.n_repeats for each in times) if all(t.n_repeats for t in times) else 0
    repeats = [of_rows(repeat) for repeat in range(n_repeats)]
    return RowCosts(
        of_rows(None),
        np.stack(repeats) if repeats else np.zeros((0, *tokens.shape)),
        None if macs_per_token is None else tokens * np.array(macs_per_token, dtype=np.float64),
    )


@dataclass(slots=True)
class _Timed:
    """A call of a stage with the durations of its runs; the first one is apart."""

    stage: str
    length: int
    rows: int
    run: Callable[[], Any]
    times_s: list[float] = field(default_factory=list[float])
    first_s: float = 0.0

    def run_s(self) -> float:
        """Run the call once and return the seconds that it took."""
        started_s = time.perf_counter()
        self.run()
        return time.perf_counter() - started_s
