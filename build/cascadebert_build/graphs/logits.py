"""Logits of a member for a whole data set, from the artefact that will serve."""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import StageBatch, pad_rows
from cascadebert_core.task import SINGLE_LABEL
from cascadebert_core.tokenization import EncodedRow, Encoder, Text, windows_of_row
from cascadebert_core.windows import pooled_logits

from ..progress import counted

# Rows in one call; larger calls are no faster on a CPU.
BATCH_SIZE = 32

# What takes time for each length is done for all of a few lengths, or for one in 16 tokens.
_FEW_BUCKETS, _SAMPLED_TOKENS = 8, 16

# A loaded artefact: a batch to logits of shape (rows, n_labels).
Run = Callable[[StageBatch], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class StageInput:
    """How texts become the batches of one stage.

    Attributes:
        encoder: Tokenizer, maximum length, and what becomes of longer texts.
        inputs: Tensors that the stage takes.
        buckets: Padded lengths in tokens, ascending.
    """

    encoder: Encoder
    inputs: tuple[str, ...]
    buckets: tuple[int, ...]

    @property
    def sampled_buckets(self) -> tuple[int, ...]:
        """The buckets that stand for all. Of many: the longest of every 16 tokens, and the last."""
        if len(self.buckets) <= _FEW_BUCKETS:
            return self.buckets
        longest = {-(-bucket // _SAMPLED_TOKENS): bucket for bucket in self.buckets}
        return tuple(longest.values())

    def batch(self, rows: Sequence[EncodedRow], length: int | None = None) -> StageBatch:
        """Pad rows to `length` tokens; None: to the bucket of the longest row."""
        buckets = self.buckets if length is None else (length,)
        return pad_rows(rows, self.inputs, buckets, self.encoder.pad_id)


def logits_of_rows(
    run: Run,
    stage: StageInput,
    texts: Sequence[Text],
    description: str,
    max_batch_size: int = BATCH_SIZE,
    *,
    regrouped: bool = False,
    task: str = SINGLE_LABEL,
) -> NDArray[np.float32]:
    """Logits of shape (n, n_labels) in the checkpoint's order, row i for text i.

    Rows of similar length share a batch. A text that is read in windows is a row for each, and its
    logits are pooled as in the server.

    Args:
        run: The artefact.
        stage: How texts become batches.
        texts: In the order of the rows.
        description: Of the progress, if this is a part of a step; "" if it is all of it.
        max_batch_size: The most rows in a call.
        regrouped: Use other batches instead: smaller ones, of rows of all lengths.
        task: What the answers are, one of `cascadebert_core.task.TASKS`.
    """
    batch_size = min(BATCH_SIZE, max_batch_size)
    of_texts = [windows_of_row(row) for row in stage.encoder.encode(texts)]
    encoded = [row for of_text in of_texts for row in of_text]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    if regrouped:
        # A third does not divide the usual size, so that the last call is a small one.
        batch_size = max(1, batch_size // 3)
        random.Random(0).shuffle(order)
    results: list[NDArray[np.float32]] = []
    # Rows come in the order of their lengths, so their number would not tell the time.
    tokens = sum(len(row) for row in encoded)
    with counted("row", len(order), what=description, work=tokens) as advance:
        for start in range(0, len(order), batch_size):
            rows = [encoded[i] for i in order[start : start + batch_size]]
            results.append(run(stage.batch(rows)))
            advance(len(rows), work=sum(len(row) for row in rows))
    logits = np.concatenate(results)
    unordered = np.empty_like(logits)
    unordered[order] = logits
    windows = stage.encoder.windows
    if windows is None:
        return unordered
    return pooled_logits(unordered, [len(of_text) for of_text in of_texts], windows.pool, task)


def save_logits(path: Path, key: str, logits: NDArray[np.float32]) -> None:
    """Store logits with a key: a hash of everything that they depend on."""
    save_arrays(path, key=np.array(key), logits=logits)


def save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write an npz file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another process may write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)


def load_logits(path: Path, key: str) -> NDArray[np.float32] | None:
    """The stored logits, or None if there are none with this key."""
    try:
        with np.load(path) as stored:
            return stored["logits"] if str(stored["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # absent, or damaged
        return None
