"""The gates that are compared: each gives a stage's answers and scores in a random split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.evaluation.metrics import confidence_score
from cascadebert_core.signals import MAX_PROBABILITY

from .measures import Judged
from .pairs import Group, Pair, log_softmax
from .scores import FITTED, Halves, columns_of, fitted_scores, out_of_half, signals_of

AGREEMENT = "both agree"
MEAN_OF_TWO = "mean of both"
BASELINE = MAX_PROBABILITY
_SPARE = 1.0


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate on a group's pairs.

    Attributes:
        name: For tables.
        fitted: Whether it spends a part of the held-out rows.
        judge: Its answers and out-of-fit scores for all rows, given a position in the group's pairs
            and the halves of a split.
    """

    name: str
    fitted: bool
    judge: Callable[[int, Halves], Judged]


def gates_of(group: Group) -> list[Gate]:
    """Return the gates of one small member, the baseline first."""
    found = [
        Gate(name, fitted=False, judge=_of_signal(group, name))
        for name in signals_of(group.pairs[0][0])
    ]
    return found + [Gate(name, fitted=True, judge=_of_fitted(group, name)) for name in FITTED]


def gates_of_twins(group: Group) -> list[Gate]:
    """Return the gates of two small members, the baseline (the second member alone) first."""
    return [
        Gate(BASELINE, fitted=False, judge=lambda i, _: confident(group.pairs[i][1])),
        Gate(AGREEMENT, fitted=False, judge=lambda i, _: _agreeing(*group.pairs[i])),
        Gate(MEAN_OF_TWO, fitted=False, judge=lambda i, _: _averaged(*group.pairs[i])),
    ]


def _of_signal(group: Group, name: str) -> Callable[[int, Halves], Judged]:
    def judge(i: int, _: Halves) -> Judged:
        (pair,) = group.pairs[i]
        return replace(confident(pair), score=signals_of(pair)[name])

    return judge


def _of_fitted(group: Group, name: str) -> Callable[[int, Halves], Judged]:
    def judge(i: int, halves: Halves) -> Judged:
        (pair,) = group.pairs[i]
        columns = columns_of(pair, name)

        def score(fitting: NDArray[np.intp]) -> NDArray[np.float64]:
            return fitted_scores(columns, pair.differs, fitting)

        return replace(confident(pair), score=out_of_half(len(pair), halves, score))

    return judge


def confident(pair: Pair) -> Judged:
    """Return the small member's answers, the most confident first."""
    answers, large = pair.small.argmax(axis=1), pair.large.argmax(axis=1)
    return Judged(confidence_score(pair.small), answers, large, pair.truth)


def _agreeing(first: Pair, second: Pair) -> Judged:
    """Return what two members agree on, by the less confident one; they exit before all others."""
    one, other = confident(first), confident(second)
    score = np.minimum(one.score, other.score)
    apart = one.answers != other.answers
    # The others are the last to exit, in the order of the second member.
    below = score.min() - other.score.max() - _SPARE
    return replace(other, score=np.where(apart, other.score + below, score))


def _averaged(first: Pair, second: Pair) -> Judged:
    """Return the answers of the mean of two members' log-probabilities."""
    mean = (first.log_probabilities + second.log_probabilities) / 2
    return confident(replace(second, small=log_softmax(mean)))
