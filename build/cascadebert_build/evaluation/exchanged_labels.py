"""Finds a member whose labels have each other's names: its answers are right once renamed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import needs_extra
from .intervals import share_interval

# Labels are exchanged only if chance alone would rarely show it of any group of labels.
_CHANCE = 0.001
# And each of these labels by itself shows it this clearly. A member that never gives one of two
# labels must not count: the other one may be right less often than not.
_CHANCE_OF_LABEL = 0.05
# A smaller gain, as a share of the rows that the member gives these labels, is left alone.
_LEAST_GAIN = 0.1


@dataclass(frozen=True, slots=True)
class ExchangedLabels:
    """Labels of a member that seem to have each other's names.

    Attributes:
        names: Each of these labels in the order in which they take turns: the first is truly the
            second, and so on; the last one of a turn is the first of it.
        right: The share of the rows that the member is right on.
        renamed: The same once its labels have the other names.
        worse_than_chance: Whether the member is surely right less often than answers drawn by lot
            with the same frequencies would be, and surely more often once renamed.
    """

    names: tuple[str, ...]
    right: float
    renamed: float
    worse_than_chance: bool


def find_exchanged_labels(
    answers: NDArray[Any], truth: NDArray[Any], names: Sequence[str]
) -> ExchangedLabels | None:
    """Look for the other names of a member's labels with which it is right far more often.

    Args:
        answers: Label indices, shape (n,); -1 is no answer.
        truth: The true label indices, shape (n,).
        names: Of the labels.

    Returns:
        None if the names are right, or the rows are too few to show that they are not.
    """
    with needs_extra("build"):
        from scipy.optimize import linear_sum_assignment
        from scipy.stats import binom
    n_labels = len(names)
    answered = answers >= 0
    counts = np.zeros((n_labels, n_labels), dtype=np.int64)
    np.add.at(counts, (answers[answered].astype(int), truth[answered].astype(int)), 1)
    # Among equal assignments, the one that renames the fewest.
    weights = counts + np.eye(n_labels) / (n_labels + 1)
    _, best = linear_sum_assignment(weights, maximize=True)
    renamed = np.arange(n_labels)
    for turn in _turns(best):
        better, as_is = counts[turn, best[turn]], counts[turn, turn]
        each = binom.sf(better - 1, better + as_is, 0.5)
        together = binom.logsf(better.sum() - 1, better.sum() + as_is.sum(), 0.5)
        gain = (better.sum() - as_is.sum()) / max(1, counts[turn].sum())
        if (
            (each < _CHANCE_OF_LABEL).all()
            and together < np.log(_CHANCE) - _log_of_turns(len(turn), n_labels)
            and gain >= _LEAST_GAIN
        ):
            renamed[turn] = best[turn]
    moved = [index for turn in _turns(renamed) for index in turn]
    if not moved:
        return None
    n = len(answers)
    labels = np.arange(n_labels)
    before, after = int(counts[labels, labels].sum()), int(counts[labels, renamed].sum())
    given, true = counts.sum(axis=1) / n, counts.sum(axis=0) / n
    return ExchangedLabels(
        tuple(names[index] for index in moved),
        before / n,
        after / n,
        share_interval(before, n).high < float((given * true).sum())
        and share_interval(after, n).low > float((given * true[renamed]).sum()),
    )


def _log_of_turns(length: int, n_labels: int) -> float:
    """The logarithm of how many groups of this many labels can take turns, at most."""
    return length * math.log(n_labels) - math.log(length)


def _turns(assigned: NDArray[Any]) -> list[list[int]]:
    """The labels that take each other's places, each group in its order."""
    turns: list[list[int]] = []
    seen: set[int] = set()
    for start in range(len(assigned)):
        turn: list[int] = []
        at = start
        while at not in seen:
            seen.add(at)
            turn.append(at)
            at = int(assigned[at])
        if len(turn) > 1:
            turns.append(turn)
    return turns
