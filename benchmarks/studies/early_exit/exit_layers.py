"""A backbone with an exit after every layer, and batches of rows for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cascadebert_build.checkpoints.checkpoint import tokenizer_from_source
from cascadebert_build.config.rows import Rows
from cascadebert_build.progress import counted

_BATCH_SIZE = 64
_DROPOUT = 0.1

# The indices of some rows, and their padded tensors.
Batch = tuple[list[int], dict[str, torch.Tensor]]


def encoded_batches(
    source: Path,
    rows: Rows,
    max_length: int,
    size: int = _BATCH_SIZE,
    indices: Sequence[int] | None = None,
) -> list[Batch]:
    """Tokenise rows in batches of like lengths.

    Args:
        source: The checkpoint with the tokenizer.
        rows: The rows.
        max_length: The maximum length in tokens.
        size: The rows of a batch.
        indices: The rows to take; None: all.
    """
    tokenizer = cast("Any", tokenizer_from_source(str(source)))
    chosen = range(len(rows.texts)) if indices is None else indices
    order = sorted(chosen, key=lambda i: len("".join(rows.texts[i])))
    batches: list[Batch] = []
    for start in range(0, len(order), size):
        part = order[start : start + size]
        pairs = [(t,) if isinstance(t, str) else t for t in (rows.texts[i] for i in part)]
        columns = (list(column) for column in zip(*pairs, strict=True))
        tokens = tokenizer(
            *columns, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        )
        batches.append((part, dict(tokens)))
    return batches


def first_tokens(
    model: torch.nn.Module,
    source: Path,
    rows: Rows,
    max_length: int,
    description: str,
    *,
    bf16: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what a classifier knows of each row after every layer, without dropout.

    Args:
        model: A sequence classifier. It stays on its device.
        source: The checkpoint with the tokenizer.
        rows: The rows.
        max_length: The maximum length in tokens.
        description: Of the progress.
        bf16: Whether to multiply in bfloat16.

    Returns:
        The first token's hidden states, shape (n, layers, hidden), and the logits, (n, n_labels).
    """
    model.eval()
    device = next(model.parameters()).device
    states: list[NDArray[np.float32]] = []
    logits: list[NDArray[np.float32]] = []
    batches = encoded_batches(source, rows, max_length)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16),
        counted("row", len(rows.texts), what=description) as advance,
    ):
        for part, tokens in batches:
            inputs = {name: value.to(device) for name, value in tokens.items()}
            output = model(**inputs, output_hidden_states=True)
            hidden = torch.stack([h[:, 0] for h in output.hidden_states[1:]], dim=1)
            states.append(hidden.float().cpu().numpy())
            logits.append(output.logits.float().cpu().numpy())
            advance(len(part))
    back = np.argsort(np.concatenate([part for part, _ in batches]))
    return np.concatenate(states)[back], np.concatenate(logits)[back]


class _Standardise(torch.nn.BatchNorm1d):
    """Batch normalisation that also takes a batch of one row, by its running statistics."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or len(input) > 1:
            return super().forward(input)
        return torch.nn.functional.batch_norm(input, self.running_mean, self.running_var)


def pooler_of(model: Any) -> Any:
    """Return the linear layer that a classifier's first token goes through before the last one."""
    pooler = getattr(model.base_model, "pooler", None)
    return model.classifier.dense if pooler is None else pooler.dense


def new_exit(pooler: torch.nn.Linear, n_labels: int) -> Any:
    """Return an exit on a first token's hidden state: a pooler like the backbone's, and a head.

    The input is standardised first, feature by feature. The papers do not need that. But the first
    token of this project's backbone, which was pretrained for mean pooling, is almost the same for
    every text in the lower layers, and exits there learn nothing from the small differences.

    Args:
        pooler: The backbone's, whose weights the exit's pooler starts from.
        n_labels: The labels of the head.
    """
    hidden = pooler.in_features
    dense = torch.nn.Linear(hidden, hidden)
    dense.load_state_dict(pooler.state_dict())
    return torch.nn.Sequential(
        _Standardise(hidden, affine=False),
        dense,
        torch.nn.Tanh(),
        torch.nn.Dropout(_DROPOUT),
        torch.nn.Linear(hidden, n_labels),
    )


def new_exits(pooler: torch.nn.Linear, n_labels: int, n: int) -> Any:
    """Return a list of n exits."""
    return torch.nn.ModuleList(new_exit(pooler, n_labels) for _ in range(n))
