"""Tokenised rows with their targets, as the Trainer takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..config.rows import Rows
from ..errors import UsageError
from .parts import TrainingRows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

# What an item has beside the inputs of the model.
LABELS = "labels"
HARD = "hard"
ROW = "row"  # the row's index in the data, for messages
TEACHER_LOGITS = "teacher_logits"

Item = Mapping[str, Any]


def encoded_items(
    rows: Rows, names: Sequence[str], tokenizer: PreTrainedTokenizerFast, max_length: int
) -> list[dict[str, Any]]:
    """Token ids and label of every row."""
    targets = rows.label_indices(names)
    texts = [text if isinstance(text, str) else text[0] for text in rows.texts]
    pairs = [text[1] for text in rows.texts if not isinstance(text, str)] or None
    encoded = tokenizer(
        texts, pairs, truncation=True, max_length=max_length, return_attention_mask=True
    )
    return [
        {**{key: values[i] for key, values in encoded.items()}, LABELS: int(target)}
        for i, target in enumerate(targets)
    ]


def add_targets(
    items: Sequence[dict[str, Any]],
    parts: TrainingRows,
    teacher_logits: NDArray[np.float32] | None,
) -> None:
    """Add what the objective needs beside the labels to the items of `parts.train`."""
    for i, item in enumerate(items):
        item[ROW] = int(parts.indices[i])
        if parts.hard is not None:
            item[HARD] = bool(parts.hard[i])
        if teacher_logits is not None:
            item[TEACHER_LOGITS] = teacher_logits[i].tolist()


def check_positions(rows: Rows, items: Sequence[Item], limit: int | None) -> None:
    """Refuse rows with more tokens than the model has positions; None: it has no limit.

    Raises:
        UsageError: A row is too long.
    """
    for row, item in enumerate(items):
        if limit is not None and len(item["input_ids"]) > limit:
            raise UsageError(
                f"{rows.where(row)}: its {len(item['input_ids'])} tokens are more than the {limit} "
                f"positions of the base: give --max-length {limit}"
            )
