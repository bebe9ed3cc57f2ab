"""Hyperparameters of a training, and the names of the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..checkpoints.checkpoint import config_from_source
from ..config.label_sets import LabelOrSet, members_of_set
from ..config.rows import Rows
from ..errors import UsageError
from .glue import METRICS
from .objectives import OBJECTIVES, ObjectiveConfig

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a member is fine-tuned; the defaults suit a BERT-family base checkpoint.

    Attributes:
        epochs: The maximum number of epochs.
        learning_rate: The peak. It rises over `warmup_ratio` of the steps, then falls linearly.
        batch_size: Rows in a step of one process.
        warmup_ratio: Share of the steps, 0 to 1.
        weight_decay: AdamW's.
        patience: Stop after this number of validations without a better metric; 0: never.
        max_length: Tokens, special ones included.
        precision: Of the arithmetic, one of `PRECISIONS`; weights stay float32. "auto" is bf16 on
            GPUs that have it, fp16 on other GPUs and fp32 on a CPU.
        checkpoint_steps: Steps between validations, each of which saves a checkpoint. An
            interruption loses at most these steps. 0: one validation after every epoch.
        seed: Of weights, order and dropout.
        objective: A name of `objectives.OBJECTIVES`.
        constants: Constants of the objective.
        metric: A name of `glue.METRICS`; the validation with the best one is kept.
    """

    epochs: float = 3.0
    learning_rate: float = 2e-5
    batch_size: int = 32
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    patience: int = 2
    max_length: int = 128
    precision: str = "auto"
    checkpoint_steps: int = 0
    seed: int = 0
    objective: str = "plain"
    constants: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    metric: str = "accuracy"


def check_config(config: TrainConfig) -> None:
    """Refuse hyperparameters that cannot be trained with.

    Raises:
        UsageError: A name is unknown, or a number is out of range.
    """
    for name, known in (("objective", OBJECTIVES), ("metric", METRICS), ("precision", PRECISIONS)):
        value = getattr(config, name)
        if value not in known:
            raise UsageError(f"unknown {name} {value!r}: give one of {', '.join(known)}")
    precision_of(config.precision)
    for name in ("epochs", "learning_rate", "batch_size", "max_length"):
        if not 0 < getattr(config, name) < math.inf:
            raise UsageError(f"{name} is {getattr(config, name)}: give a number above 0")
    for name in ("warmup_ratio", "weight_decay", "patience", "checkpoint_steps", "seed"):
        if not 0 <= getattr(config, name) < math.inf:
            raise UsageError(f"{name} is {getattr(config, name)}: give 0 or more")


def label_names(rows: Rows, base: str, given: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the labels: the given ones, else the data's strings, else the base's names.

    Raises:
        UsageError: There are no labels, all rows have the same one, or a number is not an index.
    """
    refuse_sets(rows)
    if given:
        return tuple(given)
    id2label: Any = dict(config_from_source(base).id2label or {})  # int: str
    of_base = tuple(name for _, name in sorted(id2label.items()))
    if rows.labels is None:
        raise UsageError(f"{rows.source} has no labels: name their column with --label")
    distinct = sorted(set(rows.labels), key=str)
    if len(distinct) < 2:
        raise UsageError(one_label(rows, distinct[0]))
    if any(not str(label).isdecimal() for label in distinct):
        return tuple(str(label) for label in distinct)
    return _names_of_numbers(rows, distinct, of_base)


def _names_of_numbers(
    rows: Rows, distinct: Sequence[LabelOrSet], of_base: tuple[str, ...]
) -> tuple[str, ...]:
    """Names of labels that are all numbers.

    They are the data set's own, or the base's if they fit, or else `LABEL_0` and so on.
    """
    numbers = sorted({int(str(label)) for label in distinct})
    texts = {str(label) for label in distinct}
    if rows.index_names is not None and numbers[-1] < len(rows.index_names):
        return rows.index_names
    if texts <= set(of_base) or numbers[-1] + 1 == len(of_base):
        return of_base
    if rows.labels_are == "names":
        return tuple(sorted((str(label) for label in distinct), key=int))
    if numbers != list(range(len(numbers))):
        indices = [int(str(label)) for label in rows.labels or ()]
        largest = max(range(len(indices)), key=lambda i: indices[i])
        raise UsageError(
            f"{rows.where(largest)}: the label {numbers[-1]} is not an index, since the labels "
            f"{', '.join(map(str, numbers[:5]))} do not count from 0 on: "
            f"give --labels-are names if they are names, or the names with --labels"
        )
    return tuple(f"LABEL_{i}" for i in numbers)


def refuse_sets(rows: Rows) -> None:
    """Refuse rows whose labels are sets.

    Raises:
        UsageError: The message names the first such row.
    """
    for row, label in enumerate(rows.labels or ()):
        if members_of_set(label, ()) != (label,):
            raise UsageError(
                f"{rows.where(row)}: the label is a list, and `cascadebert train` makes members "
                "that give one label: fine-tune a multi-label member with transformers "
                '(problem_type="multi_label_classification"); a cascade takes it as it is'
            )


def one_label(rows: Rows, label: LabelOrSet) -> str:
    """The error message for rows that all have one label."""
    return (
        f"{rows.source}: all {len(rows.texts)} rows to train on have the label {label!r}: "
        "give rows of two labels or more"
    )


def precision_of(name: str) -> str:
    """The precision on this machine: `auto` is bf16 or fp16 on a GPU, and fp32 on a CPU.

    Raises:
        UsageError: This machine does not support it.
    """
    import torch

    if name == "fp16" and not torch.cuda.is_available():
        raise UsageError("the precision fp16 needs a GPU: give bf16 or fp32")
    if name != "auto":
        return name
    if not torch.cuda.is_available():
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
