"""What a confidence is worth: inversions, calibration, and the trade of accuracy for deferral.

All functions take numpy arrays over n rows and know nothing of models. `signal` is any score that
is higher for surer rows; only its order counts, but for the calibration error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.signals import ENERGY, ENTROPY, MARGIN, MAX_PROBABILITY, SIGNALS


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its bootstrap interval.

    Attributes:
        value: on the rows as they are.
        low, high: ends of the percentile interval.
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """`f"{interval:>20.2f}"`: the figures to two places, the whole to 20 columns."""
        width, _, places = spec.partition(".")
        number = f".{places or '4g'}"
        text = f"{self.value:{number}} [{self.low:{number}}, {self.high:{number}}]"
        return f"{text:{width}}"

    def __str__(self) -> str:
        return f"{self}"


@dataclass(frozen=True, slots=True)
class DeferralCurve:
    """Accuracy of a two-stage cascade at every deferral rate that thresholds can give.

    Attributes:
        deferral: ascending, from 0 (nothing is deferred) to 1, shape (k,).
        accuracy: of the cascade there, shape (k,).
    """

    deferral: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Mean accuracy over deferral rates from 0 to 1, by trapezoids."""
        steps = np.diff(self.deferral)
        return float((steps * (self.accuracy[1:] + self.accuracy[:-1]) / 2).sum())

    def at(self, deferral: float) -> float:
        """Accuracy at a deferral rate, between neighbours by mixing their thresholds."""
        return float(np.interp(deferral, self.deferral, self.accuracy))


def surety(logits: NDArray[Any], signal: str = MAX_PROBABILITY) -> NDArray[np.float64]:
    """A score that orders rows as a confidence signal does, shape (n,).

    It goes on telling rows apart where the signal has reached 1.0 in floating point: logarithms of
    what is left to 1, in double precision.

    Args:
        logits: finite, shape (n, n_labels), divided by the temperature.
        signal: a name of `cascadebert_core.signals.SIGNALS`.

    Raises:
        ValueError: there is no such signal.
    """
    ordered = np.sort(np.asarray(logits, dtype=np.float64), axis=1)
    others = np.exp(ordered[:, :-1] - ordered[:, -1:])  # odds against the largest, (n, n_labels-1)
    log_largest = -np.log1p(others.sum(axis=1))
    if signal == MAX_PROBABILITY:
        return log_largest
    if signal == MARGIN:
        # 1 - (p1 - p2) = p2 + ... + pk + p2
        return -(np.log(others.sum(axis=1) + others[:, -1]) + log_largest)
    if signal == ENTROPY:
        log_p = np.concatenate([ordered[:, :-1] - ordered[:, -1:], np.zeros((len(ordered), 1))], 1)
        log_p += log_largest[:, None]
        return (np.exp(log_p) * log_p).sum(axis=1)
    if signal == ENERGY:
        return ordered[:, -1] - log_largest
    raise ValueError(f"unknown signal {signal!r}: give one of {', '.join(SIGNALS)}")


def difficulty_inversion_score(signal: NDArray[Any], correct: NDArray[np.bool_]) -> float:
    """DIS of CascadeBERT (Li et al., EMNLP Findings 2021), 0 to 100, higher is better.

    The share of pairs of a wrong and a right row in which the right one is surer; ties count half.
    That is the AUROC of the signal against correctness (Mann-Whitney's U over the pairs).

    Args:
        signal: shape (n,).
        correct: whether the member is right, shape (n,).

    Returns:
        NaN where all rows are right, or all are wrong.
    """
    n_right = int(correct.sum())
    n_wrong = len(correct) - n_right
    if not n_right or not n_wrong:
        return float("nan")
    ranks = _mid_ranks(np.asarray(signal))
    u = float(ranks[correct].sum()) - n_right * (n_right + 1) / 2
    return 100.0 * u / (n_right * n_wrong)


def expected_calibration_error(
    confidence: NDArray[Any], correct: NDArray[np.bool_], bins: int = 15
) -> float:
    """ECE over bins of equal mass, 0 to 1 (Nguyen and O'Connor, 2015; Guo et al., ICML 2017).

    Args:
        confidence: probability of the chosen label, shape (n,).
        correct: shape (n,).
        bins: as many as there are rows at the most.

    Returns:
        NaN without rows.
    """
    if not len(confidence):
        return float("nan")
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    gaps = [len(part) * abs(confidence[part].mean() - correct[part].mean()) for part in parts]
    return float(sum(gaps) / len(order))


def brier_score(probabilities: NDArray[Any], labels: NDArray[np.integer[Any]]) -> float:
    """Mean squared distance of the probabilities from the one-hot label, 0 to 2 (Brier, 1950).

    Args:
        probabilities: shape (n, n_labels).
        labels: indices, shape (n,).

    Returns:
        NaN without rows.
    """
    if not len(labels):
        return float("nan")
    one_hot = np.eye(probabilities.shape[1])[labels]
    return float(((np.asarray(probabilities, np.float64) - one_hot) ** 2).sum(axis=1).mean())


def deferral_curve(
    signal: NDArray[Any], small_correct: NDArray[np.bool_], large_correct: NDArray[np.bool_]
) -> DeferralCurve:
    """Defer the least sure rows first, one group of equal signals after the other.

    Args:
        signal: of the small member, shape (n,).
        small_correct: shape (n,).
        large_correct: shape (n,).
    """
    order = np.argsort(signal, kind="stable")
    gain = large_correct[order].astype(np.int64) - small_correct[order]
    totals = np.concatenate([[0], np.cumsum(gain)]) + int(small_correct.sum())
    n = len(signal)
    # No threshold parts rows of the same signal.
    ordered = np.asarray(signal)[order]
    ends = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [n]])
    return DeferralCurve(ends / n, totals[ends] / n)


def coverage_at_risk(signal: NDArray[Any], wrong: NDArray[np.bool_], risk: float) -> float:
    """Largest share of the rows, surest first, of which at most `risk` are wrong.

    Args:
        signal: shape (n,).
        wrong: shape (n,).
        risk: share of the covered rows, 0 to 1.
    """
    order = np.argsort(-np.asarray(signal), kind="stable")
    ordered = np.asarray(signal)[order]
    counts = np.arange(1, len(order) + 1)
    share = np.cumsum(wrong[order]) / counts
    last_of_group = np.concatenate([ordered[1:] != ordered[:-1], [True]])
    fitting = np.flatnonzero((share <= risk) & last_of_group)
    return float(counts[fitting[-1]] / len(order)) if fitting.size else 0.0


def bootstrap(
    statistic: Callable[..., float],
    *arrays: NDArray[Any],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    centred: bool = False,
) -> Interval:
    """Percentile interval of a statistic over rows drawn with replacement (Efron, 1979).

    The arrays are drawn together, so a difference of two of their figures is a paired one.

    Args:
        statistic: of arrays of as many rows each, whatever the order of the rows.
        arrays: shape (n, ...) each.
        resamples: how often rows are drawn.
        level: of the interval.
        seed: of the draws.
        centred: shift the draws to the value on the rows as they are, for statistics that draws
            with repeated rows overrate, such as a calibration error.
    """
    rng = np.random.default_rng(seed)
    n = len(arrays[0])
    if not n:
        return Interval(float("nan"), float("nan"), float("nan"))
    # What statistics sort by stands first: on rows in its order their sorting is a single pass.
    order = np.argsort(arrays[0], kind="stable") if arrays[0].ndim == 1 else np.arange(n)
    ordered = [a[order] for a in arrays]
    found: list[float] = []
    for _ in range(resamples):
        counts = np.bincount(rng.integers(0, n, n), minlength=n)
        rows = np.repeat(np.arange(n), counts)
        found.append(statistic(*(a[rows] for a in ordered)))
    draws = np.array(found)
    # A draw without a single wrong row, say, has no such figure.
    finite = draws[np.isfinite(draws)]
    tail = 100 * (1 - level) / 2
    value = float(statistic(*arrays))
    if centred and finite.size:
        finite = np.maximum(finite - finite.mean() + value, 0.0)
    low, high = np.percentile(finite, (tail, 100 - tail)) if finite.size else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


def _mid_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(values))
    ranks = np.empty(len(values))
    ranks[order] = ((starts + 1 + ends) / 2)[np.cumsum(first) - 1]
    return ranks


def resamples_for(n_rows: int) -> int:
    """Bootstrap resamples that take seconds: 1000, and fewer where rows are many."""
    return int(np.clip(3_000_000 // max(1, n_rows), 200, 1000))
