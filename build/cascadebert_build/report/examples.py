"""Rows worth reading: confident and wrong, or different from the last member's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.task import names_of_answer
from cascadebert_core.tokenization import Text

from .answers import NO_ANSWER, MemberAnswers
from .material import Material


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the data with its answers.

    Attributes:
        row: The row's number in the data, from 1.
        text: A string, or a pair of strings.
        label: The right label, or the right set of labels in words; None without labels.
        answers: Label or set and probability of each member alone; None for a member without an
            answer.
        exit_stage: The stage that answered; NO_ANSWER if no stage could.
    """

    row: int
    text: Text
    label: str | None
    answers: tuple[tuple[str, float] | None, ...]
    exit_stage: int


def sure_and_wrong(
    members: Sequence[MemberAnswers], exit_stage: NDArray[Any], truth: NDArray[Any]
) -> NDArray[np.intp]:
    """Return indices of rows that the first stage answered wrongly, most confident first."""
    first = members[0]
    wrong = np.flatnonzero((exit_stage == 0) & (first.labels != truth))
    return wrong[np.argsort(-first.confidence[wrong], kind="stable")]


def unlike_the_last(members: Sequence[MemberAnswers], exit_stage: NDArray[Any]) -> NDArray[np.intp]:
    """Return indices of rows where cascade and last member differ, most confident first."""
    labels = np.stack([member.labels for member in members], axis=1)
    confidences = np.stack([member.confidence for member in members], axis=1)
    rows = np.arange(len(exit_stage))
    given = np.where(exit_stage == NO_ANSWER, NO_ANSWER, labels[rows, exit_stage])
    differing = np.flatnonzero(given != labels[:, -1])
    return differing[np.argsort(-confidences[differing, exit_stage[differing]], kind="stable")]


def example_at(row: int, material: Material) -> Example:
    """Return the row of an index, with the names of its labels."""
    truth = material.truth

    def name(key: int) -> str:
        names = names_of_answer(key, material.labels, material.task)
        return ", ".join(names) or "no label"

    return Example(
        row=row + 1,
        text=material.texts[row],
        label=None if truth is None else name(truth[row]),
        answers=tuple(
            None
            if member.labels[row] == NO_ANSWER
            else (name(member.labels[row]), float(member.probability[row]))
            for member in material.members
        ),
        exit_stage=int(material.exit_stage[row]),
    )
