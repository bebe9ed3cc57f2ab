"""Members, cascades and early exits run for real in PyTorch, so that they can be timed alike.

A batch that rows have left is closed up, so later layers run on what is left alone: the best that
early exiting can do. A cascade gathers what it defers from all batches, as its server does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

# Padded tensors of rows, and the rows' indices.
Batch = tuple[list[int], dict[str, torch.Tensor]]


class ExitRule(Protocol):
    """Which of the rows that are still there leave after a layer."""

    def start(self, n: int) -> None:
        """A new batch of n rows."""
        ...

    def leaves(self, logits: torch.Tensor) -> torch.Tensor:
        """Bool of shape (rows,), from the layer's logits (rows, n_labels); the others stay."""
        ...


class EntropyRule:
    """DeeBERT's: leave at an entropy below the threshold, in nats."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def start(self, n: int) -> None:
        """Nothing is kept between layers."""

    def leaves(self, logits: torch.Tensor) -> torch.Tensor:
        """Rows that are sure enough."""
        log_p = logits.log_softmax(dim=-1)
        return -(log_p.exp() * log_p).sum(dim=-1) < self._threshold


class PatienceRule:
    """PABEE's: leave when `patience` exits in a row have repeated the one before them."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._last = torch.empty(0)
        self._agreed = torch.empty(0)

    def start(self, n: int) -> None:
        """No exit has spoken yet."""
        self._last = torch.full((n,), -1)
        self._agreed = torch.zeros(n, dtype=torch.long)

    def leaves(self, logits: torch.Tensor) -> torch.Tensor:
        """Rows whose patience is used up."""
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
    """Predicted label of every row, shape (n,), by a BERT whose rows leave when the rule says so.

    Args:
        bert: a BertModel in eval mode.
        exits: after each layer: hidden states (rows, length, hidden) to logits (rows, n_labels).
        rule: of leaving; the last layer keeps nobody.
        batches: of all rows.
        n: rows in all.
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
    """Logits of every row, shape (n, n_labels), by a sequence classifier."""
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
    """Predicted label of every row, shape (n,), by a cascade that defers at most the threshold.

    Args:
        small: a sequence classifier.
        large: another with the same labels.
        threshold: rows whose `confidence_score` is below it are deferred.
        batches: of all rows, for the small member.
        batch_of: makes batches of some rows, for the large one.
        n: rows in all.
    """
    from cascadebert_build.evaluation.metrics import confidence_score

    logits = run_member(small, batches, n)
    predicted = logits.argmax(axis=1)
    deferred = np.flatnonzero(confidence_score(logits) < threshold).tolist()
    if deferred:
        answers = run_member(large, batch_of(deferred), n)[deferred]
        predicted[deferred] = answers.argmax(axis=1)
    return predicted


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """What attention adds to its scores, (rows, 1, 1, length); None where nothing is padded."""
    if bool(mask.all()):
        return None
    return (1.0 - mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min
