"""The confidence gate: which rows a stage may answer.

A row exits if and only if its confidence is *strictly* above its threshold (CascadeBERT, Li et al.,
EMNLP Findings 2021; its confidence is the largest softmax probability, `signals` has others). All
arithmetic is float32. So if a client sends a confidence from a response back as a threshold, the
two are exactly equal. `task` says how logits become probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .signals import MAX_PROBABILITY, SIGNALS
from .task import SINGLE_LABEL, probabilities_from_logits

# The last stage's threshold. Every finite confidence is above it; NaN is not.
ALWAYS_EXIT = np.float32(-1.0)


@dataclass(slots=True, eq=False)
class Decision:
    """A stage's decision on n rows. Its arrays are not changed: jobs may keep parts of them.

    Attributes:
        probabilities: float32 of shape (n, n_labels); NaN for rows with a logit that is not finite.
        confidence: float32 of shape (n,), from 0 to 1; NaN for the same rows.
        exits: bool of shape (n,), whether the stage answers the row.
    """

    probabilities: NDArray[np.float32]
    confidence: NDArray[np.float32]
    exits: NDArray[np.bool_]


def decide(
    logits: NDArray[np.float32],
    temperature: float,
    thresholds: NDArray[np.float32] | np.float32,
    signal: str = MAX_PROBABILITY,
    task: str = SINGLE_LABEL,
) -> Decision:
    """Gate n rows.

    Args:
        logits: float32 of shape (n, n_labels), in the policy's label order.
        temperature: The logits are divided by it (Guo et al., ICML 2017).
        thresholds: One number for all rows, or float32 of shape (n,). Of shape (n, n_labels) or
            (1, n_labels) if they depend on the label that the stage predicts, which is possible
            only for `task.SINGLE_LABEL`.
        signal: A name in `signals.SIGNALS` that fits the task.
        task: One of `task.TASKS`.

    Returns:
        The decision. Rows with a NaN or infinite logit never exit.
    """
    logits = np.asarray(logits, dtype=np.float32)
    scaled = logits / np.float32(temperature)
    # A quotient is finite only if its logit is.
    if np.count_nonzero(np.isfinite(scaled)) == scaled.size:
        probabilities = probabilities_from_logits(scaled, task, finite=True)
        confidence = SIGNALS[signal](probabilities, scaled, temperature)
    else:
        probabilities = probabilities_from_logits(scaled, task)
        # With a logit of minus infinity probabilities are still finite, and confident.
        broken = ~np.isfinite(logits).all(axis=1)
        probabilities[broken] = np.nan
        confidence = SIGNALS[signal](probabilities, scaled, temperature)
        confidence[broken] = np.nan
    if isinstance(thresholds, np.ndarray) and thresholds.ndim == 2:
        by_label = np.broadcast_to(thresholds, probabilities.shape)
        thresholds = by_label[np.arange(len(probabilities)), probabilities.argmax(axis=1)]
    return Decision(probabilities, confidence, confidence > thresholds)


def stack_thresholds(
    thresholds: Sequence[np.float32 | NDArray[np.float32]], n_labels: int
) -> NDArray[np.float32]:
    """Stack the thresholds of n rows for `decide`.

    Args:
        thresholds: For each row, a number or an array of shape (n_labels,).
        n_labels: The number of labels.

    Returns:
        float32 of shape (n,), or (n, n_labels) if a row's threshold depends on the label.
    """
    if all(np.ndim(threshold) == 0 for threshold in thresholds):
        return np.array(thresholds, dtype=np.float32)
    return np.stack([np.broadcast_to(np.float32(t), (n_labels,)) for t in thresholds])
