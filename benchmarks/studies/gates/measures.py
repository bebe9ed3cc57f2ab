"""What a gate's score is worth on rows that did not fit it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.goals import Goal
from cascadebert_build.config.rows import Rows
from cascadebert_build.evaluation.costs import RowCosts
from cascadebert_build.evaluation.metrics import deferral_curve, difficulty_inversion_score
from cascadebert_build.tuning.guarantee import Predictions, certify_by_scan
from cascadebert_build.tuning.operating_point import TuningRows, choose_operating_point
from cascadebert_build.tuning.row_split import RowSplit, split_rows_for_tuning
from cascadebert_core.guarantee import DISAGREEMENT

LIMITS = (0.01, 0.02)
CONFIDENCE = 0.95
_COSTS = (1.0, 10.0)


@dataclass(frozen=True, slots=True)
class Judged:
    """A stage's answers and score, and the large member's answers, for n rows.

    Attributes:
        score: Higher for rows that exit first, shape (n,).
        answers: The stage's, shape (n,).
        large: The large member's, shape (n,).
        truth: The labels, shape (n,).
        last: What the deferred rows are answered, if not the large member's answers.
    """

    score: NDArray[np.float64]
    answers: NDArray[np.int64]
    large: NDArray[np.int64]
    truth: NDArray[np.int64]
    last: NDArray[np.int64] | None = None

    def take(self, rows: NDArray[np.intp]) -> Judged:
        """Some of the rows."""
        last = None if self.last is None else self.last[rows]
        score, answers, large, truth = self.score, self.answers, self.large, self.truth
        return Judged(score[rows], answers[rows], large[rows], truth[rows], last)

    @property
    def auroc(self) -> float:
        """That of agreement, %: how often a row that agrees scores above one that does not."""
        return difficulty_inversion_score(self.score, self.answers == self.large)

    @property
    def area(self) -> float:
        """The mean accuracy over all deferral rates, %."""
        last = self.large if self.last is None else self.last
        right = self.answers == self.truth, last == self.truth
        return 100 * deferral_curve(self.score, *right).area

    def deferral_at(self, limit: float) -> float:
        """The least deferral, %, from which on the answers differ on at most a share of the rows.

        It is chosen on the same rows, so it is what a gate could give at best.
        """
        order = np.argsort(-self.score, kind="stable")
        lost = np.cumsum(self.answers[order] != self.large[order])
        above = np.flatnonzero(lost > limit * len(order))
        return 100 * (1 - (above[0] if above.size else len(order)) / len(order))

    def deferral_by_label_at(self, limit: float) -> float:
        """The least deferral, %, of all ways to give each answer a threshold of its own.

        The thresholds are chosen on the same rows, so this is a bound for every gate that keeps the
        order within each answer. Like `deferral_at`, it counts the losses of all rows.
        """
        most = int(limit * len(self.score))
        # The most rows that exit with 0, 1, ... losses: for each answer, then for all together.
        exiting = np.zeros(most + 1, dtype=np.int64)
        for answer in np.unique(self.answers):
            own = np.flatnonzero(self.answers == answer)
            order = own[np.argsort(-self.score[own], kind="stable")]
            lost = np.cumsum(self.answers[order] != self.large[order])
            of_answer = np.searchsorted(lost, np.arange(most + 1), side="right")
            exiting = np.array(
                [(exiting[: k + 1] + of_answer[k::-1]).max() for k in range(most + 1)]
            )
        return 100 * (1 - int(exiting[-1]) / len(self.score))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The rows that a user would tune with: how many, and what for.

    Attributes:
        n: All of them.
        split: `tune`'s own.
    """

    n: int
    split: RowSplit

    @classmethod
    def of(cls, n: int) -> HeldOut:
        """Split n labelled rows as `tune` does."""
        return cls(n, split_rows_for_tuning(Rows(tuple(map(str, range(n))), (0,) * n, "drawn")))

    def left_for(self, *, fitted: bool) -> RowSplit:
        """Return the split; a fitted gate has used up the rows of the design."""
        if not fitted:
            return self.split
        of, none = self.split, np.zeros(0, dtype=np.intp)
        return RowSplit(of.temperature, none, of.test, of.report, of.duplicates)


@dataclass(frozen=True, slots=True)
class Promised:
    """A promise that was tuned on rows drawn from a population, as it is in the population.

    Attributes:
        deferral: The share that is deferred, %.
        broken: Whether the answers differ on more rows than was promised.
    """

    deferral: float
    broken: bool


class Population:
    """Rows that did not fit a gate, from which held-out rows are drawn with replacement.

    So the true disagreement at any threshold is known.
    """

    def __init__(self, rows: Judged) -> None:
        """Rank the rows. Only the order counts, and float32 would make neighbours equal."""
        order = np.argsort(rows.score, kind="stable")
        values = rows.score[order]
        group = np.concatenate([[0], np.cumsum(values[1:] != values[:-1])])
        confidence = np.empty((len(order), 1), dtype=np.float32)
        confidence[order, 0] = (group + 1) / (group[-1] + 2)
        self._rows = Predictions(np.stack([rows.answers, rows.large], axis=1), confidence)

    def draw(self, n: int, rng: np.random.Generator) -> Predictions:
        """Draw n held-out rows."""
        return self._rows.take(rng.integers(0, len(self._rows), n))

    def promised(self, drawn: Predictions, split: RowSplit, limit: float) -> Promised:
        """Tune a promise of disagreement as `tune` does with one threshold.

        Args:
            drawn: Held-out rows.
            split: What each of them is for.
            limit: The most disagreement.
        """
        guarantee = Goal(DISAGREEMENT, limit, CONFIDENCE).guarantee
        assert guarantee is not None
        found = certify_by_scan(guarantee, drawn.take(split.thresholds))
        return self._outcome(found.thresholds, limit)

    def promised_by_label(
        self, drawn: Predictions, split: RowSplit, limit: float, n_labels: int
    ) -> Promised:
        """Tune a promise of disagreement as `tune` does with a threshold for each label."""
        costs = RowCosts(np.tile(np.array(_COSTS), (len(drawn), 1)))
        point = choose_operating_point(
            Goal(DISAGREEMENT, limit, CONFIDENCE),
            TuningRows(drawn, costs, split, n_labels),
            per_label=True,
        )
        return self._outcome(np.array(point.thresholds, dtype=np.float32), limit)

    def _outcome(self, thresholds: NDArray[np.float32], limit: float) -> Promised:
        exits = self._rows.exits(thresholds)
        lost = self._rows.losses(DISAGREEMENT)[np.arange(len(exits)), exits]
        return Promised(100 * float((exits != 0).mean()), bool(lost.mean() > limit))
