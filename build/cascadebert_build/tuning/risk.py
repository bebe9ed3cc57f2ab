"""Is the risk below a limit? Tests and bounds that hold for any number of rows.

A risk is the mean of a loss over the inputs that will come; held-out rows are taken to be drawn
from them independently. A p-value here is valid for the hypothesis that the risk is *above* the
limit: under it, the p-value is at most u with probability at most u.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import needs_extra

_PRIOR_ROWS = 50
_LARGEST_STAKE = 0.95


def binomial_p_value(
    losses: NDArray[np.integer[Any]] | int, n: int, limit: float
) -> NDArray[np.float64]:
    """Exact p-value of a 0/1 loss: P(Binomial(n, limit) <= losses).

    Args:
        losses: how many of the rows had one; any shape.
        n: rows.
        limit: of the risk, 0 to 1.
    """
    with needs_extra("build"):
        from scipy.stats import binom
    return np.asarray(binom.cdf(losses, n, limit), dtype=np.float64)


def binomial_upper_bound(losses: int, n: int, delta: float) -> float:
    """The risk of a 0/1 loss is below this with probability 1 - delta (Clopper, Pearson, 1934)."""
    with needs_extra("build"):
        from scipy.stats import beta
    return 1.0 if losses >= n else float(beta.ppf(1 - delta, losses + 1, n - losses))


def smallest_n(limit: float, delta: float) -> int:
    """Rows without a single loss that it takes to say "at most `limit`" at level `delta`.

    The least n with (1 - limit)^n <= delta: 299 for 1% at 5%.
    """
    n = math.ceil(math.log(delta) / math.log1p(-limit))
    # The quotient may be rounded to either side of a whole number.
    while (1 - limit) ** n > delta:
        n += 1
    while n > 1 and (1 - limit) ** (n - 1) <= delta:
        n -= 1
    return n


@dataclass(frozen=True, slots=True)
class Stakes:
    """What a bettor is told before the first row; fairness does not hang on it, only speed.

    Attributes:
        low, high: least and greatest loss that is possible.
        variance: of the loss, as expected; it weighs as much as `_PRIOR_ROWS` rows.
        delta: level that the stakes are made for.
    """

    low: float
    high: float
    variance: float
    delta: float


# An answer gained and one lost are -1 and 1, and rare: a fiftieth of the rows has either.
def signed_stakes(delta: float) -> Stakes:
    """Stakes for the difference of two 0/1 losses of the same row."""
    return Stakes(-1.0, 1.0, 0.02, delta)


def wealth_below(losses: NDArray[np.float64], limit: float, stakes: Stakes) -> NDArray[np.float64]:
    """Wealth of a bet that the risk is below the limit, after each row, shape (n,).

    Each row's stake is fixed before the row is seen (predictable plug-in of Waudby-Smith and
    Ramdas, JRSS B 2024), so that under a risk at or above the limit the wealth is a
    supermartingale: it ever reaches 1/u with probability at most u, whenever one looks. Unlike
    Hoeffding's bound it gains from a small variance.

    Args:
        losses: of the rows in the order in which they came, shape (n,).
        limit: of the risk, between the stakes' ends.
        stakes: what is known of the loss beforehand.
    """
    width = stakes.high - stakes.low
    scaled = (np.asarray(losses, dtype=np.float64) - stakes.low) / width
    m = (limit - stakes.low) / width
    prior = stakes.variance / width**2
    n = len(scaled)
    weight = _PRIOR_ROWS + np.arange(1, n + 1)
    means = (_PRIOR_ROWS * m + np.cumsum(scaled)) / weight
    squares = (_PRIOR_ROWS * prior + np.cumsum((scaled - means) ** 2)) / weight
    # Of the rows before this one alone.
    variance = np.concatenate([[prior], squares[:-1]])
    fractions = np.sqrt(2 * math.log(1 / stakes.delta) / (n * np.maximum(variance, 1e-12)))
    # Never all of it: one loss would end the game.
    fractions = np.minimum(fractions, _LARGEST_STAKE / (1 - m))
    return np.exp(np.cumsum(np.log1p(fractions * (m - scaled))))


def betting_p_value(losses: NDArray[np.float64], limit: float, stakes: Stakes) -> float:
    """P-value of a bounded loss: one over the greatest wealth, see `wealth_below`.

    The rows must stand in an order that has nothing to do with their losses.
    """
    wealth = wealth_below(losses, limit, stakes)
    return float(min(1.0, 1.0 / max(1.0, wealth.max(initial=1.0))))
