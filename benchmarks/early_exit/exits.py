"""A backbone with an exit after every layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cascadebert_build.checkpoint import tokenizer_from_source
from cascadebert_build.data import Rows

if TYPE_CHECKING:
    import torch

BATCH_SIZE = 64


def encoded_batches(source: Path, rows: Rows, max_length: int) -> list[tuple[list[int], Any]]:
    """Rows of like length together: their indices, and their padded tensors."""
    tokenizer = cast("Any", tokenizer_from_source(str(source)))
    order = sorted(range(len(rows.texts)), key=lambda i: len("".join(rows.texts[i])))
    batches: list[tuple[list[int], Any]] = []
    for start in range(0, len(order), BATCH_SIZE):
        part = order[start : start + BATCH_SIZE]
        pairs = [(t,) if isinstance(t, str) else t for t in (rows.texts[i] for i in part)]
        columns = (list(column) for column in zip(*pairs, strict=True))
        tokens = tokenizer(
            *columns, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        )
        batches.append((part, tokens))
    return batches


def first_tokens(
    backbone: torch.nn.Module, source: Path, rows: Rows, max_length: int, description: str
) -> NDArray[np.float32]:
    """The first token's hidden state after every layer, shape (n, layers, hidden), no dropout."""
    import torch

    backbone.eval()
    states: NDArray[np.float32] | None = None
    batches = encoded_batches(source, rows, max_length)
    with torch.inference_mode():
        for part, tokens in tqdm(batches, desc=description, disable=None):
            output = backbone(**tokens, output_hidden_states=True)
            hidden = torch.stack([h[:, 0] for h in output.hidden_states[1:]], dim=1)
            if states is None:
                states = np.empty((len(rows.texts), *hidden.shape[1:]), dtype=np.float32)
            states[part] = hidden.numpy()
    assert states is not None
    return states
