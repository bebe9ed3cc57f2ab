"""Labelled rows from a data file, or from a Hugging Face data set."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cascadebert_client.errors import InvalidRequest
from cascadebert_client.sources import (
    FORMATS,
    Values,
    did_you_mean,
    format_of_name,
    missing_column,
    names_in_message,
    text_problem,
    unknown_format,
    values_from_file,
)
from cascadebert_core.task import MULTI_LABEL, set_keys
from cascadebert_core.tokenization import Text

from ..errors import UsageError
from ..extras import needs_extra
from .blanks import Blank, blank_of, message_of_blanks
from .label_sets import LabelOrSet, members_of_set, set_of_columns
from .labels import Label, UnknownLabel, index_of_labels
from .schema import DataConfig

NAMING = "name the columns as data.text, data.text_pair and data.label, or with the flags"


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts with their labels.

    Attributes:
        texts: Strings, or pairs of strings.
        labels: As written in the file: integers that index the cascade's labels, or names. A tuple
            is a set of them. None if the data has no label column.
        source: The file or data set, for reports.
        numbers: The line or record of each row in the source, from 1. None if the rows do not
            come from a file.
        labels_are: How the labels are read, one of `labels.LABELS_ARE`.
        all_labels: The distinct labels of the whole source, which decide how they are read. None:
            those of these rows.
        index_names: The names that the source gives to its own indices, in their order.
    """

    texts: tuple[Text, ...]
    labels: tuple[LabelOrSet, ...] | None
    source: str
    numbers: tuple[int, ...] | None = None
    labels_are: str = "auto"
    all_labels: tuple[LabelOrSet, ...] | None = None
    index_names: tuple[str, ...] | None = None

    @property
    def pair(self) -> bool:
        """Whether the rows are pairs."""
        return isinstance(self.texts[0], tuple)

    def subset(self, indices: Sequence[int]) -> Rows:
        """Some of the rows, in the given order."""
        labels = None if self.labels is None else tuple(self.labels[i] for i in indices)
        numbers = None if self.numbers is None else tuple(self.numbers[i] for i in indices)
        return replace(
            self,
            texts=tuple(self.texts[i] for i in indices),
            labels=labels,
            numbers=numbers,
            all_labels=self._distinct_labels(),
        )

    def where(self, row: int) -> str:
        """The place of a row (from 0) for messages: its line if it has one."""
        if self.numbers is None:
            return f"{self.source}, row {row + 1}"
        return f"{self.source}:{self.numbers[row]}"

    def sha256(self) -> str:
        """A hash of texts and labels, independent of the file."""
        return hashlib.sha256(json.dumps([self.texts, self.labels]).encode()).hexdigest()

    def label_indices(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """The labels as indices into `labels`, shape (n,).

        Raises:
            UsageError: The rows have no labels, or one that is not in `labels`, or it is not
                clear whether they are names or indices.
        """
        written = self._written_labels()
        single = [label for label in written if not isinstance(label, tuple)]
        if len(single) < len(written):
            row = next(i for i, label in enumerate(written) if isinstance(label, tuple))
            raise UsageError(
                f"{self.where(row)}: the label is a list, and an answer is one label: correct the "
                f'row, or set task = "{MULTI_LABEL}" in cascade.toml if every member has a sigmoid '
                "for each label"
            )
        index_of = self._index_of(self._distinct_labels(), labels)
        return np.array([index_of[label] for label in single], dtype=np.int64)

    def label_sets(self, labels: Sequence[str]) -> NDArray[np.bool_]:
        """Which of `labels` each row has, bool of shape (n, n_labels), for multi-label cascades.

        A row has a list of names or indices; in a text file, a JSON array of them. A single name or
        index is a set of one.

        Raises:
            UsageError: The rows have no labels, or one that is not in `labels`, or it is not
                clear whether they are names or indices.
        """
        sets = np.zeros((len(self.texts), len(labels)), dtype=np.bool_)
        written = [members_of_set(label, labels) for label in self._written_labels()]
        distinct = [members_of_set(label, labels) for label in self._distinct_labels()]
        index_of = self._index_of(dict.fromkeys(itertools.chain(*distinct)), labels)
        for row, members in enumerate(written):
            sets[row, [index_of[label] for label in members]] = True
        return sets

    def answers(self, labels: Sequence[str], task: str) -> NDArray[Any]:
        """The keys of the true answers, shape (n,); see `cascadebert_core.task`.

        Raises:
            UsageError: As `label_indices` and `label_sets`.
        """
        if task == MULTI_LABEL:
            return set_keys(self.label_sets(labels))
        return self.label_indices(labels)

    def _index_of(
        self, distinct: Collection[LabelOrSet], labels: Sequence[str]
    ) -> dict[Label, int]:
        """The index of every label that the source has; sets are taken apart before."""
        single = [label for label in distinct if not isinstance(label, tuple)]
        try:
            return index_of_labels(single, labels, self.labels_are, self.index_names)
        except UnknownLabel as exc:
            raise UsageError(f"{self._where_is(exc.label, labels)}: {exc}") from exc
        except UsageError as exc:
            raise UsageError(f"{self.source}: {exc}") from exc

    def _where_is(self, label: Label, labels: Sequence[str]) -> str:
        """The place of the first row with a label, or the source if this subset lacks it."""
        for row, written in enumerate(self._written_labels()):
            if label in members_of_set(written, labels):
                return self.where(row)
        return self.source

    def _written_labels(self) -> tuple[LabelOrSet, ...]:
        if self.labels is None:
            raise UsageError(f"{self.source} has no labels: name their column as data.label")
        return self.labels

    def _distinct_labels(self) -> tuple[LabelOrSet, ...]:
        # A dict keeps the order of the rows: the first unknown label is the one that is named.
        return self.all_labels or tuple(dict.fromkeys(self.labels or ()))


def rows_from_source(data: DataConfig, naming: str = NAMING) -> Rows:
    """Read all rows.

    Args:
        data: The source and its columns.
        naming: The end of the message on a missing column: how to name another column.

    Raises:
        UsageError: The file is missing, damaged or empty, a column is missing, or a row has no
            text. The message names file and line.
    """
    of_labels = data.label_columns or (() if data.label is None else (data.label,))
    columns = [data.text, *(() if data.text_pair is None else (data.text_pair,)), *of_labels]
    in_file = data.format is not None or format_of_name(data.path) is not None
    source = data.path if in_file else f"{data.path} ({data.split})"
    texts: list[Text] = []
    labels: list[LabelOrSet] = []
    numbers: list[int] = []
    index_names: list[str] = []
    blanks: list[Blank] = []
    for number, values in (
        _file_values(data, columns, naming)
        if in_file
        else _hub_values(data, columns, index_names, naming)
    ):
        where = f"{source}:{number}"
        cells = values[: len(columns) - len(of_labels)]
        if blank := blank_of(number, columns[: len(cells)], cells):
            blanks.append(blank)
        if blanks:
            continue  # only to count the others
        text = _text(values[0], data.text, where)
        texts.append(
            text if data.text_pair is None else (text, _text(values[1], data.text_pair, where))
        )
        if data.label_columns:
            labels.append(set_of_columns(values[-len(of_labels) :], data.label_columns, where))
        elif data.label is not None:
            labels.append(_label(values[-1], data.label, where))
        numbers.append(number)
    if blanks:
        raise UsageError(message_of_blanks(source, blanks))
    if not texts:
        raise UsageError(f"{source} has no rows")
    return Rows(
        tuple(texts),
        tuple(labels) if of_labels else None,
        source,
        tuple(numbers),
        data.labels_are,
        index_names=tuple(index_names) or None,
    )


def _file_values(data: DataConfig, columns: list[str], naming: str) -> Iterator[Values]:
    try:
        check_data_file(Path(data.path))
        with Path(data.path).open("rb") as file:
            yield from values_from_file(file, data.path, columns, naming, data.format)
    except OSError as exc:
        raise UsageError(f"{data.path} cannot be read: {exc.strerror}") from exc
    except InvalidRequest as exc:
        raise UsageError(str(exc)) from exc


def check_data_file(path: Path) -> None:
    """Refuse a file that does not exist.

    Raises:
        UsageError: The message names the data files that are there instead.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist{_near(path)}")


def _near(path: Path) -> str:
    """The end of a sentence about a missing file: what is there instead."""
    if not path.parent.is_dir():
        return f", nor does {path.parent}: correct the path"
    files = sorted(each.name for each in path.parent.iterdir() if format_of_name(each.name))
    if not files:
        return ": correct the path"
    guess = did_you_mean(path.name, files)
    return f": {guess}the data files there are {names_in_message(files)}"


def _hub_values(
    data: DataConfig, columns: list[str], index_names: list[str], naming: str
) -> Iterator[Values]:
    """The values of a hub data set; the names of its label's indices go to `index_names`."""
    if Path(data.path).is_file():
        raise UsageError(unknown_format(data.path))
    if Path(data.path).is_absolute() or Path(data.path).exists():
        what = "is a folder" if Path(data.path).is_dir() else "does not exist"
        raise UsageError(
            f"{data.path} {what}: give a data file ({', '.join(FORMATS)}), or the id of a hub data "
            "set"
        )
    with needs_extra("hub"):
        import datasets  # pyright: ignore[reportMissingImports] - the hub extra is optional
    try:
        records = datasets.load_dataset(data.path, data.subset, split=data.split)
    except Exception as exc:
        raise UsageError(
            f"{data.path!r} is no file here, and as a data set of the hub it cannot be loaded: "
            f"{exc}"
        ) from exc
    for column in columns:
        if column not in records.column_names:
            raise UsageError(f"{data.path}: {missing_column(column, records.column_names, naming)}")
    feature = records.features.get(data.label) if data.label is not None else None
    feature = getattr(feature, "feature", feature)  # of each label in a list
    index_names.extend(getattr(feature, "names", None) or ())
    for number, record in enumerate(records, start=1):
        yield number, [record[column] for column in columns]


def _text(value: Any, column: str, where: str) -> str:
    problem = (
        "is not a string: correct the row" if not isinstance(value, str) else text_problem(value)
    )
    if problem is not None:
        raise UsageError(f"{where}: {column!r} {problem}")
    return value


def _label(value: Any, column: str, where: str) -> LabelOrSet:
    if isinstance(value, (list, tuple)):  # a set of labels
        return tuple(_one_label(each, column, where) for each in cast("list[Any]", value))
    return _one_label(value, column, where)


def _one_label(value: Any, column: str, where: str) -> Label:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise UsageError(f"{where}: {column!r} is {value!r}: give a label's name or its index")
    return value
