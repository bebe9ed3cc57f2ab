"""Labelled rows from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascadebert_build.config.rows import Rows, rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_build.errors import UsageError


def test_tsv_is_read_as_glue_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_bytes(b'\xef\xbb\xbfsentence\tlabel\nsay "cheese\t1\nits fine\t0\n')
    rows = rows_from_source(DataConfig(str(path), text="sentence"))
    assert rows.texts == ('say "cheese', "its fine")
    assert rows.label_indices(["a", "b"]).tolist() == [1, 0]


def test_csv_and_jsonl_and_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,other,label\n"a, b",c,pos\n')
    (tmp_path / "a.jsonl").write_text('{"text": "a, b", "other": "c", "label": "pos"}\n\n')
    for name in ("a.csv", "a.jsonl"):
        rows = rows_from_source(DataConfig(str(tmp_path / name), text_pair="other"))
        assert rows.texts == (("a, b", "c"),)
        assert rows.pair
        assert rows.label_indices(["neg", "pos"]).tolist() == [1]


def test_rows_without_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nhello\n")
    rows = rows_from_source(DataConfig(str(tmp_path / "a.csv"), label=None))
    with pytest.raises(UsageError, match="has no labels"):
        rows.label_indices(["a", "b"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"sentence\tlabel\nx\t1\n", "no column named 'text', but 'sentence', 'label'"),
        ("a.tsv", b"text\tlabel\nx\t1\n \t0\n", ":3: 'text'"),
        ("a.tsv", b"text\tlabel\nx\n", "1 field instead of 2"),
        ("a.tsv", b"text\tlabel\n", "has no rows"),
        ("a.csv", b"text,label\n\xff\xfe,1\n", "is not UTF-8"),
        ("a.csv", b'text,label\n"x,1\n', "not CSV"),
        ("a.jsonl", b'{"text": "x", "label": 1}\n{oops\n', ":2: not JSON"),
        ("a.jsonl", b"[1]\n", ":1: list, not an object"),
        ("a.jsonl", b'{"text": 3, "label": 1}\n', "'text' is not a string"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        rows_from_source(DataConfig(str(tmp_path / name)))


def test_missing_files_and_unknown_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        rows_from_source(DataConfig(str(tmp_path / "no.tsv")))
    with pytest.raises(UsageError, match="give a data file"):
        rows_from_source(DataConfig(str(tmp_path / "data.xlsx")))
    (tmp_path / "data.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match="spreadsheet"):
        rows_from_source(DataConfig(str(tmp_path / "data.xlsx")))
    with pytest.raises(
        UsageError, match=r"test, row 1: the label '7' is none of a, b \(or 0 to 1\)"
    ):
        Rows(("x",), (7,), "test").label_indices(["a", "b"])
