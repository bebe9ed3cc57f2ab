"""Rows of multi-label data: lists in every format, and columns of 0 and 1."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cascadebert_build.config.rows import Rows, rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_build.errors import UsageError
from cascadebert_build.training.config import refuse_sets
from cascadebert_core.task import MULTI_LABEL, SINGLE_LABEL

LABELS = ("toxic", "insult", "threat")
SETS = [["toxic", "threat"], [], ["insult"]]
EXPECTED = [[True, False, True], [False, False, False], [False, True, False]]


def write(path: Path, texts: list[str]) -> Path:
    """Write the rows with these texts of the labels' column."""
    match path.suffix:
        case ".jsonl":
            lines = [f'{{"text": "row", "label": {text}}}' for text in texts]
        case ".csv":
            quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
            lines = ["text,label", *(f"row,{text}" for text in quoted)]
        case _:
            lines = ["text\tlabel", *(f"row\t{text}" for text in texts)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
@pytest.mark.parametrize("as_indices", [False, True])
def test_a_list_is_a_set_in_every_format(tmp_path: Path, name: str, as_indices: bool) -> None:
    sets = [[LABELS.index(label) for label in each] for each in SETS] if as_indices else SETS
    path = write(tmp_path / name, [json.dumps(each) for each in sets])
    rows = rows_from_source(DataConfig(str(path)))
    assert rows.label_sets(LABELS).tolist() == EXPECTED
    assert rows.answers(LABELS, MULTI_LABEL).tolist() == [5, 0, 2]
    assert rows.subset([2, 0]).label_sets(LABELS).tolist() == [EXPECTED[2], EXPECTED[0]]


def test_a_table_of_pandas_with_quotes_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\nrow\t"[""toxic"", ""threat""]"\nrow\t[]\nrow\tinsult\n')
    rows = rows_from_source(DataConfig(str(path)))
    assert rows.label_sets(LABELS).tolist() == EXPECTED


@pytest.mark.parametrize(
    ("ones", "zeros"), [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("true", "false")]
)
def test_columns_of_0_and_1_are_sets(tmp_path: Path, ones: str, zeros: str) -> None:
    path = tmp_path / "a.csv"
    lines = [",".join(ones if x else zeros for x in row) for row in EXPECTED]
    path.write_text("id,threat,text,toxic,insult\n" + "".join(
        f"{i},{threat},row,{toxic},{insult}\n"
        for i, (toxic, insult, threat) in enumerate(line.split(",") for line in lines)
    ))  # fmt: skip
    rows = rows_from_source(DataConfig(str(path), label_columns=LABELS))
    assert rows.label_sets(LABELS).tolist() == EXPECTED
    # The order of the labels is the policy's, not the file's.
    assert rows.label_sets(LABELS[::-1]).tolist() == np.array(EXPECTED)[:, ::-1].tolist()


def test_another_value_in_a_column_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,toxic\nrow,1\nrow,-1\n")
    with pytest.raises(UsageError, match=r"a.csv:3: 'toxic' is '-1': give 1"):
        rows_from_source(DataConfig(str(tmp_path / "a.csv"), label_columns=("toxic",)))
    with pytest.raises(UsageError, match="no column named 'threat'"):
        rows_from_source(DataConfig(str(tmp_path / "a.csv"), label_columns=("toxic", "threat")))


@pytest.mark.parametrize("label", [("toxic", "rude"), '["toxic", "rude"]', "rude"])
def test_an_unknown_label_is_named_with_its_row(label: str | tuple[str, ...]) -> None:
    rows = Rows(("a", "b"), ("toxic", label), "test")
    with pytest.raises(UsageError, match=r"test, row 2: the label 'rude' is none of toxic, insult"):
        rows.label_sets(LABELS)


def test_a_list_is_refused_where_an_answer_is_one_label() -> None:
    rows = Rows(("a", "b"), ("toxic", ("toxic", "insult")), "test")
    with pytest.raises(UsageError, match=r'row 2: the label is a list.*task = "multi_label"'):
        rows.answers(LABELS, SINGLE_LABEL)
    with pytest.raises(UsageError, match="row 2: the label is a list"):
        refuse_sets(rows)
    with pytest.raises(UsageError, match="row 1: the label is a list"):
        refuse_sets(Rows(("a",), ("[0, 2]",), "test"))


def test_a_hash_tells_sets_apart() -> None:
    one, other = (Rows(("a",), (labels,), "test") for labels in (("x",), ("x", "y")))
    assert one.sha256() != other.sha256()
