"""The goal of an operating point: a guarantee about its answers, or a budget without one.

The kinds are keys in cascade.toml, in a policy's certificate and in the published configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Guarantees. The limit is a share, above 0 and below 1.
DISAGREEMENT = "max_disagreement"  # of inputs that get another answer than the last stage's
ACCURACY_DROP = "max_accuracy_drop"  # the last stage's accuracy minus the cascade's
GUARANTEES = (DISAGREEMENT, ACCURACY_DROP)

# Budgets.
DEFERRAL_RATE = "max_deferral_rate"  # share of the rows reaching a stage that it defers
SPEEDUP = "min_speedup"  # times faster than the last stage alone
COST = "max_cost"  # milliseconds a row
BUDGETS = (DEFERRAL_RATE, SPEEDUP, COST)

# Neither: thresholds that are set by hand, one for each stage but the last.
BY_HAND = "thresholds"

DEFAULT_CONFIDENCE = 0.95

_GUARANTEE_WORDS = {
    DISAGREEMENT: "the answer differs from the last member's on at most {:.3g}% of the inputs",
    ACCURACY_DROP: "accuracy at most {:.3g} points below the last member's",
}
_BUDGET_WORDS = {
    DEFERRAL_RATE: "at most {} of the rows deferred by a stage",
    SPEEDUP: "at least {} times faster than the last member alone",
    COST: "at most {} ms a row",
}


@dataclass(frozen=True, slots=True)
class Guarantee:
    """A limit on what the cascade may lose, and the confidence that the limit is kept.

    The fields are also the keys of its JSON form.

    Attributes:
        kind: One of `GUARANTEES`.
        limit: The mean loss over all inputs is at most this; above 0 and below 1.
        confidence: The probability that the limit is kept; above 0 and below 1.
    """

    kind: str
    limit: float
    confidence: float

    @property
    def delta(self) -> float:
        """The probability that the guarantee does not hold: 1 - confidence."""
        return 1 - self.confidence

    def __str__(self) -> str:
        what = _GUARANTEE_WORDS[self.kind].format(100 * self.limit)
        return f"{what}, with {100 * self.confidence:.4g}% confidence"


def budget_as_text(kind: str, limits: Sequence[float]) -> str:
    """Describe a budget.

    Args:
        kind: One of `BUDGETS`.
        limits: One number, or one for each stage that may defer.
    """
    return _BUDGET_WORDS[kind].format("/".join(f"{value:g}" for value in limits))
