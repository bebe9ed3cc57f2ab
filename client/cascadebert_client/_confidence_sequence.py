"""Confidence sequences for a rate: intervals that hold at every moment at once.

Who looks at a growing sample again and again with a test made for one look will sooner or later see
a false alarm. Here one may look after every row and stop when one likes: with probability
1 - delta the rate is inside *all* the intervals that are ever computed.

For k events among n independent rows of rate p, the wealth against a claimed rate p is

    W_n(p) = B(k + 1/2, n - k + 1/2) / B(1/2, 1/2) / (p^k (1 - p)^(n - k)),

the likelihood ratio of the Beta(1/2, 1/2) mixture of all rates to p. Under p it is a martingale
that starts at 1, so it ever reaches 1/delta with probability at most delta (Ville's inequality,
1939); the rates that it has not refuted, {p: W_n(p) < 1/delta}, are an interval around k/n.
(Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Stat. 1970;
Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Ann. Stat. 2021.) It depends on the counts alone, so two counters on a metrics page are
all that it takes.
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
    """Rates that a sample has not refuted; both ends are just outside of them, or 0 and 1."""

    low: float
    high: float


def log_wealth(events: float, rows: float, rate: float) -> float:
    """The logarithm of the wealth against a rate; see above.

    Args:
        events: 0 to `rows`; not only whole numbers, for looking ahead.
        rows: 0 or more.
        rate: 0 to 1.

    Raises:
        ValueError: a number is outside of its range.
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
    """The confidence sequence after `rows` rows, by bisection.

    Args:
        events: among the rows.
        rows: 0 or more; up to 10^9 the rounding of the logarithms is below 10^-4.
        delta: how often any of the intervals may miss the rate; above 0 and below 1.

    Raises:
        ValueError: a number is outside of its range.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}: give a number above 0 and below 1")
    limit = -math.log(delta)
    mean = events / rows if rows else 0.5
    # The wealth is least at the mean and grows on both sides of it, without bound where both
    # outcomes were seen.
    refuted = [log_wealth(events, rows, end) >= limit for end in (0.0, 1.0)]
    low = _boundary(events, rows, limit, 0.0, mean) if refuted[0] else 0.0
    high = _boundary(events, rows, limit, 1.0, mean) if refuted[1] else 1.0
    return Interval(low, high)


def _boundary(events: float, rows: float, limit: float, refuted: float, inside: float) -> float:
    """The refuted rate next to the rates that are not, between the two that are given."""
    while True:
        middle = (refuted + inside) / 2
        # The floats between them are used up; near 0 they never would be, and need not.
        if middle in (refuted, inside) or abs(refuted - inside) < 1e-15:
            return refuted
        if log_wealth(events, rows, middle) >= limit:
            refuted = middle
        else:
            inside = middle


def verdict_of(interval: Interval, limit: float) -> str:
    """Whether the rate is below a limit: `HOLDS`, `BROKEN` or `UNDECIDED`."""
    if interval.high < limit:
        return HOLDS
    return BROKEN if interval.low > limit else UNDECIDED


def audit_interval(agreed: int, disagreed: int, unknown: int, delta: float) -> Interval:
    """The confidence sequence where some rows' results were lost, whatever they would have been.

    Args:
        agreed: rows.
        disagreed: rows.
        unknown: rows that were drawn and whose result is not known; the lower end takes them for
            agreements and the upper end for disagreements.
        delta: see `confidence_interval`.
    """
    rows = agreed + disagreed + unknown
    return Interval(
        confidence_interval(disagreed, rows, delta).low,
        confidence_interval(disagreed + unknown, rows, delta).high,
    )


def rows_to_tell(
    agreed: int, disagreed: int, unknown: int, limit: float, delta: float
) -> int | None:
    """How many more rows a verdict will take if they go on as they were, about.

    Returns:
        0 where there is a verdict; None where there would be none after 10^9 rows: the rate is too
        near to the limit.
    """
    known = agreed + disagreed
    rate = disagreed / known if known else 0.0

    def told(more: float) -> bool:
        rows = known + unknown + more
        events = disagreed + rate * more
        if events / rows > limit:  # only the lower end can be beyond the limit
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
