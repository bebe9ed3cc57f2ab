"""Run members, cascades and early exits in PyTorch, so that they can be timed alike.

Rows that left are removed from their batch, so later layers run on the other rows only: the best
case for early exiting. A cascade gathers the deferred rows of all batches, as its server does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cascadebert_build.evaluation.metrics import confidence_score

from .exit_layers import Batch


class ExitRule(Protocol):
    """Decides which of the remaining rows leave after a layer."""

    def start(self, n: int) -> None:
        """Begin a batch of n rows."""
        ...

    def leaves(self, logits: torch.Tensor) -> torch.Tensor:
        """Return which rows leave, shape (rows,), by the layer's logits (rows, n_labels)."""
        ...


class EntropyRule:
    """DeeBERT's rule: leave at an entropy below the threshold, in nats."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def start(self, n: int) -> None:
        """Do nothing: the rule keeps no state."""

    def leaves(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the rows below the threshold."""
        log_p = logits.log_softmax(dim=-1)
        return -(log_p.exp() * log_p).sum(dim=-1) < self._threshold


class PatienceRule:
    """PABEE's rule: leave when predictions have agreed `patience` times in a row."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._last = torch.empty(0)
        self._agreed = torch.empty(0)

    def start(self, n: int) -> None:
        """Reset the counters."""
        self._last = torch.full((n,), -1)
        self._agreed = torch.zeros(n, dtype=torch.long)

    def leaves(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the rows whose predictions have agreed often enough."""
        predicted = logits.argmax(dim=-1)
        agreed = torch.where(predicted == self._last, self._agreed + 1, 0)
        leaving = agreed >= self._patience
        self._last, self._agreed = predicted[~leaving], agreed[~leaving]
        return leaving


def run_with_exits(
    bert: Any,
    exits: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    rule: ExitRule,
    batches: Sequence[Batch],
    n: int,
) -> NDArray[np.int64]:
    """Return the predicted label of every row, shape (n,), by a BERT with early exits.

    Args:
        bert: A BertModel in eval mode.
        exits: One after each layer: hidden states (rows, length, hidden) to logits (rows,
            n_labels).
        rule: Decides which rows leave. After the last layer all do.
        batches: The batches of all rows.
        n: The number of rows.
    """
    predicted = np.empty(n, dtype=np.int64)
    layers = list(bert.encoder.layer)
    for indices, tokens in batches:
        rows = np.array(indices)
        inputs = {k: v for k, v in tokens.items() if k != "attention_mask"}
        hidden = bert.embeddings(**inputs)
        mask = _additive(tokens["attention_mask"], hidden.dtype)
        rule.start(len(rows))
        for i, (layer, exit_) in enumerate(zip(layers, exits, strict=True)):
            output = layer(hidden, mask)
            hidden = output[0] if isinstance(output, tuple) else output
            logits = exit_(hidden)
            leaving = rule.leaves(logits)
            if i == len(layers) - 1:
                leaving = torch.ones(len(rows), dtype=torch.bool)
            gone = leaving.numpy()
            if gone.any():
                predicted[rows[gone]] = logits[leaving].argmax(dim=-1).numpy()
                if gone.all():
                    break
                rows, hidden = rows[~gone], hidden[~leaving]
                mask = None if mask is None else mask[~leaving]
    return predicted


def run_member(model: Any, batches: Sequence[Batch], n: int) -> NDArray[np.float32]:
    """Return the logits of every row, shape (n, n_labels), by a sequence classifier."""
    logits: NDArray[np.float32] | None = None
    for indices, tokens in batches:
        found = model(**tokens).logits.numpy()
        if logits is None:
            logits = np.empty((n, found.shape[1]), dtype=np.float32)
        logits[indices] = found
    assert logits is not None
    return logits


def run_cascade(
    small: Any,
    large: Any,
    threshold: float,
    *,
    batches: Sequence[Batch],
    batch_of: Callable[[list[int]], list[Batch]],
    n: int,
) -> NDArray[np.int64]:
    """Return the predicted label of every row, shape (n,), by a cascade.

    Args:
        small: A sequence classifier.
        large: Another with the same labels.
        threshold: Rows whose `confidence_score` is below it are deferred.
        batches: The batches of all rows, for the small member.
        batch_of: Makes batches of some rows, for the large member.
        n: The number of rows.
    """
    logits = run_member(small, batches, n)
    predicted = logits.argmax(axis=1)
    deferred = np.flatnonzero(confidence_score(logits) < threshold).tolist()
    if deferred:
        answers = run_member(large, batch_of(deferred), n)[deferred]
        predicted[deferred] = answers.argmax(axis=1)
    return predicted


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """Return what attention adds to its scores, (rows, 1, 1, length); None without padding."""
    if bool(mask.all()):
        return None
    return (1.0 - mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min
