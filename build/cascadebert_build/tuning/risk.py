"""Tests whether a risk is below a limit, valid for any number of rows.

A risk is the mean of a loss over future inputs. Held-out rows are assumed to be independent draws
of these inputs. The null hypothesis of a p-value is that the risk is *above* the limit: if it is,
the p-value is at most u with probability at most u.
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
        losses: Number of rows with a loss; any shape.
        n: Number of rows.
        limit: Of the risk, 0 to 1.
    """
    with needs_extra("build"):
        from scipy.stats import binom
    return np.asarray(binom.cdf(losses, n, limit), dtype=np.float64)


def binomial_upper_bound(losses: int, n: int, delta: float) -> float:
    """Upper bound of the risk of a 0/1 loss, at confidence 1 - delta (Clopper, Pearson, 1934)."""
    with needs_extra("build"):
        from scipy.stats import beta
    return 1.0 if losses >= n else float(beta.ppf(1 - delta, losses + 1, n - losses))


def smallest_n(limit: float, delta: float) -> int:
    """The number of rows, all without loss, that shows a risk of at most `limit`.

    This is the smallest n with (1 - limit)^n <= delta: 299 for 1% at 5%.
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
    """What the stakes of a bet depend on before the first row.

    The test is valid for all values of variance and delta; good ones make it more powerful.

    Attributes:
        low: The smallest possible loss.
        high: The largest possible loss.
        variance: The expected variance of the loss, with the weight of `_PRIOR_ROWS` rows.
        delta: The level of the test.
    """

    low: float
    high: float
    variance: float
    delta: float


def signed_stakes(delta: float) -> Stakes:
    """Stakes for the difference of two 0/1 losses of the same row."""
    # Differences of -1 and 1 are rare: typically in a fiftieth of the rows.
    return Stakes(-1.0, 1.0, 0.02, delta)


def wealth_below(losses: NDArray[np.float64], limit: float, stakes: Stakes) -> NDArray[np.float64]:
    """Wealth of a bet that the risk is below the limit, after each row, shape (n,).

    Each row's stake depends only on earlier rows (predictable plug-in of Waudby-Smith and Ramdas,
    JRSS B 2024). If the risk is at or above the limit, the wealth is a supermartingale: it reaches
    1/u at any time with probability at most u. Unlike Hoeffding's bound, it profits from a small
    variance.

    Args:
        losses: Of the rows in their order, shape (n,).
        limit: Of the risk, between the lowest and the highest loss.
        stakes: What the bets depend on.
    """
    width = stakes.high - stakes.low
    scaled = (np.asarray(losses, dtype=np.float64) - stakes.low) / width
    m = (limit - stakes.low) / width
    prior = stakes.variance / width**2
    n = len(scaled)
    weight = _PRIOR_ROWS + np.arange(1, n + 1)
    means = (_PRIOR_ROWS * m + np.cumsum(scaled)) / weight
    squares = (_PRIOR_ROWS * prior + np.cumsum((scaled - means) ** 2)) / weight
    # Of earlier rows only.
    variance = np.concatenate([[prior], squares[:-1]])
    fractions = np.sqrt(2 * math.log(1 / stakes.delta) / (n * np.maximum(variance, 1e-12)))
    # Never the whole wealth: one loss would end the bet.
    fractions = np.minimum(fractions, _LARGEST_STAKE / (1 - m))
    return np.exp(np.cumsum(np.log1p(fractions * (m - scaled))))


def betting_p_value(losses: NDArray[np.float64], limit: float, stakes: Stakes) -> float:
    """P-value of a bounded loss: one over the greatest wealth; see `wealth_below`.

    The order of the rows must not depend on their losses.
    """
    wealth = wealth_below(losses, limit, stakes)
    return float(min(1.0, 1.0 / max(1.0, wealth.max(initial=1.0))))
