"""The classification tasks of GLUE by name: columns, labels and metric.

GLUE's own tsv files and the hub's data set (nyu-mll/glue) have different columns. Labels are in the
order of the integers in the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HUB_DATA_SET = "nyu-mll/glue"


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
        columns: Of GLUE's tsv: text, second text or None, and label. None: it has no header.
        hub_columns: Text, and second text or None, on the hub. The label is "label".
        labels: In the order of integer labels.
        metric: A name of `METRICS`.
        validation: Split of the hub's data set.
    """

    columns: tuple[str, str | None, str] | None
    hub_columns: tuple[str, str | None]
    labels: tuple[str, ...]
    metric: str = "accuracy"
    validation: str = "validation"


_ENTAILS = ("entailment", "not_entailment")

TASKS = {
    "cola": Task(None, ("sentence", None), ("unacceptable", "acceptable"), "matthews"),
    "sst2": Task(("sentence", None, "label"), ("sentence", None), ("negative", "positive")),
    "mrpc": Task(
        ("#1 String", "#2 String", "Quality"),
        ("sentence1", "sentence2"),
        ("not_equivalent", "equivalent"),
        "f1",
    ),
    "qqp": Task(
        ("question1", "question2", "is_duplicate"),
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        "f1",
    ),
    "mnli": Task(
        ("sentence1", "sentence2", "gold_label"),
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        validation="validation_matched",
    ),
    "qnli": Task(("question", "sentence", "label"), ("question", "sentence"), _ENTAILS),
    "rte": Task(("sentence1", "sentence2", "label"), ("sentence1", "sentence2"), _ENTAILS),
    "wnli": Task(("sentence1", "sentence2", "label"), ("sentence1", "sentence2"), _ENTAILS[::-1]),
}


def accuracy(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of correct predictions."""
    return float((predicted == labels).mean())


def f1(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    """F1 of the label with index 1; 0 if it is neither predicted nor in the data."""
    both = int(((predicted == 1) & (labels == 1)).sum())
    either = int((predicted == 1).sum() + (labels == 1).sum())
    return 2 * both / either if either else 0.0


def matthews(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    """Matthews correlation of two labels, -1 to 1: the correlation of the two indicators.

    It is 0 if all predictions or all labels are the same (Matthews, 1975).
    """
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(np.corrcoef(predicted == 1, labels == 1)[0, 1])


METRICS: dict[str, Callable[[NDArray[Any], NDArray[Any]], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
}
