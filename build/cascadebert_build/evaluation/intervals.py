"""Exact intervals of shares, which stay right if an event never happened."""

from __future__ import annotations

from ..extras import needs_extra
from .metrics import Interval

LEVEL = 0.95


def share_interval(events: int, n: int, level: float = LEVEL) -> Interval:
    """The share of rows with an event, and its exact interval (Clopper and Pearson, 1934).

    Args:
        events: Number of rows with the event.
        n: Number of rows, at least 1.
        level: Of the interval.
    """
    with needs_extra("build"):
        from scipy.stats import beta
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, events, n - events + 1)) if events else 0.0
    high = float(beta.ppf(1 - tail, events + 1, n - events)) if events < n else 1.0
    return Interval(events / n, low, high)


def difference_interval(more: int, less: int, n: int, level: float = LEVEL) -> Interval:
    """The mean of a difference that is 1, 0 or -1 in every row, with a valid interval.

    Each of the two shares has an exact interval at half the error (Bonferroni), so the difference
    is covered with at least the probability `level`, for any number of rows.

    Args:
        more: Number of rows whose difference is 1.
        less: Number of rows whose difference is -1.
        n: Number of rows, at least 1.
        level: Of the interval.
    """
    half = 1 - (1 - level) / 2
    up, down = share_interval(more, n, half), share_interval(less, n, half)
    return Interval((more - less) / n, up.low - down.high, up.high - down.low)
