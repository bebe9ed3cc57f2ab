"""Labelled rows from a tsv, csv or jsonl file, or from a data set of the Hugging Face hub."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cascadebert_core.tokenization import Text
from numpy.typing import NDArray

from .config import DataConfig
from .errors import UsageError
from .extras import needs_extra

SUFFIXES = (".tsv", ".csv", ".jsonl")


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts with their labels.

    Attributes:
        texts: strings, or pairs of strings.
        labels: as they stand in the file: integers that index the cascade's labels, or names;
            None where the data has no label column.
        source: where they came from, for reports.
    """

    texts: tuple[Text, ...]
    labels: tuple[int | str, ...] | None
    source: str

    @property
    def pair(self) -> bool:
        """Whether the rows are pairs."""
        return isinstance(self.texts[0], tuple)

    def sha256(self) -> str:
        """A hash of texts and labels, whatever file they came from."""
        return hashlib.sha256(json.dumps([self.texts, self.labels]).encode()).hexdigest()

    def label_indices(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """The labels as indices into `labels`, shape (n,).

        Raises:
            UsageError: the rows have no labels, or one that is none of `labels`.
        """
        if self.labels is None:
            raise UsageError(f"{self.source} has no labels: name their column as data.label")
        index_of: dict[int | str, int] = {name: i for i, name in enumerate(labels)}
        index_of |= {i: i for i in range(len(labels))}
        # Integers may stand in a text file as strings; a label's own name wins.
        index_of = {**{str(i): i for i in range(len(labels))}, **index_of}
        unknown = sorted({str(label) for label in self.labels if label not in index_of})
        if unknown:
            raise UsageError(
                f"{self.source} has the label {unknown[0]!r}: the cascade's are "
                f"{', '.join(labels)}, or 0 to {len(labels) - 1}"
            )
        return np.array([index_of[label] for label in self.labels], dtype=np.int64)


def rows_from_source(data: DataConfig) -> Rows:
    """Read all rows.

    Raises:
        UsageError: the file is missing, damaged or empty, a column is missing, or a row has no
            text; the message names file and row.
    """
    path = Path(data.path)
    if path.suffix in SUFFIXES:
        records = _records(path)
        source = str(path)
    else:
        records = _hub_records(data)
        source = f"{data.path} ({data.split})"
    texts: list[Text] = []
    labels: list[int | str] = []
    for number, record in enumerate(records, start=1):
        where = f"{source}, row {number}"
        text = _text(record, data.text, where)
        texts.append(
            text if data.text_pair is None else (text, _text(record, data.text_pair, where))
        )
        if data.label is not None:
            label = _column(record, data.label, where)
            labels.append(label if isinstance(label, int) else str(label))
    if not texts:
        raise UsageError(f"{source} has no rows")
    return Rows(tuple(texts), tuple(labels) if data.label is not None else None, source)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        # GLUE's files carry a byte-order mark and stray quotes.
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".jsonl":
                yield from _json_lines(file, path)
            elif path.suffix == ".csv":
                yield from csv.DictReader(file, strict=True)
            else:
                yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    except FileNotFoundError as exc:
        raise UsageError(f"{path} does not exist") from exc
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise UsageError(f"{path} cannot be read: {exc}") from exc


def _json_lines(lines: Iterable[str], path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as exc:
            raise UsageError(f"{path}, line {number} is not JSON: {exc}") from exc
        if not isinstance(record, dict):
            raise UsageError(f"{path}, line {number} is not a JSON object")
        yield record


def _hub_records(data: DataConfig) -> Iterable[dict[str, Any]]:
    if Path(data.path).is_absolute():
        raise UsageError(
            f"{data.path} is no data file: give one that ends in {', '.join(SUFFIXES)}, "
            "or the id of a hub data set"
        )
    with needs_extra("hub"):
        import datasets  # pyright: ignore[reportMissingImports] - the hub extra is optional
    try:
        return datasets.load_dataset(data.path, data.subset, split=data.split)
    except Exception as exc:
        raise UsageError(f"the hub data set {data.path!r} cannot be loaded: {exc}") from exc


def _column(record: dict[str, Any], column: str, where: str) -> Any:
    value = record.get(column)
    if value is None:
        columns = ", ".join(map(str, record))
        raise UsageError(f"{where} has no column {column!r}: it has {columns}")
    return value


def _text(record: dict[str, Any], column: str, where: str) -> str:
    text = _column(record, column, where)
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{where}: {column!r} is empty; leave such rows out")
    return text
