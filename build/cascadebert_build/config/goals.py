"""What thresholds are chosen for: a guarantee about the answers, or a budget.

Or they are not chosen at all, but set by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from cascadebert_core.guarantee import (
    BUDGETS,
    BY_HAND,
    COST,
    DEFAULT_CONFIDENCE,
    DEFERRAL_RATE,
    DISAGREEMENT,
    GUARANTEES,
    SPEEDUP,
    Guarantee,
    budget_as_text,
)

from ..errors import UsageError

KINDS = (*GUARANTEES, *BUDGETS, BY_HAND)
# For guarantees: no realistic number of rows could show a smaller one.
_LEAST_LIMIT = 1e-6


@dataclass(frozen=True, slots=True)
class Goal:
    """The goal of one operating point.

    Attributes:
        kind: One of `KINDS`.
        limit: A share for disagreement, accuracy drop and deferral rate. For `SPEEDUP`, how many
            times faster than the last member alone. For `COST`, milliseconds a row. For `BY_HAND`,
            the thresholds themselves. A deferral rate and thresholds may have one number for each
            stage but the last.
        confidence: That a guarantee holds. Budgets ignore it.
    """

    kind: str
    limit: float | tuple[float, ...]
    confidence: float = DEFAULT_CONFIDENCE

    @property
    def guarantee(self) -> Guarantee | None:
        """The guarantee; None for budgets and thresholds by hand, which guarantee nothing."""
        if self.kind not in GUARANTEES:
            return None
        assert isinstance(self.limit, float)
        return Guarantee(self.kind, self.limit, self.confidence)

    def rates(self, n: int) -> tuple[float, ...]:
        """The limit for each of n stages."""
        if isinstance(self.limit, tuple):
            return self.limit * n if len(self.limit) == 1 else self.limit
        return (self.limit,) * n

    def check(self, where: str, n_thresholds: int) -> None:
        """Refuse a limit that is out of range.

        Args:
            where: The goal's place in cascade.toml, for the message.
            n_thresholds: Number of stages that may defer.

        Raises:
            UsageError: The message names the value and what is allowed.
        """
        key = f"{where}.{self.kind}"
        if not 0 < self.confidence < 1:
            raise UsageError(
                f"{where}.confidence is {self.confidence}: give a number between 0 and 1"
            )
        if self.kind in {DEFERRAL_RATE, BY_HAND}:
            rates = self.rates(1)
            if any(not 0.0 <= rate <= 1.0 for rate in rates):
                raise UsageError(f"{key} is {list(rates)}: give numbers from 0 to 1")
            if len(rates) not in {1, n_thresholds}:
                raise UsageError(
                    f"{key} has {len(rates)} numbers: give one, or one for each of the "
                    f"{n_thresholds} stages that may defer"
                )
            return
        limit = self.rates(1)[0]
        if self.kind in GUARANTEES and not _LEAST_LIMIT <= limit < 1:
            raise UsageError(
                f"{key} is {limit}: give a share between 0 and 1, such as 0.01, and no less than "
                f"{_LEAST_LIMIT:g}"
            )
        if self.kind == SPEEDUP and not limit >= 1:
            raise UsageError(f"{key} is {limit}: give a number of at least 1")
        if self.kind == COST and not limit > 0:
            raise UsageError(f"{key} is {limit}: give milliseconds a row, above 0")

    def __str__(self) -> str:
        if self.guarantee is not None:
            return str(self.guarantee)
        if self.kind == BY_HAND:
            return "set by hand"
        return budget_as_text(self.kind, self.rates(1))


# The operating points of a cascade.toml that has no goals.
DEFAULT_GOALS = {
    "fast": Goal(DISAGREEMENT, 0.05),
    "balanced": Goal(DISAGREEMENT, 0.02),
    "accurate": Goal(DISAGREEMENT, 0.01),
}
DEFAULT_POINT = "balanced"
# The name of the operating point whose goal is in [tune].
ONLY_POINT = "default"
