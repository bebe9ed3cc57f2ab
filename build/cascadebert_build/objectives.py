"""Training objectives of a member: what its loss is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Loss of a batch from logits (rows, n_labels) and label indices (rows,).
Objective = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Plain cross-entropy, the mean over the batch."""
    import torch

    return torch.nn.functional.cross_entropy(logits, labels)


OBJECTIVES: dict[str, Objective] = {"plain": cross_entropy}
