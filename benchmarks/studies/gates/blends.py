"""A blend at the end: the last stage's answer weighs in what the first stage said.

Two weights, of the log-probabilities of both members, are fitted to the labels of other rows (a
product of experts; stacking without an offset). Its promise could only be about accuracy, because
its answers are no longer the large member's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.evaluation.metrics import Interval

from .comparisons import Effort, interval_of
from .gates import gates_of
from .pairs import Group, Pair, log_softmax
from .scores import Halves, Values, halves_of

_EVEN = np.array([1.0, 0.5])


@dataclass(frozen=True, slots=True)
class Blended:
    """The blend on a group, with 95% intervals over rows; accuracies in %.

    Attributes:
        group: The small member.
        large: The accuracy of the large member alone.
        weight: The small member's share of the two weights, a mean over fits.
        alone: What the blend gains if every row is deferred.
        area: What it gains in the mean accuracy over all deferral rates.
    """

    group: Group
    large: float
    weight: float
    alone: Interval
    area: Interval


def blended(group: Group, effort: Effort) -> Blended:
    """Compare the blend with the large member, on rows that did not fit the weights."""
    n = len(group.pairs[0][0])
    gate = gates_of(group)[0]
    splits = [halves_of(n, split) for split in range(effort.splits)]
    weights: list[float] = []
    compared = [
        [
            (base := gate.judge(i, halves), replace(base, last=_answers(pair, halves, weights)))
            for i, (pair,) in enumerate(group.pairs)
        ]
        for halves in splits
    ]

    def gains(split: int, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        found: list[tuple[float, float]] = []
        for base, blend in compared[split]:
            one, other = base.take(rows), blend.take(rows)
            right = (other.last == other.truth).mean() - (one.large == one.truth).mean()
            found.append((100 * float(right), other.area - one.area))
        return np.mean(found, axis=0)

    everything = np.arange(n)
    value = np.mean([gains(split, everything) for split in range(effort.splits)], axis=0)
    rows = np.random.default_rng((0, n)).integers(0, n, (effort.resamples, n))
    draws = np.array([gains(b % effort.splits, own) for b, own in enumerate(rows)])
    large = [(pair.large.argmax(axis=1) == pair.truth).mean() for (pair,) in group.pairs]
    return Blended(
        group, 100 * float(np.mean(large)), float(np.mean(weights)),
        interval_of(value[0], draws[:, 0]), interval_of(value[1], draws[:, 1]),
    )  # fmt: skip


def _answers(pair: Pair, halves: Halves, weights: list[float]) -> NDArray[np.int64]:
    """Return the blend's answer to each row, with weights that the other half has fitted."""
    logs = np.stack([log_softmax(pair.large), pair.log_probabilities])
    answers = np.empty(len(pair), dtype=np.int64)
    for fitting, judged in (halves, halves[::-1]):
        found = fit_weights(logs[:, fitting], pair.truth[fitting])
        weights.append(float(found[1] / found.sum()))
        answers[judged] = np.tensordot(found, logs[:, judged], axes=1).argmax(axis=1)
    return answers


def fit_weights(logs: Values, truth: NDArray[np.int64]) -> Values:
    """Return weights of the members, not negative, with the greatest likelihood of the labels.

    Args:
        logs: Log-probabilities, shape (2, n, n_labels).
        truth: Shape (n,).
    """
    from scipy.optimize import minimize

    rows = np.arange(len(truth))

    def loss(weights: Values) -> tuple[float, Values]:
        log_p = log_softmax(np.tensordot(weights, logs, axes=1))
        expected = (np.exp(log_p) * logs).sum(axis=2)
        return -log_p[rows, truth].mean(), (expected - logs[:, rows, truth]).mean(axis=1)

    return minimize(loss, _EVEN, jac=True, method="L-BFGS-B", bounds=[(1e-3, 20), (0, 20)]).x
