"""The model that a training starts from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.checkpoint import without_warnings
from ..errors import UsageError, first_cause
from ..progress import say
from . import processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def model_from_base(base: str, names: Sequence[str]) -> PreTrainedModel:
    """The base with a classification head for these labels, in float32.

    A line says what starts at random, in place of transformers' tables.

    Raises:
        UsageError: It cannot be loaded.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        with without_warnings():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                base,
                dtype=torch.float32,
                num_labels=len(names),
                id2label=dict(enumerate(names)),
                label2id={name: i for i, name in enumerate(names)},
                # A multi-label base would stay one, and what is trained here gives one label.
                problem_type=None,
                # A base may have a head for another number of labels: it is replaced.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as exc:
        raise UsageError(
            f"the base checkpoint {base!r} cannot be loaded: {first_cause(exc)}: save it "
            "again with a current transformers, or give another one"
        ) from exc
    new = {*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])}
    if new and processes.is_first():
        say("base", Path(base).name, _at_random(new, model, len(names)))
    return model


def _at_random(new: Iterable[str], model: PreTrainedModel, n_labels: int) -> str:
    """What starts at random: the head alone, or weights of the encoder too."""
    encoder = sorted(name for name in new if name.startswith(f"{model.base_model_prefix}."))
    # Some encoders have a pooler that only a classification uses: it belongs to the head.
    encoder = [name for name in encoder if ".pooler." not in name]
    text = f"new head for {n_labels} labels: its weights start at random"
    if encoder:
        text += f", and so do {len(encoder)} weights of the encoder ({', '.join(encoder[:3])})"
    return text
