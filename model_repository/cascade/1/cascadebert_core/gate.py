"""The confidence gate: which rows a stage may answer.

A row exits iff its confidence is *strictly* above its threshold (CascadeBERT, Li et al., EMNLP
Findings 2021, whose confidence is the largest softmax probability; `signals` has others). All
arithmetic is float32, so that a confidence that a caller read from a response can be sent back as a
threshold and ties exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .signals import MAX_PROBABILITY, SIGNALS

# The last stage's threshold: every finite confidence is above it, and NaN is above nothing.
ALWAYS_EXIT = np.float32(-1.0)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a stage made of n rows.

    Attributes:
        probabilities: float32 of shape (n, n_labels); NaN where a logit was not finite.
        confidence: float32 of shape (n,), the signal's, 0 to 1; NaN likewise.
        exits: bool of shape (n,), whether the row is answered here.
    """

    probabilities: NDArray[np.float32]
    confidence: NDArray[np.float32]
    exits: NDArray[np.bool_]


def decide(
    logits: NDArray[np.float32],
    temperature: float,
    thresholds: NDArray[np.float32] | np.float32,
    signal: str = MAX_PROBABILITY,
) -> Decision:
    """Gate n rows.

    Args:
        logits: shape (n, n_labels), in the policy's label order.
        temperature: the logits are divided by it (Guo et al., ICML 2017).
        thresholds: one for all rows, or of shape (n,); or of shape (n, n_labels) or (1, n_labels),
            where they differ by the label that the stage predicts.
        signal: a name of `signals.SIGNALS`.

    Returns:
        The decision; rows with a NaN or infinite logit never exit.
    """
    scaled = np.divide(logits, temperature, dtype=np.float32)
    probabilities = softmax(scaled)
    # A logit of minus infinity alone would still give a confident, finite softmax.
    broken = ~np.isfinite(logits).all(axis=1)
    probabilities[broken] = np.nan
    confidence = SIGNALS[signal](probabilities, scaled, temperature)
    confidence[broken] = np.nan
    if np.ndim(thresholds) == 2:
        by_label = np.broadcast_to(thresholds, probabilities.shape)
        thresholds = by_label[np.arange(len(probabilities)), probabilities.argmax(axis=1)]
    return Decision(probabilities, confidence, confidence > thresholds)


def stack_thresholds(
    thresholds: Sequence[np.float32 | NDArray[np.float32]], n_labels: int
) -> NDArray[np.float32]:
    """Thresholds of rows for `decide`: shape (n,), or (n, n_labels) where any differs by label.

    Args:
        thresholds: of each row, a number or an array of shape (n_labels,).
        n_labels: of the policy.
    """
    if all(np.ndim(threshold) == 0 for threshold in thresholds):
        return np.array(thresholds, dtype=np.float32)
    return np.stack([np.broadcast_to(np.float32(t), (n_labels,)) for t in thresholds])


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the last axis in float32, shifted by the maximum so that nothing overflows."""
    logits = np.asarray(logits, dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are the caller's to mask
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return exponentials / exponentials.sum(axis=-1, keepdims=True)
