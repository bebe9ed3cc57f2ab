"""Metrics of a confidence: ranking, calibration, and accuracy against deferral rate.

All functions take numpy arrays over n rows. `signal` is any score that is higher for more confident
rows. Only its order counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.signals import (
    ENERGY,
    ENTROPY,
    LEAST_SURE,
    MARGIN,
    MAX_PROBABILITY,
    SIGNALS,
)

from ..extras import needs_extra


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with an interval.

    Attributes:
        value: On the rows themselves.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """`f"{interval:>20.2f}"`: two decimal places, aligned to the right in 20 columns."""
        width, _, places = spec.partition(".")
        number = f".{places or '4g'}"
        text = f"{self.value:{number}} [{self.low:{number}}, {self.high:{number}}]"
        return f"{text:{width}}"

    def __str__(self) -> str:
        return f"{self}"


@dataclass(frozen=True, slots=True)
class DeferralCurve:
    """Accuracy of a two-stage cascade at every deferral rate that a threshold can give.

    Attributes:
        deferral: Deferral rates, ascending from 0 to 1, shape (k,).
        accuracy: The cascade's accuracy at each of them, shape (k,).
    """

    deferral: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Mean accuracy over deferral rates from 0 to 1, by trapezoids."""
        with needs_extra("build"):
            from scipy.integrate import trapezoid
        return float(trapezoid(self.accuracy, self.deferral))

    def at(self, deferral: float) -> float:
        """Accuracy at a deferral rate, interpolated (a random mix of two thresholds)."""
        return float(np.interp(deferral, self.deferral, self.accuracy))


def confidence_score(logits: NDArray[Any], signal: str = MAX_PROBABILITY) -> NDArray[np.float64]:
    """A score that orders rows as a confidence signal does, shape (n,).

    It is a logarithm of the distance to 1, in double precision, so it still differs between rows
    whose signal is 1.0 in floating point.

    Args:
        logits: Finite, shape (n, n_labels), divided by the temperature.
        signal: A name of `cascadebert_core.signals.SIGNALS`.

    Raises:
        ValueError: There is no such signal.
    """
    if signal == LEAST_SURE:
        # max(p, 1 - p) is the sigmoid of |logit|.
        return np.abs(np.asarray(logits, dtype=np.float64)).min(axis=1)
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

    DIS is the probability that a correct prediction has a higher signal than a wrong one, where
    ties count half; 50 is chance. This is the AUROC of the signal (Mann-Whitney's U).

    Args:
        signal: Shape (n,).
        correct: Whether the prediction is correct, shape (n,).

    Returns:
        NaN if all predictions are correct, or all are wrong.
    """
    with needs_extra("build"):
        from scipy.stats import rankdata
    n_right = int(correct.sum())
    n_wrong = len(correct) - n_right
    if not n_right or not n_wrong:
        return float("nan")
    ranks = rankdata(signal)
    u = float(ranks[correct].sum()) - n_right * (n_right + 1) / 2
    return 100.0 * u / (n_right * n_wrong)


def expected_calibration_error(
    confidence: NDArray[Any], correct: NDArray[np.bool_], bins: int = 15
) -> float:
    """ECE over bins of equal mass, 0 to 1 (Nguyen and O'Connor, 2015; Guo et al., ICML 2017).

    Args:
        confidence: Probability of the predicted label, shape (n,).
        correct: Whether the prediction is correct, shape (n,).
        bins: Number of bins; at most one per row.

    Returns:
        NaN without rows.
    """
    if not len(confidence):
        return float("nan")
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    gaps = [len(part) * abs(confidence[part].mean() - correct[part].mean()) for part in parts]
    return float(sum(gaps) / len(order))


def calibration_error_of_rows(confidence: NDArray[Any], correct: NDArray[np.bool_]) -> float:
    """ECE over all decisions of n rows, each with one or several; see `expected_calibration_error`.

    Args:
        confidence: Probability of each decision, shape (n,) or (n, n_decisions).
        correct: Whether the decision is correct, of the same shape.
    """
    return expected_calibration_error(confidence.ravel(), correct.ravel())


def brier_score(probabilities: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean squared distance of the probabilities from the one-hot label, 0 to 2 (Brier, 1950).

    Args:
        probabilities: Shape (n, n_labels).
        labels: Indices, shape (n,). Or sets of labels, bool of shape (n, n_labels): then the
            distance is from the 0 or 1 of each label, 0 to n_labels.

    Returns:
        NaN without rows.
    """
    if not len(labels):
        return float("nan")
    wanted = labels if labels.ndim == 2 else np.eye(probabilities.shape[1])[labels]
    return float(((np.asarray(probabilities, np.float64) - wanted) ** 2).sum(axis=1).mean())


def deferral_curve(
    signal: NDArray[Any], small_correct: NDArray[np.bool_], large_correct: NDArray[np.bool_]
) -> DeferralCurve:
    """Defer the least confident rows first; rows of equal signal are deferred together.

    Args:
        signal: Of the small member, shape (n,).
        small_correct: Whether the small member is correct, shape (n,).
        large_correct: Whether the large member is correct, shape (n,).
    """
    order = np.argsort(signal, kind="stable")
    gain = large_correct[order].astype(np.int64) - small_correct[order]
    totals = np.concatenate([[0], np.cumsum(gain)]) + int(small_correct.sum())
    n = len(signal)
    # No threshold separates rows of equal signal.
    ordered = np.asarray(signal)[order]
    ends = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [n]])
    return DeferralCurve(ends / n, totals[ends] / n)


def coverage_at_risk(signal: NDArray[Any], wrong: NDArray[np.bool_], risk: float) -> float:
    """The largest share of most confident rows of which at most the share `risk` is wrong.

    Args:
        signal: Shape (n,).
        wrong: Whether the prediction is wrong, shape (n,).
        risk: Share of wrong predictions among the covered rows, 0 to 1.
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

    The same rows are drawn from all arrays, so a difference of two figures is a paired one.
    scipy.stats.bootstrap is not used: it can neither skip NaN draws nor centre them.

    Args:
        statistic: A function of the arrays that does not depend on the order of rows.
        arrays: Shape (n, ...) each.
        resamples: Number of draws.
        level: Of the interval.
        seed: Of the draws.
        centred: Shift the draws to the value on the rows themselves. Use it for statistics that are
            biased upwards by repeated rows, such as a calibration error.
    """
    rng = np.random.default_rng(seed)
    n = len(arrays[0])
    if not n:
        return Interval(float("nan"), float("nan"), float("nan"))
    # Statistics sort by the first array. In its order their sorting is a single pass.
    order = np.argsort(arrays[0], kind="stable") if arrays[0].ndim == 1 else np.arange(n)
    ordered = [a[order] for a in arrays]
    found: list[float] = []
    for _ in range(resamples):
        counts = np.bincount(rng.integers(0, n, n), minlength=n)
        rows = np.repeat(np.arange(n), counts)
        found.append(statistic(*(a[rows] for a in ordered)))
    draws = np.array(found)
    # Some draws have no value, such as the DIS of rows that are all correct.
    finite = draws[np.isfinite(draws)]
    tail = 100 * (1 - level) / 2
    value = float(statistic(*arrays))
    if centred and finite.size:
        finite = np.maximum(finite - finite.mean() + value, 0.0)
    low, high = np.percentile(finite, (tail, 100 - tail)) if finite.size else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


def resamples_for(n_rows: int) -> int:
    """A number of bootstrap resamples that takes seconds: 1000, or fewer for many rows."""
    return int(np.clip(3_000_000 // max(1, n_rows), 200, 1000))
