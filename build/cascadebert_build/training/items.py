"""Tokenised rows with their targets, as the Trainer takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cascadebert_core.tokenization import Text

from ..config.rows import Rows
from ..config.truncation import Truncation, truncation_of_counts
from ..errors import UsageError
from .parts import TrainingRows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

# What an item has beside the inputs of the model.
LABELS = "labels"
HARD = "hard"
ROW = "row"  # the row's index in the data, for messages
TEACHER_LOGITS = "teacher_logits"

Item = Mapping[str, Any]

_COUNTED_AT_ONCE = 1024


def encoded_items(
    rows: Rows, names: Sequence[str], tokenizer: PreTrainedTokenizerFast, max_length: int
) -> list[dict[str, Any]]:
    """Token ids and label of every row."""
    targets = rows.label_indices(names)
    encoded = tokenizer(
        *_columns(rows.texts), truncation=True, max_length=max_length, return_attention_mask=True
    )
    return [
        {**{key: values[i] for key, values in encoded.items()}, LABELS: int(target)}
        for i, target in enumerate(targets)
    ]


def truncation_of_items(
    rows: Rows,
    items: Sequence[Item],
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
    member: str,
) -> Truncation:
    """How many rows were cut.

    Args:
        rows: The rows.
        items: The result of `encoded_items`, one for each row.
        tokenizer: The base's.
        max_length: Tokens that were kept.
        member: The name of what is trained.
    """
    counts = np.array([len(item["input_ids"]) for item in items])
    full = np.flatnonzero(counts >= max_length)  # the others are whole
    for start in range(0, len(full), _COUNTED_AT_ONCE):
        part = full[start : start + _COUNTED_AT_ONCE]
        # Not verbose: it would warn of texts that are longer than the model takes.
        encoded = tokenizer(*_columns([rows.texts[i] for i in part]), verbose=False)
        counts[part] = [len(ids) for ids in encoded["input_ids"]]
    return truncation_of_counts(counts, member=member, max_length=max_length)


def _columns(texts: Sequence[Text]) -> tuple[list[str], list[str] | None]:
    """The texts, and their pairs if they have some."""
    first = [text if isinstance(text, str) else text[0] for text in texts]
    return first, [text[1] for text in texts if not isinstance(text, str)] or None


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
