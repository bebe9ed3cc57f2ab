"""Logits of a PyTorch checkpoint, for teachers and for the labelling of difficulty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.task import MULTI_LABEL
from cascadebert_core.tokenization import Text

from ..errors import UsageError
from ..progress import counted
from .checkpoint import checkpoint_from_source

_BATCH_SIZE = 64


def logits_of_checkpoint(
    source: str,
    texts: Sequence[Text],
    labels: Sequence[str],
    max_length: int,
    description: str,
) -> NDArray[np.float32]:
    """Logits of shape (n, n_labels), row i for text i, columns in the order of `labels`.

    Rows of similar length share a batch. A GPU is used if there is one.

    Args:
        source: Folder or hub id of the checkpoint.
        texts: Strings, or pairs of strings.
        labels: The names of the labels.
        max_length: Tokens, special ones included; longer texts are truncated.
        description: Of the progress.

    Raises:
        UsageError: The checkpoint has other labels, or gives sets of labels.
    """
    import torch

    checkpoint = checkpoint_from_source(source)
    if sorted(checkpoint.labels) != sorted(labels):
        raise UsageError(
            f"{source} has the labels {list(checkpoint.labels)} and the data {list(labels)}: they "
            "must agree as a set"
        )
    if checkpoint.task == MULTI_LABEL:
        raise UsageError(
            f"{source} is a multi-label classifier, and the members that are trained here give one "
            "label: give a teacher with one label for each text"
        )
    columns = [checkpoint.labels.index(label) for label in labels]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = cast("Any", checkpoint.model).to(device)
    tokenizer = cast("Any", checkpoint.tokenizer)
    order = sorted(range(len(texts)), key=lambda i: len("".join(texts[i])))
    logits = np.empty((len(texts), len(labels)), dtype=np.float32)
    with torch.inference_mode(), counted("row", len(order), what=description) as advance:
        # The longest rows first: what is left then takes no longer than was said.
        for start in reversed(range(0, len(order), _BATCH_SIZE)):
            part = order[start : start + _BATCH_SIZE]
            pairs = [(t,) if isinstance(t, str) else t for t in (texts[i] for i in part)]
            tokens = tokenizer(
                *(list(column) for column in zip(*pairs, strict=True)),
                truncation=True, max_length=max_length, padding=True, return_tensors="pt",
                return_attention_mask=True,
            ).to(device)  # fmt: skip
            output = model(**{name: tokens[name] for name in checkpoint.inputs})
            logits[part] = output.logits.float().cpu().numpy()[:, columns]
            advance(len(part))
    return logits
