"""Thresholds that keep a promise, and the evidence for it.

A promise limits the mean of a loss over the inputs that will come, with a stated confidence. The
thresholds are chosen on held-out rows by fixed-sequence testing (Learn-then-Test, Angelopoulos et
al., 2021): settings are tried from the safest to the loosest, each is tested at the full level, and
the last one before the first failure is taken. Whatever the data, a setting that breaks the promise
is taken with probability at most 1 - confidence.

With one threshold and a loss that can only grow as more rows exit, every threshold may be tried in
turn (Bates et al., JACM 2021: the sequence need not be known beforehand). Everywhere else the
sequence comes from other rows: settings on the frontier of cost and loss there (Pareto testing,
Laufer-Goldenberg et al., ICLR 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.guarantee import DISAGREEMENT, Guarantee

from ..errors import UsageError
from .risk import betting_p_value, binomial_p_value, binomial_upper_bound, signed_stakes, smallest_n

# Settings that are tried one after the other where other rows choose the sequence.
MAX_SETTINGS = 200


def rows_needed(guarantee: Guarantee) -> int:
    """The fewest rows that can show a guarantee, if not one of them is a loss.

    For an accuracy drop these are rows on which nothing is won or lost. Answers that the cascade
    wins over the last member could show it with fewer, but a plan should not count on them.
    """
    n = smallest_n(guarantee.limit, guarantee.delta)
    if guarantee.kind == DISAGREEMENT:
        return n
    stakes = signed_stakes(guarantee.delta)
    while betting_p_value(np.zeros(n), guarantee.limit, stakes) > guarantee.delta:
        n += max(1, n // 200)
    return n


@dataclass(frozen=True, slots=True)
class Answers:
    """What the stages say of n rows.

    Attributes:
        labels: predicted by each stage, shape (n, n_stages).
        confidence: of each stage but the last, shape (n, n_stages - 1); NaN never exits.
        truth: shape (n,), or None where nobody knows.
    """

    labels: NDArray[np.int64]
    confidence: NDArray[np.float32]
    truth: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.intp]) -> Answers:
        """Some of the rows."""
        truth = None if self.truth is None else self.truth[rows]
        return Answers(self.labels[rows], self.confidence[rows], truth)

    def losses(self, kind: str) -> NDArray[np.int8]:
        """Loss of a row if it exits at a stage, shape (n, n_stages); 0 at the last.

        1 or 0 for `DISAGREEMENT`; 1, 0 or -1 (an answer won) for `ACCURACY_DROP`.

        Raises:
            UsageError: an accuracy drop without labels.
        """
        last = self.labels[:, -1:]
        if kind == DISAGREEMENT:
            return (self.labels != last).astype(np.int8)
        if self.truth is None:
            raise UsageError(
                "max_accuracy_drop needs labelled rows: name the label column in [data], or "
                "promise max_disagreement, which needs none"
            )
        right = self.labels == self.truth[:, None]
        return right[:, -1:].astype(np.int8) - right.astype(np.int8)

    def exits(self, thresholds: NDArray[np.float32]) -> NDArray[np.intp]:
        """Stage at which each row exits, shape (n,).

        Args:
            thresholds: shape (n_stages - 1,), or (n_stages - 1, n_labels) where they differ by the
                label that a stage predicts.
        """
        limits = np.asarray(thresholds, dtype=np.float32)
        if limits.ndim == 2:
            stages = np.arange(len(limits))
            limits = limits[stages[None, :], self.labels[:, :-1]]
        exits = np.full(len(self), self.confidence.shape[1], dtype=np.intp)
        for stage in reversed(range(self.confidence.shape[1])):
            of_stage = limits[:, stage] if limits.ndim == 2 else limits[stage]
            exits[self.confidence[:, stage] > of_stage] = stage
        return exits


@dataclass(frozen=True, slots=True)
class Kept:
    """Thresholds, and why they keep a promise.

    Attributes:
        thresholds: shape (n_stages - 1,) or (n_stages - 1, n_labels).
        n: rows that they were tested on.
        observed: mean loss there.
        bound: of the mean over all inputs at the promised confidence; for an accuracy drop the
            limit itself, which is what was tested.
        method: of the test.
        tried: settings that were tested.
    """

    thresholds: NDArray[np.float32]
    n: int
    observed: float
    bound: float
    method: str
    tried: int

    @property
    def defers_everything(self) -> bool:
        """Whether nothing but the last member could be promised."""
        return bool((self.thresholds >= 1).all())


def check_enough_rows(guarantee: Guarantee, n: int) -> None:
    """Refuse a promise that these many rows could not show.

    Raises:
        UsageError: with the number that it takes.
    """
    needed = rows_needed(guarantee)
    if n < needed:
        loss = "loss" if guarantee.kind == DISAGREEMENT else "answer won or lost"
        raise UsageError(
            f"{n} rows are left to test thresholds on, and to promise {guarantee} takes at least "
            f"{needed}, without a single {loss} among them: give more held-out rows, "
            "a higher limit or a lower confidence"
        )


def keep_by_scan(guarantee: Guarantee, answers: Answers) -> Kept:
    """The loosest threshold of a two-stage cascade that keeps a promise of disagreement.

    Every threshold between two confidences is tried, from the one that defers everything on.

    Args:
        guarantee: of the kind `DISAGREEMENT`, whose loss can only grow as more rows exit.
        answers: of two stages over the rows to test on.

    Raises:
        UsageError: there are too few rows.
    """
    n = len(answers)
    check_enough_rows(guarantee, n)
    confidence = answers.confidence[:, 0]
    order = np.argsort(-confidence, kind="stable")
    order = order[np.isfinite(confidence[order])]  # the others never exit
    ordered = confidence[order]
    lost = np.cumsum(answers.losses(DISAGREEMENT)[order, 0])
    # A threshold parts neighbours of different confidence: after so many rows that exit.
    last_of_group = np.append(ordered[:-1] != ordered[1:], [True] * min(1, len(ordered)))
    counts = np.flatnonzero(last_of_group) + 1
    p_values = binomial_p_value(lost[counts - 1], n, guarantee.limit)
    failed = np.flatnonzero(p_values > guarantee.delta)
    n_kept = int(failed[0]) if failed.size else len(counts)
    exiting = int(counts[n_kept - 1]) if n_kept else 0
    losses = int(lost[exiting - 1]) if exiting else 0
    return Kept(
        np.array([_threshold_after(ordered, exiting)], dtype=np.float32),
        n,
        losses / n,
        binomial_upper_bound(losses, n, guarantee.delta),
        "exact binomial, every threshold from the safest on",
        min(n_kept + 1, len(counts)),
    )


def keep_along(
    guarantee: Guarantee,
    answers: Answers,
    settings: Sequence[NDArray[np.float32]],
    cost: Callable[[NDArray[np.intp]], float],
    seed: int = 0,
) -> Kept:
    """The cheapest of some settings that keeps a promise, tested one after the other.

    Args:
        guarantee: of either kind.
        answers: over the rows to test on, none of which chose the settings.
        settings: thresholds, the safest first; see `frontier`.
        cost: of rows that exit at given stages, mean.
        seed: of the rows' order, which the bets of an accuracy drop are laid in.

    Raises:
        UsageError: there are too few rows.
    """
    n = len(answers)
    check_enough_rows(guarantee, n)
    losses = answers.losses(guarantee.kind)
    order = np.random.default_rng(seed).permutation(n)
    rows = np.arange(n)
    everything = np.full_like(settings[0], 1.0)
    best, observed, best_cost = everything, 0.0, cost(np.full(n, answers.labels.shape[1] - 1))
    tried = 0
    for thresholds in settings:
        tried += 1
        exits = answers.exits(thresholds)
        found = losses[rows, exits]
        if _p_value(guarantee, found[order]) > guarantee.delta:
            break
        mean_cost = cost(exits)
        if mean_cost < best_cost:
            best, observed, best_cost = thresholds, float(found.mean()), mean_cost
    if guarantee.kind == DISAGREEMENT:
        bound = binomial_upper_bound(round(observed * n), n, guarantee.delta)
        method = "exact binomial, settings in the order of other rows"
    else:
        bound = guarantee.limit
        method = "betting on a signed loss, settings in the order of other rows"
    return Kept(best, n, observed, bound, method, tried)


def frontier(
    guarantee: Guarantee,
    answers: Answers,
    candidates: Sequence[NDArray[np.float32]],
    cost: Callable[[NDArray[np.intp]], float],
) -> list[NDArray[np.float32]]:
    """Settings worth testing, the safest first, by rows that will not test them.

    Those on the frontier of mean loss and mean cost: nothing is both safer and cheaper.

    Args:
        guarantee: what will be tested.
        answers: over other rows than those of the test.
        candidates: thresholds.
        cost: of rows that exit at given stages, mean.

    Returns:
        At most `MAX_SETTINGS`, evenly thinned.
    """
    rows = np.arange(len(answers))
    losses = answers.losses(guarantee.kind)
    measured: list[tuple[float, float, int]] = []
    for i, thresholds in enumerate(candidates):
        exits = answers.exits(thresholds)
        measured.append((float(losses[rows, exits].mean()), cost(exits), i))
    kept: list[int] = []
    cheapest = np.inf
    for _, its_cost, i in sorted(measured):
        if its_cost < cheapest:
            kept.append(i)
            cheapest = its_cost
    picks = np.unique(np.linspace(0, len(kept) - 1, min(MAX_SETTINGS, len(kept))).astype(int))
    return [candidates[kept[i]] for i in picks]


def _p_value(guarantee: Guarantee, losses: NDArray[Any]) -> float:
    if guarantee.kind == DISAGREEMENT:
        return float(binomial_p_value(int(losses.sum()), len(losses), guarantee.limit))
    return betting_p_value(
        losses.astype(np.float64), guarantee.limit, signed_stakes(guarantee.delta)
    )


def _threshold_after(ordered: NDArray[np.float32], exiting: int) -> float:
    """A float32 below the first `exiting` of descending confidences and not below the next.

    Halfway, where there is anything between them: the last digits of a confidence change with
    batch and padding, and should seldom decide.
    """
    if exiting == 0:
        return 1.0
    if exiting == len(ordered):
        return 0.0
    upper, lower = float(ordered[exiting - 1]), float(ordered[exiting])
    halfway = np.float32((upper + lower) / 2)
    return float(halfway if lower <= halfway < upper else lower)
