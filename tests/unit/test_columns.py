"""Which columns of a file are the text, its pair and the label."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from cascadebert_build.errors import UsageError
from cascadebert_build.proposal.columns import (
    Columns,
    GivenColumns,
    recognised_columns,
    training_columns,
)
from cascadebert_build.proposal.data_file import sample_of_file
from cascadebert_build.proposal.lengths import max_length_of
from cascadebert_build.proposal.members import members_from_text, names_of_members

LABELS = ("negative", "positive")
TEXTS = ["a gorgeous film", "the plot was dull and long", "superb"]
OTHERS = ["a dull film", "the plot was gorgeous", "grim indeed"]
IDS = ["1355540", "2029631", "487993"]


def found(sample: dict[str, Any], **given: str) -> Columns:
    return recognised_columns("rows.csv", sample, LABELS, GivenColumns(**given))


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ({"sentence": TEXTS, "label": ["0", "1", "0"]}, ("sentence", None, "label")),
        # Names of labels, whatever the column's name; the other one holds numbers that fit too.
        ({"odd": ["0", "1", "1"], "what": TEXTS, "is": ["negative", "positive", "negative"]},
         ("what", None, "is")),
        ({"review": TEXTS, "id": IDS, "stars": [0, 1, 1]}, ("review", None, "stars")),
        # GLUE's MRPC.
        ({"Quality": ["1", "0", "1"], "#1 ID": IDS, "#2 ID": IDS, "#1 String": TEXTS,
          "#2 String": OTHERS}, ("#1 String", "#2 String", "Quality")),
        ({"sentence1": TEXTS, "sentence2": OTHERS, "label": ["1", "0", "1"]},
         ("sentence1", "sentence2", "label")),
        ({"premise": TEXTS, "hypothesis": OTHERS, "gold_label": ["1", "0", "1"]},
         ("premise", "hypothesis", "gold_label")),
        ({"text_a": TEXTS, "text_b": OTHERS, "y": ["1", "0", "1"]}, ("text_a", "text_b", "y")),
        # Two texts that do not belong together: the usual name wins.
        ({"author": ["Ann Lee", "Bo Ray", "Cy Day"], "text": TEXTS, "label": ["1", "0", "1"]},
         ("text", None, "label")),
    ],
)  # fmt: skip
def test_columns_are_recognised(sample: dict[str, Any], expected: tuple[str | None, ...]):
    assert found(sample) == Columns(*expected)  # pyright: ignore[reportArgumentType]


def test_columns_that_are_named_are_not_questioned():
    sample = {"a": TEXTS, "b": OTHERS, "c": ["0", "1", "7"]}
    assert found(sample, text="b", text_pair="a", label="c") == Columns("b", "a", "c")
    assert found(sample, text="a", label="") == Columns("a", None, None)
    pair = {"sentence1": TEXTS, "sentence2": OTHERS, "label": ["0", "1", "0"]}
    assert found(pair, text="sentence1").text_pair == "sentence2"
    assert found(pair, text="sentence1", text_pair="").text_pair is None


@pytest.mark.parametrize(
    ("sample", "given", "parts"),
    [
        ({"text": TEXTS, "label": ["a", "b", "c"]}, {}, ["no column holds", "negative", "--label"]),
        ({"text": TEXTS, "label": ["0", "1", ""]}, {}, ["no column holds", "--label"]),
        ({"text": TEXTS, "x": ["0", "1", "0"], "z": ["1", "1", "0"]}, {}, ["'x', 'z'", "--label"]),
        ({"title": TEXTS, "body": OTHERS, "label": ["0", "1", "0"]}, {}, ["'title', 'body'",
         "--text"]),
        ({"id": IDS, "label": ["0", "1", "0"]}, {}, ["no column holds texts", "--text"]),
        ({"text": TEXTS, "label": ["0", "1", "0"]}, {"label": "lable"}, ["'lable'",
         "did you mean 'label'"]),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_one_sentence(
    sample: dict[str, Any], given: dict[str, str], parts: list[str]
):
    with pytest.raises(UsageError) as caught:
        found(sample, **given)
    assert "\n" not in str(caught.value)
    for part in ["rows.csv", *parts]:
        assert part in str(caught.value)


def test_a_person_is_asked_what_is_not_clear():
    asked: list[tuple[str, list[str]]] = []

    def ask(question: str, choices: Any) -> str:
        asked.append((question, list(choices)))
        return choices[-1]

    sample = {"title": TEXTS, "body": OTHERS, "x": ["0", "1", "0"], "z": ["1", "1", "0"]}
    columns = recognised_columns("rows.csv", sample, LABELS, ask=ask)
    assert columns == Columns("body", None, "z")
    assert [choices for _, choices in asked] == [["x", "z"], ["title", "body"]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", b'text,label\n"a, b",1\n'),
        ("rows.tsv", b"text\tlabel\na, b\t1\n"),
        ("rows.jsonl", b'{"text": "a, b", "label": "1"}\n'),
        ("rows.json", b'[\n {"text": "a, b", "label": "1"}]'),
        ("rows.csv.gz", gzip.compress(b'text,label\n"a, b",1\n', mtime=0)),
    ],
)
def test_the_first_rows_of_every_format(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    assert sample_of_file(str(path)) == {"text": ["a, b"], "label": ["1"]}


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("rows.csv", "", "no header"),
        ("rows.csv", "text,label\n", "no rows"),
        ("rows.jsonl", "", "no rows"),
        ("rows.jsonl", "7\n", "not a JSON object"),
        ("rows.xlsx", "x", "spreadsheet"),
        ("rows.csv", None, "does not exist"),
        ("some-data-set", None, "--text and --label"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str | None, part: str):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=part):
        sample_of_file(str(path))


def test_a_parquet_file(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"text": ["a"], "label": [1]}), path)
    assert sample_of_file(str(path)) == {"text": ["a"], "label": [1]}


def test_names_of_members(tmp_path: Path):
    (tmp_path / "a=b").mkdir()
    given = members_from_text(["a=b", "large=x/y", "org/model"], tmp_path)
    assert given == [(None, str(tmp_path / "a=b")), ("large", "x/y"), (None, "org/model")]
    assert names_of_members(given) == ["small", "large", "stage-2"]
    assert names_of_members([(None, "a"), (None, "b")]) == ["small", "large"]
    four = [(None, f"models/{name}") for name in ("Tiny.1", "mini", "base", "large")]
    assert names_of_members(four) == ["tiny-1", "mini", "base", "large"]
    assert names_of_members([*four[:3], (None, "other/mini")]) == [f"stage-{i}" for i in range(4)]


SST2 = {"sentence": ["a good film", "a bad film"], "label": ["1", "0"]}
MRPC = {
    "Quality": ["1", "0"], "#1 ID": ["7", "8"], "#2 ID": ["9", "10"],
    "#1 String": ["he came home", "it fell down"], "#2 String": ["he went home", "it rose up"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("sample", "given", "expected"),
    [
        (SST2, GivenColumns(label="label"), Columns("sentence", None, "label")),
        (SST2, GivenColumns(), Columns("sentence", None, "label")),
        (MRPC, GivenColumns(), Columns("#1 String", "#2 String", "Quality")),
        (MRPC, GivenColumns(text="#1 String"), Columns("#1 String", None, "Quality")),
    ],
)
def test_columns_to_train_on(sample: dict[str, Any], given: GivenColumns, expected: Columns):
    assert training_columns("x.tsv", sample, given) == expected


@pytest.mark.parametrize(
    ("sample", "part"),
    [
        ({"a": ["x y", "z u"], "b": ["1", "2"]}, "--label COLUMN"),
        ({"a": ["x y", "z u"], "topic": ["1", "2"], "stars": ["1", "2"]}, "'topic', 'stars'"),
        ({"a": ["x y"], "b": ["z u"], "topic": ["1"]}, "--text"),
    ],
)
def test_columns_to_train_on_that_are_not_clear(sample: dict[str, Any], part: str):
    with pytest.raises(UsageError, match=part):
        training_columns("x.tsv", sample)


@pytest.mark.parametrize(
    ("members", "part"),
    [
        (["Small=x/y", "b"], "NAME=CHECKPOINT"),
        (["small=", "b"], "NAME=CHECKPOINT"),
        (["small=x/y", "small=x/z"], "two members are called 'small'"),
        (["x/y", "x/y"], "given twice"),
    ],
)
def test_members_that_cannot_be(tmp_path: Path, members: list[str], part: str):
    with pytest.raises(UsageError, match=part):
        members_from_text(members, tmp_path)


@pytest.mark.parametrize(
    ("longest", "positions", "expected"),
    [(20, 512, 32), (55, None, 64), (400, 512, 512), (900, 512, 512), (900, 66, 64), (9, 20, 20)],
)
def test_a_maximum_length_that_holds_the_texts(longest: int, positions: int | None, expected: int):
    assert max_length_of(longest, positions) == expected


def test_json_keys_of_a_list_on_one_line(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"a": "x", "b": 1}, {"a": "y", "b": 0}]))
    assert sample_of_file(str(path)) == {"a": ["x", "y"], "b": [1, 0]}
