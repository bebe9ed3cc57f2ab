"""What rows cost: measured time with its spread, and computations beside it.

The time of a row in a stage is that of its share of a large call, as `tune` measured it. The time
that the server adds is not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import Interval


@dataclass(frozen=True, slots=True)
class Cost:
    """The mean cost of a row.

    Attributes:
        ms: Milliseconds. The interval spans the repeats of the measurement.
        share: The same relative to the last member alone. Each repeat gives one ratio.
        computations: Multiply-accumulates relative to the last member alone; None if unknown.
    """

    ms: Interval
    share: Interval
    computations: float | None

    @property
    def speedup(self) -> Interval:
        """How many times faster than the last member alone: one over the share."""
        return Interval(1 / self.share.value, 1 / self.share.high, 1 / self.share.low)


def _nothing() -> NDArray[np.float64]:
    return np.zeros((0, 0, 0))


@dataclass(frozen=True, slots=True)
class RowCosts:
    """What each of n rows costs in each stage.

    Attributes:
        ms: Milliseconds, the median of the repeats, shape (n, n_stages).
        repeats: Milliseconds in each repeat of the measurement, shape (n_repeats, n, n_stages).
        macs: Multiply-accumulates of a row, shape (n, n_stages); None if unknown.
    """

    ms: NDArray[np.float64]
    repeats: NDArray[np.float64] = field(default_factory=_nothing)
    macs: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[np.intp]) -> RowCosts:
        """Some of the rows."""
        repeats = self.repeats[:, rows] if len(self.repeats) else self.repeats
        return RowCosts(self.ms[rows], repeats, None if self.macs is None else self.macs[rows])

    def alone(self, stage: int) -> Cost:
        """The cost if one stage answers every row."""
        return self._cost(lambda costs: float(costs[:, stage].mean()))

    def of_exits(self, exits: NDArray[np.integer[Any]]) -> Cost:
        """The cost of the cascade.

        Args:
            exits: The stage at which each row exits, shape (n,); -1 for a row without an answer,
                which ran through all stages.
        """
        rows = np.arange(len(exits))
        return self._cost(lambda costs: float(np.cumsum(costs, axis=1)[rows, exits].mean()))

    def _cost(self, mean: Callable[[NDArray[np.float64]], float]) -> Cost:
        def share(costs: NDArray[np.float64]) -> float:
            return mean(costs) / float(costs[:, -1].mean())

        return Cost(
            ms=_spread(mean(self.ms), [mean(each) for each in self.repeats]),
            share=_spread(share(self.ms), [share(each) for each in self.repeats]),
            computations=None if self.macs is None else share(self.macs),
        )


def _spread(value: float, repeats: list[float]) -> Interval:
    # A sum of medians may lie beside all of the sums.
    return Interval(value, min([value, *repeats]), max([value, *repeats]))
