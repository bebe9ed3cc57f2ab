"""The gates of a stage with one member: scores that are higher for rows that may exit.

The fitted ones are logistic regressions of *disagreement with the large member*, so they need no
labels. They are fitted on rows that choose nothing else and are never judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.evaluation.metrics import confidence_score
from cascadebert_core.signals import ENTROPY, MARGIN, MAX_PROBABILITY

from .pairs import Pair

Values = NDArray[np.float64]

BY_LABEL = "by label"
MONOTONE = "learned, monotone"
LEARNED = "learned"
FITTED = (BY_LABEL, MONOTONE, LEARNED)
# The weight of the squared coefficients, of standardised columns, against the rows' summed loss.
_RIDGE = 1.0
_SMALLEST = 1e-12


def signals_of(pair: Pair) -> dict[str, Values]:
    """Return the scores of the signals that need no fitting, each of shape (n,).

    For two labels they all order rows alike, so only the first is there.
    """
    names = (MAX_PROBABILITY, MARGIN, ENTROPY) if pair.small.shape[1] > 2 else (MAX_PROBABILITY,)
    return {name: confidence_score(pair.small, name) for name in names}


@dataclass(frozen=True, slots=True)
class Columns:
    """What a regression sees.

    Attributes:
        values: Shape (n, k).
        n_rising: The first columns that more agreement must go with.
    """

    values: Values
    n_rising: int


def columns_of(pair: Pair, gate: str) -> Columns:
    """Return the columns of a fitted gate.

    `BY_LABEL` has a slope and an offset for the log-odds of each predicted label: a temperature and
    a threshold for each label. `MONOTONE` adds the text's length. `LEARNED` adds the sorted
    log-probabilities, the margin, the entropy, and the length times the log-odds, and is free to
    fall where the confidence rises.
    """
    log_p = pair.log_probabilities
    n_labels = log_p.shape[1]
    ordered = np.sort(log_p, axis=1)[:, ::-1]
    largest = np.exp(ordered[:, 0])
    odds = ordered[:, 0] - np.log(np.maximum(1 - largest, _SMALLEST))
    label = np.eye(n_labels)[log_p.argmax(axis=1)]
    by_label: list[Values] = [label * odds[:, None], label]
    length: Values = np.log1p(pair.words)[:, None]
    if gate == BY_LABEL:
        return Columns(np.hstack(by_label), n_labels)
    if gate == MONOTONE:
        return Columns(np.hstack([*by_label, length]), n_labels)
    margin = largest - np.exp(ordered[:, 1])
    entropy = -(np.exp(log_p) * log_p).sum(axis=1)
    more = [ordered, margin[:, None], entropy[:, None], length, length * odds[:, None]]
    return Columns(np.hstack([*by_label, *more]), 0)


def fitted_scores(
    columns: Columns, differs: NDArray[np.bool_], fitting: NDArray[np.intp]
) -> Values:
    """Fit a regression on some rows, and return the log-odds of agreement of all, shape (n,).

    Args:
        columns: Of all rows.
        differs: Whether the large member disagrees, shape (n,).
        fitting: The rows that are fitted to.
    """
    known = columns.values[fitting]
    mean, deviation = known.mean(axis=0), known.std(axis=0) + _SMALLEST
    agrees = ~differs[fitting]
    weights = fit_logistic((known - mean) / deviation, agrees, columns.n_rising)
    return (columns.values - mean) / deviation @ weights[:-1] + weights[-1]


def fit_logistic(values: Values, positive: NDArray[np.bool_], n_rising: int = 0) -> Values:
    """Return the weights of a ridge logistic regression, shape (k + 1,); the last is the offset.

    Args:
        values: Shape (n, k), of mean 0 and deviation 1.
        positive: Shape (n,).
        n_rising: The first weights that may not be negative.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(weights: Values) -> tuple[float, Values]:
        z = values @ weights[:-1] + weights[-1]
        total = float((np.logaddexp(0, z) - positive * z).sum())
        error = expit(z) - positive
        slope = np.append(values.T @ error + _RIDGE * weights[:-1], error.sum())
        return total + _RIDGE / 2 * float(weights[:-1] @ weights[:-1]), slope

    k = values.shape[1]
    bounds = [(0.0, None)] * n_rising + [(None, None)] * (k + 1 - n_rising)
    return minimize(loss, np.zeros(k + 1), jac=True, method="L-BFGS-B", bounds=bounds).x


Halves = tuple[NDArray[np.intp], NDArray[np.intp]]


def halves_of(n: int, split: int) -> Halves:
    """Return the two random halves of a split."""
    order = np.random.default_rng((split, n)).permutation(n)
    return order[: n // 2], order[n // 2 :]


def out_of_half(n: int, halves: Halves, score: Callable[[NDArray[np.intp]], Values]) -> Values:
    """Score each half with what the other half has fitted, shape (n,)."""
    found = np.empty(n)
    for fitting, judged in (halves, halves[::-1]):
        found[judged] = score(fitting)[judged]
    return found
