"""Which columns of a data file are the text, its pair and the label."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cascadebert_client.sources import did_you_mean, names_in_message

from ..errors import UsageError

LABEL_NAMES = (
    "label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "quality",
    "gold", "gold_label", "y", "answer", "stars", "rating",
)  # fmt: skip
"""Names of label columns, in lower case."""

TEXT_NAMES = (
    "text", "sentence", "review", "content", "body", "message", "comment", "document", "title",
    "utterance", "tweet", "description", "input",
)  # fmt: skip
"""Names of text columns, in lower case."""

PAIR_NAMES = (
    ("text", "text_pair"), ("premise", "hypothesis"), ("question", "sentence"),
    ("question", "context"), ("question", "answer"), ("query", "passage"), ("query", "document"),
    ("claim", "evidence"), ("source", "target"),
)  # fmt: skip
"""Names of two texts that belong together, in lower case."""

# Ids and codes have one word; a column of texts has more in most rows.
_WORDS_OF_A_TEXT = 1.5
# The first or the second of two texts: sentence1, text_a, #1 String.
_NUMBERED = re.compile(r"(?<![0-9A-Za-z])([12])(?![0-9])|(?<=[A-Za-z])([12])$|(?<=[_ -])([abAB])$")

Ask = Callable[[str, Sequence[str]], str]
"""Asks a person: the question and the choices in, one of the choices out."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a classification task.

    Attributes:
        text: Of the text.
        text_pair: Of the second text; None: the task has no pairs.
        label: Of the label; None: the rows have none.
    """

    text: str
    text_pair: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class GivenColumns:
    """What the user says of the columns.

    Attributes:
        text: None: it is to be recognised.
        text_pair: None: it is to be recognised; "": there is none.
        label: None: it is to be recognised; "": there is none.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None


def recognised_columns(
    source: str,
    sample: Mapping[str, Sequence[Any]],
    labels: Sequence[str],
    given: GivenColumns = GivenColumns(),
    ask: Ask | None = None,
) -> Columns:
    """Find text, pair and label among the columns of a file.

    A label column holds nothing but the names of the labels or their indices. A text column holds
    several words in most rows. Names decide between columns that are alike.

    Args:
        source: The file, for messages.
        sample: The values of some rows, by column, in the order of the file.
        labels: The names of the members' labels.
        given: Columns that the user names; they are not questioned.
        ask: Asks if several columns are possible; None: that is an error.

    Raises:
        UsageError: There is no such column, or there are several and no one to ask.
    """
    known = list(sample)
    for flag, name in (
        ("--text", given.text), ("--text-pair", given.text_pair), ("--label", given.label),
    ):  # fmt: skip
        if name and name not in sample:
            raise UsageError(
                f"{source}: no column named {name!r} ({flag}): {did_you_mean(name, known)}the "
                f"columns are {names_in_message(known)}"
            )
    label = given.label if given.label is not None else _label(source, sample, labels, given, ask)
    rest = {name: values for name, values in sample.items() if name != label}
    text, pair = _texts(source, rest, given, ask)
    return Columns(text, pair or None, label or None)


def training_columns(
    source: str, sample: Mapping[str, Sequence[Any]], given: GivenColumns = GivenColumns()
) -> Columns:
    """Find the columns of rows to train on: no member tells the labels yet.

    The label is the only column with a usual name. The text and its pair are recognised as in
    `recognised_columns`.

    Args:
        source: The file, for messages.
        sample: The values of some rows, by column, in the order of the file.
        given: Columns that the user names; they are not questioned.

    Raises:
        UsageError: There is no such column, or there are several.
    """
    label = given.label
    usual = [name for name in sample if name.strip().lower() in LABEL_NAMES]
    usual = [name for name in usual if name not in (given.text, given.text_pair)]
    if label is None and len(usual) == 1:
        label = usual[0]
    if given.text is not None and given.text_pair is None:
        given = replace(given, text_pair="")  # a pair is not guessed beside a column that is clear
    if label is None:
        among = names_in_message(usual or list(sample))
        what = "several columns may be the label" if usual else "no column has a label's usual name"
        raise UsageError(
            f"{source}: {what}, {among}: name the columns, as in --text {given.text or 'COLUMN'} "
            "--label COLUMN"
        )
    given = replace(given, label=label)
    return recognised_columns(source, sample, (), given)


def _label(
    source: str,
    sample: Mapping[str, Sequence[Any]],
    labels: Sequence[str],
    given: GivenColumns,
    ask: Ask | None,
) -> str:
    taken = {given.text, given.text_pair}
    readings = {
        name: reading
        for name, values in sample.items()
        if name not in taken and (reading := _reading(values, labels)) is not None
    }
    # Names of labels are no accident; numbers may be anything.
    named = [name for name, reading in readings.items() if reading == "names"]
    usual = [name for name in readings if name.strip().lower() in LABEL_NAMES]
    for candidates in ([n for n in named if n in usual], named, usual, list(readings)):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            question = f"{source}: which column is the label?"
            return _chosen(question, candidates, "--label", ask)
    raise UsageError(
        f"{source}: no column holds the members' labels {names_in_message(labels)}, by name or by "
        f"index; its columns are {names_in_message(list(sample))}: name it with --label, give the "
        "names with --labels, or give --label '' if the rows have no labels"
    )


def _reading(values: Sequence[Any], labels: Sequence[str]) -> str | None:
    """What all values are: "names" or "indices" of labels; None: neither."""
    distinct: set[str] = set()
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            return None
        distinct.add(str(value))
    if not distinct:
        return None
    if distinct <= set(labels):
        return "names"
    return "indices" if distinct <= {str(i) for i in range(len(labels))} else None


def _texts(
    source: str, columns: Mapping[str, Sequence[Any]], given: GivenColumns, ask: Ask | None
) -> tuple[str, str | None]:
    """The text and its pair."""
    candidates = [name for name, values in columns.items() if _is_text(values)]
    if given.text is not None:
        others = [name for name in candidates if name != given.text]
        second = _second_of(given.text, others)
        return given.text, second if given.text_pair is None else given.text_pair
    candidates = [name for name in candidates if name != given.text_pair]
    if not candidates:
        raise UsageError(
            f"{source}: no column holds texts of several words; its columns are "
            f"{names_in_message(list(columns))}: name it with --text"
        )
    if given.text_pair is None:
        pairs = [
            (first, second)
            for first in candidates
            if (second := _second_of(first, [n for n in candidates if n != first])) is not None
        ]
        if len(pairs) == 1:
            return pairs[0]
    usual = [name for name in candidates if name.strip().lower() in TEXT_NAMES]
    for some in (usual, candidates):
        if len(some) == 1:
            return some[0], given.text_pair
    question = f"{source}: which column is the text?"
    return _chosen(question, usual or candidates, "--text", ask), given.text_pair


def _is_text(values: Sequence[Any]) -> bool:
    if not values or not all(isinstance(value, str) for value in values):
        return False
    words = sorted(len(value.split()) for value in values)
    return sum(words) / len(words) >= _WORDS_OF_A_TEXT


def _second_of(first: str, others: Sequence[str]) -> str | None:
    """The column that belongs to a first text by its name."""
    for other in others:
        if (first.strip().lower(), other.strip().lower()) in PAIR_NAMES:
            return other
        if _numbered(first) == (_numbered(other)[0], "1") and _numbered(other)[1] == "2":
            return other
    return None


def _numbered(name: str) -> tuple[str, str]:
    """A column's name without the number of its text, and the number."""
    found = _NUMBERED.search(name)
    if found is None:
        return name, ""
    number = next(group for group in found.groups() if group)
    rest = name[: found.start()] + "#" + name[found.end() :]
    return rest, {"a": "1", "b": "2"}.get(number.lower(), number)


def _chosen(question: str, candidates: Sequence[str], flag: str, ask: Ask | None) -> str:
    if ask is not None:
        return ask(question, candidates)
    raise UsageError(
        f"{question.removesuffix('?')} of {names_in_message(candidates)} is not clear: name it "
        f"with {flag}"
    )
