"""Thresholds that keep a guarantee, and the evidence for it.

A guarantee limits the mean of a loss over future inputs, with a stated confidence. Thresholds are
chosen on held-out rows by fixed-sequence testing (Learn-then-Test, Angelopoulos et al., 2021):
settings are tested from the safest to the loosest, each at the full level, and the last one before
the first failure is chosen. For any data, the probability of choosing a setting that breaks the
guarantee is at most 1 - confidence.

With one threshold and a loss that only grows as more rows exit, all thresholds can be tested in
turn (Bates et al., JACM 2021: the sequence need not be fixed in advance). In all other cases other
rows choose the sequence: settings on their Pareto frontier of cost and loss (Pareto testing,
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

# Length of the sequence of settings that other rows choose.
MAX_SETTINGS = 200


def rows_needed(guarantee: Guarantee) -> int:
    """The fewest rows that can show a guarantee, if none of them is a loss.

    For an accuracy drop, cascade and last member are equally right on all of these rows. Fewer rows
    could be enough if the cascade is right where the last member is wrong, but a plan should not
    count on it.
    """
    n = smallest_n(guarantee.limit, guarantee.delta)
    if guarantee.kind == DISAGREEMENT:
        return n
    stakes = signed_stakes(guarantee.delta)
    while betting_p_value(np.zeros(n), guarantee.limit, stakes) > guarantee.delta:
        n += max(1, n // 200)
    return n


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions of all stages for n rows.

    Attributes:
        labels: The keys of each stage's answers, shape (n, n_stages): label indices, or keys of
            label sets; see `cascadebert_core.task`.
        confidence: Of each stage but the last, shape (n, n_stages - 1). NaN never exits.
        truth: The keys of the true answers, shape (n,), or None if they are not known.
    """

    labels: NDArray[Any]
    confidence: NDArray[np.float32]
    truth: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.intp]) -> Predictions:
        """Some of the rows."""
        truth = None if self.truth is None else self.truth[rows]
        return Predictions(self.labels[rows], self.confidence[rows], truth)

    def losses(self, kind: str) -> NDArray[np.int8]:
        """The loss of each row if it exits at a stage, shape (n, n_stages); 0 at the last stage.

        For `DISAGREEMENT` it is 1 or 0. For `ACCURACY_DROP` it is 1 if only the last stage is
        right, -1 if only this stage is right, else 0.

        Raises:
            UsageError: The kind is an accuracy drop, and there are no labels.
        """
        last = self.labels[:, -1:]
        if kind == DISAGREEMENT:
            return (self.labels != last).astype(np.int8)
        if self.truth is None:
            raise UsageError(needs_labels())
        right = self.labels == self.truth[:, None]
        return right[:, -1:].astype(np.int8) - right.astype(np.int8)

    def exits(self, thresholds: NDArray[np.float32]) -> NDArray[np.intp]:
        """The stage at which each row exits, shape (n,).

        Args:
            thresholds: Shape (n_stages - 1,), or (n_stages - 1, n_labels) if they differ by the
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
class CertifiedThresholds:
    """Thresholds, and the evidence that they keep a guarantee.

    Attributes:
        thresholds: Shape (n_stages - 1,) or (n_stages - 1, n_labels).
        n: Number of rows that they were tested on.
        observed: The mean loss on these rows.
        bound: Upper bound of the mean loss over all inputs, at the guarantee's confidence for
            thresholds that were fixed before. These were chosen by their losses, so only the limit
            is guaranteed. For an accuracy drop it is the limit, since that is what the test shows.
        method: The name of the test.
        tried: Number of settings that were tested.
    """

    thresholds: NDArray[np.float32]
    n: int
    observed: float
    bound: float
    method: str
    tried: int


def needs_labels() -> str:
    """The message for an accuracy drop without labels."""
    return (
        "max_accuracy_drop needs labelled rows: name the label column in [data], or give "
        "max_disagreement, which needs no labels"
    )


def check_enough_rows(guarantee: Guarantee, n: int) -> None:
    """Refuse a guarantee that n rows cannot show.

    Raises:
        UsageError: The message has the number of rows that are needed.
    """
    needed = rows_needed(guarantee)
    if n < needed:
        loss = "loss" if guarantee.kind == DISAGREEMENT else "answer won or lost"
        raise UsageError(
            f"{n} rows are left to test thresholds on, too few to guarantee {guarantee}: that "
            f"needs at least {needed}, without a single {loss} among them; give more held-out "
            "rows, a higher limit or a lower confidence"
        )


def certify_by_scan(guarantee: Guarantee, predictions: Predictions) -> CertifiedThresholds:
    """The loosest threshold of a two-stage cascade that keeps a guarantee of disagreement.

    Every threshold between two confidences is tested, starting with the one that defers all rows.

    Args:
        guarantee: Of the kind `DISAGREEMENT`, whose loss only grows as more rows exit.
        predictions: Of two stages for the rows to test on.

    Raises:
        UsageError: There are too few rows.
    """
    n = len(predictions)
    check_enough_rows(guarantee, n)
    confidence = predictions.confidence[:, 0]
    order = np.argsort(-confidence, kind="stable")
    order = order[np.isfinite(confidence[order])]  # the others never exit
    ordered = confidence[order]
    lost = np.cumsum(predictions.losses(DISAGREEMENT)[order, 0])
    # A threshold separates rows of different confidence: possible numbers of rows that exit.
    last_of_group = np.append(ordered[:-1] != ordered[1:], [True] * min(1, len(ordered)))
    counts = np.flatnonzero(last_of_group) + 1
    p_values = binomial_p_value(lost[counts - 1], n, guarantee.limit)
    failed = np.flatnonzero(p_values > guarantee.delta)
    n_kept = int(failed[0]) if failed.size else len(counts)
    exiting = int(counts[n_kept - 1]) if n_kept else 0
    losses = int(lost[exiting - 1]) if exiting else 0
    return CertifiedThresholds(
        np.array([_threshold_after(ordered, exiting)], dtype=np.float32),
        n,
        losses / n,
        binomial_upper_bound(losses, n, guarantee.delta),
        "exact binomial, every threshold from the safest on",
        min(n_kept + 1, len(counts)),
    )


def certify_in_order(
    guarantee: Guarantee,
    predictions: Predictions,
    settings: Sequence[NDArray[np.float32]],
    cost: Callable[[NDArray[np.intp]], float],
    seed: int = 0,
) -> CertifiedThresholds:
    """The fastest of the settings that keep a guarantee, tested one after the other.

    Args:
        guarantee: Of either kind.
        predictions: For the rows to test on. None of these rows may have chosen the settings.
        settings: Thresholds, the safest first; see `pareto_frontier`.
        cost: The mean cost of the rows, given the stage at which each exits.
        seed: Of the order of the rows, which the betting test of an accuracy drop depends on.

    Raises:
        UsageError: There are too few rows.
    """
    n = len(predictions)
    check_enough_rows(guarantee, n)
    losses = predictions.losses(guarantee.kind)
    order = np.random.default_rng(seed).permutation(n)
    rows = np.arange(n)
    everything = np.full_like(settings[0], 1.0)
    best, observed, best_cost = everything, 0.0, cost(np.full(n, predictions.labels.shape[1] - 1))
    tried = 0
    for thresholds in settings:
        tried += 1
        exits = predictions.exits(thresholds)
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
    return CertifiedThresholds(best, n, observed, bound, method, tried)


def pareto_frontier(
    guarantee: Guarantee,
    predictions: Predictions,
    candidates: Sequence[NDArray[np.float32]],
    cost: Callable[[NDArray[np.intp]], float],
) -> list[NDArray[np.float32]]:
    """The settings to test, the safest first, chosen on other rows than those of the test.

    No candidate has both a smaller mean loss and a smaller mean cost than one of these settings.

    Args:
        guarantee: What will be tested.
        predictions: For other rows than those of the test.
        candidates: Thresholds.
        cost: The mean cost of the rows, given the stage at which each exits.

    Returns:
        At most `MAX_SETTINGS`, evenly thinned.
    """
    rows = np.arange(len(predictions))
    losses = predictions.losses(guarantee.kind)
    measured: list[tuple[float, float, int]] = []
    for i, thresholds in enumerate(candidates):
        exits = predictions.exits(thresholds)
        measured.append((float(losses[rows, exits].mean()), cost(exits), i))
    kept: list[int] = []
    fastest = np.inf
    for _, mean_cost, i in sorted(measured):
        if mean_cost < fastest:
            kept.append(i)
            fastest = mean_cost
    picks = np.unique(np.linspace(0, len(kept) - 1, min(MAX_SETTINGS, len(kept))).astype(int))
    return [candidates[kept[i]] for i in picks]


def _p_value(guarantee: Guarantee, losses: NDArray[Any]) -> float:
    if guarantee.kind == DISAGREEMENT:
        return float(binomial_p_value(int(losses.sum()), len(losses), guarantee.limit))
    return betting_p_value(
        losses.astype(np.float64), guarantee.limit, signed_stakes(guarantee.delta)
    )


def _threshold_after(ordered: NDArray[np.float32], exiting: int) -> float:
    """A float32 threshold at which the first `exiting` of descending confidences exit.

    It is halfway to the next confidence, because the last digits of a confidence vary with batch
    and padding.
    """
    if exiting == 0:
        return 1.0
    if exiting == len(ordered):
        return 0.0
    upper, lower = float(ordered[exiting - 1]), float(ordered[exiting])
    halfway = np.float32((upper + lower) / 2)
    return float(halfway if lower <= halfway < upper else lower)
