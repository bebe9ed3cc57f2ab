"""The model that a training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UsageError, first_cause

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def model_from_base(base: str, names: Sequence[str]) -> PreTrainedModel:
    """The base with a classification head for these labels, in float32.

    Raises:
        UsageError: It cannot be loaded.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        return AutoModelForSequenceClassification.from_pretrained(
            base,
            dtype=torch.float32,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            # A multi-label base would stay one, and what is trained here gives one label.
            problem_type=None,
            # A base may have a head for another number of labels: it is replaced.
            ignore_mismatched_sizes=True,
        )
    except Exception as exc:
        raise UsageError(
            f"the base checkpoint {base!r} cannot be loaded: {first_cause(exc)}: save it "
            "again with a current transformers, or give another one"
        ) from exc
