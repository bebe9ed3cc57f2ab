"""What an answer is: one label, or a set of labels.

A single-label cascade turns logits into probabilities by a softmax, and a row's answer is the label
with the largest one. A multi-label cascade has one sigmoid for each label, and a row's answer is
the set of labels whose probability is at least 0.5. The set may be empty.

Answers are compared by keys, one integer for each answer. The key of a label is its index. The key
of a set has bit i if label i is in the set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

SINGLE_LABEL = "single_label"
MULTI_LABEL = "multi_label"
TASKS = (SINGLE_LABEL, MULTI_LABEL)

# A label is in the set if its probability is at least this.
CUT_OFF = np.float32(0.5)

# Labels whose sets have keys of 64 bits.
_MOST_BITS = 62


def probabilities_from_logits(
    logits: NDArray[np.float32], task: str = SINGLE_LABEL, *, finite: bool = False
) -> NDArray[np.float32]:
    """Return the probabilities of labels.

    Args:
        logits: Float32 of shape (n, n_labels), divided by the temperature.
        task: One of `TASKS`.
        finite: Whether the caller knows that all logits are finite, so that no check is needed.

    Returns:
        Float32 of shape (n, n_labels); each from 0 to 1, and with a sum of 1 for `SINGLE_LABEL`.
    """
    if task == MULTI_LABEL:
        return sigmoid(logits)
    return _softmax(logits) if finite else softmax(logits)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the float32 softmax over the last axis, shifted by the maximum against overflow."""
    logits = np.asarray(logits, dtype=np.float32)
    if np.count_nonzero(np.isfinite(logits)) == logits.size:
        return _softmax(logits)
    with np.errstate(invalid="ignore", over="ignore"):  # the caller masks infinities
        return _softmax(logits)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # The methods of arrays do the same, and take longer than the work on a few rows.
    exponentials = np.exp(logits - np.maximum.reduce(logits, axis=-1, keepdims=True))
    return exponentials / np.add.reduce(exponentials, axis=-1, keepdims=True)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the float32 sigmoid of each logit, without overflow; exactly 0.5 or more from 0 on."""
    logits = np.asarray(logits, dtype=np.float32)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, np.float32(1), small) / (np.float32(1) + small)


def label_sets(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which labels are in each row's set, bool of shape (n, n_labels); NaN is in none."""
    return probabilities >= CUT_OFF


def answer_keys(probabilities: NDArray[np.float32], task: str = SINGLE_LABEL) -> NDArray[Any]:
    """Return a key for each row's answer; rows have equal keys if and only if they agree.

    Args:
        probabilities: Float32 of shape (n, n_labels).
        task: One of `TASKS`.

    Returns:
        Shape (n,), at least 0. Integers of 64 bits, or Python's for sets of very many labels.
    """
    if task == MULTI_LABEL:
        return set_keys(label_sets(probabilities))
    return probabilities.argmax(axis=1)


def set_keys(sets: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the keys of sets, shape (n,), from bool of shape (n, n_labels)."""
    n_labels = sets.shape[1]
    if n_labels <= _MOST_BITS:
        return sets @ (np.int64(1) << np.arange(n_labels, dtype=np.int64))
    keys = np.empty(len(sets), dtype=np.object_)
    keys[:] = [
        int.from_bytes(row.tobytes(), "little")
        for row in np.packbits(sets, axis=1, bitorder="little")
    ]
    return keys


def names_of_answer(key: int, labels: Sequence[str], task: str = SINGLE_LABEL) -> tuple[str, ...]:
    """Return the labels of an answer: one name, or the names of a set in the labels' order."""
    if task != MULTI_LABEL:
        return (labels[int(key)],)
    return tuple(label for i, label in enumerate(labels) if int(key) >> i & 1)


def text_of_answer(names: Sequence[str], task: str = SINGLE_LABEL) -> str:
    """Return an answer as the output LABEL has it: the name, or the set as a JSON array."""
    return json.dumps(list(names), ensure_ascii=False) if task == MULTI_LABEL else names[0]


def set_from_text(text: str) -> tuple[str, ...] | None:
    """Return the names in a JSON array of strings, or None if the text is none."""
    if not text.startswith("["):
        return None
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(names, list):
        return None
    found = tuple(cast("list[Any]", names))
    return found if all(isinstance(name, str) for name in found) else None
