"""Confidence sequences for a rate: intervals that are valid at every moment at once.

A test made for one look gives a false alarm sooner or later if you repeat it as the sample grows.
A confidence sequence may be read after every row, and you may stop at any time: with probability
1 - delta the rate is inside *all* the intervals that are ever computed.

For k events among n independent rows of rate p, the wealth against a claimed rate p is

    W_n(p) = B(k + 1/2, n - k + 1/2) / B(1/2, 1/2) / (p^k (1 - p)^(n - k)),

the likelihood ratio of the Beta(1/2, 1/2) mixture of all rates to p. Under p it is a martingale
that starts at 1, so it ever reaches 1/delta with probability at most delta (Ville's inequality,
1939). The rates that are not refuted, {p: W_n(p) < 1/delta}, are an interval around k/n.
(Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Stat. 1970;
Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Ann. Stat. 2021.) It depends only on the counts, so two counters on a metrics page are
enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HOLDS = "holds"
BROKEN = "broken"
UNDECIDED = "cannot be told yet"

_MOST_ROWS = 10**9


@dataclass(frozen=True, slots=True)
class Interval:
    """The rates that a sample has not refuted. Both ends are refuted, or are 0 and 1."""

    low: float
    high: float


def log_wealth(events: float, rows: float, rate: float) -> float:
    """Return the logarithm of the wealth against a rate.

    Args:
        events: The events among the rows. Fractions are allowed, to look ahead.
        rows: The rows, 0 or more.
        rate: The claimed rate, 0 to 1.

    Raises:
        ValueError: A number is out of its range.
    """
    if not 0 <= events <= rows or not 0 <= rate <= 1:
        raise ValueError(f"{events} events of {rows} rows at a rate of {rate} cannot be")
    rest = rows - events
    if (rate == 0 and events > 0) or (rate == 1 and rest > 0):
        return math.inf
    mixture = (
        math.lgamma(events + 0.5) + math.lgamma(rest + 0.5) - math.lgamma(rows + 1)
    ) - math.log(math.pi)
    likelihood = (events * math.log(rate) if events else 0.0) + (
        rest * math.log1p(-rate) if rest else 0.0
    )
    return mixture - likelihood


def confidence_interval(events: float, rows: float, delta: float) -> Interval:
    """Return the confidence sequence's interval after `rows` rows, by bisection.

    Args:
        events: The events among the rows.
        rows: The rows, 0 or more. Up to 10^9 the logarithms' rounding error is below 10^-4.
        delta: The probability that any of the intervals misses the rate; above 0 and below 1.

    Raises:
        ValueError: A number is out of its range.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}: give a number above 0 and below 1")
    limit = -math.log(delta)
    mean = events / rows if rows else 0.5
    # The wealth is least at the mean and grows on both sides of it. It grows without bound if both
    # outcomes were seen.
    refuted = [log_wealth(events, rows, end) >= limit for end in (0.0, 1.0)]
    low = _boundary(events, rows, limit, 0.0, mean) if refuted[0] else 0.0
    high = _boundary(events, rows, limit, 1.0, mean) if refuted[1] else 1.0
    return Interval(low, high)


def _boundary(events: float, rows: float, limit: float, refuted: float, inside: float) -> float:
    """Return the refuted rate nearest to the rates inside, between the two given rates."""
    while True:
        middle = (refuted + inside) / 2
        # Stop if no float is left between them. Near 0 that would take too long.
        if middle in (refuted, inside) or abs(refuted - inside) < 1e-15:
            return refuted
        if log_wealth(events, rows, middle) >= limit:
            refuted = middle
        else:
            inside = middle


def verdict_of(interval: Interval, limit: float) -> str:
    """Return whether the rate is below a limit: `HOLDS`, `BROKEN` or `UNDECIDED`."""
    if interval.high < limit:
        return HOLDS
    return BROKEN if interval.low > limit else UNDECIDED


def audit_interval(agreed: int, disagreed: int, unknown: int, delta: float) -> Interval:
    """Return the interval of the rate of disagreement if some results were lost.

    Args:
        agreed: Rows that agreed.
        disagreed: Rows that disagreed.
        unknown: Rows that were drawn but whose result was lost. The lower end counts them as
            agreements, the upper end as disagreements.
        delta: The probability that any of the intervals misses the rate.
    """
    rows = agreed + disagreed + unknown
    return Interval(
        confidence_interval(disagreed, rows, delta).low,
        confidence_interval(disagreed + unknown, rows, delta).high,
    )


def rows_to_tell(
    agreed: int, disagreed: int, unknown: int, limit: float, delta: float
) -> int | None:
    """Estimate how many more rows a verdict takes if the rate stays the same.

    Returns:
        0 if there is a verdict now; None if there would be none after 10^9 rows, because the rate
        is too near to the limit.
    """
    known = agreed + disagreed
    rate = disagreed / known if known else 0.0

    def told(more: float) -> bool:
        rows = known + unknown + more
        events = disagreed + rate * more
        if events / rows > limit:  # then only the lower end can be beyond the limit
            return log_wealth(events, rows, limit) >= -math.log(delta)
        events += unknown
        return events / rows < limit and log_wealth(events, rows, limit) >= -math.log(delta)

    if known + unknown and told(0):
        return 0
    too_few, enough = 0, 1
    while not told(enough):
        too_few, enough = enough, 2 * enough
        if enough > _MOST_ROWS:
            return None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if told(middle) else (middle, enough)
    return enough
