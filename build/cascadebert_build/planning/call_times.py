"""The time of any call of a stage, from the calls that were measured."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol


class CallTimes(Protocol):
    """What a call takes."""

    @property
    def spread(self) -> tuple[float, ...]:
        """What calls take over `seconds`, each as often as the others."""
        ...

    def seconds(self, rows: int, length: int) -> float:
        """Return the seconds of a call of this many rows of this padded length."""
        ...


@dataclass(frozen=True, slots=True)
class LinearTimes:
    """A call that costs something, and each of its padded tokens.

    Attributes:
        call_s: Seconds of a call.
        token_s: Seconds of each padded token.
        spread: See `CallTimes`.
    """

    call_s: float
    token_s: float = 0.0
    spread: tuple[float, ...] = (1.0,)

    def seconds(self, rows: int, length: int) -> float:
        """See `CallTimes`."""
        return self.call_s + rows * length * self.token_s


@dataclass(frozen=True, slots=True)
class MeasuredTimes:
    """Lines between the measured sizes of a call; see `tuning.stage_cost.StageTimes`.

    A call of more rows than the largest measured one costs as much a row as that. For a length that
    was not measured, the nearest measured one is scaled by the tokens.

    Attributes:
        ms: {length in tokens: {rows: milliseconds of a call}}.
        factor: All times are multiplied by it.
        spread: See `CallTimes`.
    """

    ms: Mapping[int, Mapping[int, float]]
    factor: float = 1.0
    spread: tuple[float, ...] = (1.0,)
    _kept: dict[tuple[int, int], float] = field(
        default_factory=dict[tuple[int, int], float], init=False
    )

    def seconds(self, rows: int, length: int) -> float:
        """See `CallTimes`."""
        found = self._kept.get((rows, length))
        if found is None:
            found = self._kept[rows, length] = self._seconds(rows, length)
        return found

    def _seconds(self, rows: int, length: int) -> float:
        nearest = min(self.ms, key=lambda known: abs(known - length))
        calls = sorted(self.ms[nearest].items())
        sizes = [size for size, _ in calls]
        place = bisect_left(sizes, rows)
        if place == len(sizes):
            ms = calls[-1][1] * rows / sizes[-1]
        elif place == 0:
            ms = calls[0][1]
        else:
            ((fewer, low), (more, high)) = list(pairwise(calls))[place - 1]
            ms = low + (high - low) * (rows - fewer) / (more - fewer)
        return 1e-3 * self.factor * ms * length / nearest
