"""Whether rows show that an operating point keeps its guarantee."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.guarantee import DISAGREEMENT, Guarantee

from .intervals import difference_interval, share_interval
from .metrics import Interval

KEPT = "kept"
BROKEN = "broken"
UNDECIDED = "too few rows to tell"


@dataclass(frozen=True, slots=True)
class Promise:
    """A guarantee on some rows.

    Attributes:
        guarantee: What was promised.
        rows: Number of rows.
        observed: The mean loss on them, with an interval at the guarantee's confidence.
        verdict: `KEPT` if the whole interval is within the limit, `BROKEN` if none of it is, else
            `UNDECIDED`.
    """

    guarantee: Guarantee
    rows: int
    observed: Interval
    verdict: str

    def __str__(self) -> str:
        low, high = self.observed.low, self.observed.high
        limit, level = self.guarantee.limit, self.guarantee.confidence
        if self.guarantee.kind == DISAGREEMENT:
            found = f"the answer differs on {self.observed.value:.2%} of {self.rows} rows"
            interval = f"{low:.2%} to {high:.2%}"
            most = f"{100 * limit:.3g}%"
        else:
            found = f"{100 * self.observed.value:.2f} points less accurate on {self.rows} rows"
            interval = f"{100 * low:.2f} to {100 * high:.2f}"
            most = f"{100 * limit:.3g} points"
        return f"{self.verdict}: {found}, {100 * level:.4g}% interval {interval}; at most {most}"


def promise_on_rows(guarantee: Guarantee, losses: NDArray[np.integer[Any]]) -> Promise:
    """Compare a guarantee with the losses of rows that did not choose the thresholds.

    Args:
        guarantee: What was promised.
        losses: Of each row, shape (n,), n at least 1: 0 or 1; of an accuracy drop also -1.
    """
    n = len(losses)
    lost, won = int((losses > 0).sum()), int((losses < 0).sum())
    if guarantee.kind == DISAGREEMENT:
        observed = share_interval(lost, n, guarantee.confidence)
    else:
        observed = difference_interval(lost, won, n, guarantee.confidence)
    if observed.high <= guarantee.limit:
        verdict = KEPT
    elif observed.low > guarantee.limit:
        verdict = BROKEN
    else:
        verdict = UNDECIDED
    return Promise(guarantee, n, observed, verdict)
