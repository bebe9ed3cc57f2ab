"""The classification tasks of GLUE: columns, labels and metric, by name.

Columns are those of GLUE's own tsv files; on the hub the same data has others (nyu-mll/glue).
Labels stand in the order of the integers that the data uses.
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
        columns: of GLUE's tsv: text, its pair or None, and label; None where it has no header.
        hub_columns: text and its pair or None, on the hub; the label is "label".
        labels: in the order of integer labels.
        metric: a name of `METRICS`.
        validation: split of the hub's data set.
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
    """Share of right predictions."""
    return float((predicted == labels).mean())


def f1(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    """F1 of the label with index 1; 0 where it is neither predicted nor there."""
    both = int(((predicted == 1) & (labels == 1)).sum())
    either = int((predicted == 1).sum() + (labels == 1).sum())
    return 2 * both / either if either else 0.0


def matthews(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    """Matthews correlation of two labels, -1 to 1; 0 where one of them is never predicted or there.

    The correlation coefficient of the two indicators (Matthews, 1975).
    """
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(np.corrcoef(predicted == 1, labels == 1)[0, 1])


METRICS: dict[str, Callable[[NDArray[Any], NDArray[Any]], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
}
