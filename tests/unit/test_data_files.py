"""Data files as people have them: quotes, encodings, line ends, separators, formats."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascadebert_build.config.rows import rows_from_source
from cascadebert_build.config.schema import CascadeConfig, DataConfig, MemberConfig
from cascadebert_build.errors import UsageError
from cascadebert_client import InvalidRequest
from cascadebert_client.sources import (
    did_you_mean,
    format_of_name,
    rows_from_file,
    values_from_file,
)

# As GLUE has them: PTB quotes, inches, a quote that is never closed.
GLUE_TEXTS = (
    "it 's a charming and often affecting journey . ",
    '"The foodservice pie business does not fit our long-term growth strategy.',
    'His wife said he was "100 percent behind George Bush" and looked forward to it',
    '"good"',
    'a 17" screen',
    'the end of a quotation."',
)


def read(content: str | bytes, name: str, *columns: str, file_format: str | None = None):
    raw = content if isinstance(content, bytes) else content.encode()
    wanted = columns or ("text", "label")
    return [
        values
        for _, values in values_from_file(io.BytesIO(raw), name, wanted, "name it", file_format)
    ]


def as_pandas_writes(
    rows: Iterable[tuple[str, str]], quoting: Literal[0, 1, 2] = csv.QUOTE_MINIMAL
) -> str:
    # to_csv(sep="\t") goes through csv.writer with these settings.
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", quoting=quoting, lineterminator="\n")
    writer.writerows([("text", "label"), *rows])
    return file.getvalue()


def as_glue_writes(texts: Iterable[str]) -> str:
    return "".join(["text\tlabel\n", *(f"{text}\t{i % 2}\n" for i, text in enumerate(texts))])


def problem(content: str | bytes, name: str, *columns: str, file_format: str | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(content, name, *columns, file_format=file_format)
    return str(caught.value)


# --- quotes of a .tsv file


def test_a_tsv_that_pandas_quoted_is_read_as_it_was() -> None:
    rows = [
        ('say "cheese"', "1"),
        ("plain", "0"),
        ("two\nlines", "1"),
        ("a\ttab", "0"),
        ('""', "1"),
        ('"good"', "0"),
    ]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC):
        assert read(as_pandas_writes(rows, quoting), "x.tsv") == [list(row) for row in rows]


@pytest.mark.parametrize("row", ['say "cheese"', "two\nlines", "a\ttab", '"', '"begins', 'ends"'])
def test_one_field_that_pandas_quoted_is_enough(row: str) -> None:
    rows = [("plain", "0"), (row, "1"), ("plain", "1")]
    assert read(as_pandas_writes(rows), "x.tsv") == [list(each) for each in rows]


def test_quotes_of_glue_are_text() -> None:
    content = as_glue_writes(GLUE_TEXTS)
    assert [text for text, _ in read(content, "x.tsv")] == list(GLUE_TEXTS)
    # Each of the texts alone, too: quotes that would be consistent by themselves.
    for text in GLUE_TEXTS:
        assert read(as_glue_writes([text]), "x.tsv") == [[text, "0"]]


def test_a_quotation_over_two_texts_of_glue_is_text() -> None:
    # As CSV this is one record of one field with a tab and a line break in quotes.
    texts = ['"he began', "and went on", 'and ended"']
    assert [text for text, _ in read(as_glue_writes(texts), "x.tsv")] == texts


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")), max_size=8))
def test_whatever_pandas_writes_comes_back_if_a_quote_had_to_be_doubled(texts: list[str]) -> None:
    rows = [('a "quoted" word', "0"), *((text, "1") for text in texts)]
    assert read(as_pandas_writes(rows), "x.tsv") == [list(row) for row in rows]


def test_a_carriage_return_without_quotes_is_named() -> None:
    # csv.writer, and so pandas, leaves it as it is.
    content = as_pandas_writes([('a "quoted" word', "0"), ("carriage\rreturn", "1")])
    found = problem(content, "x.tsv")
    assert "x.tsv:3: not CSV" in found
    assert "carriage return" in found


@given(st.lists(st.text(' ab"', min_size=1), max_size=8))
def test_whatever_has_one_stray_quote_is_text(texts: list[str]) -> None:
    stray = ['a 17" screen', *texts]
    assert [text for text, _ in read(as_glue_writes(stray), "x.tsv")] == stray


def test_the_header_of_a_quoted_file_is_found_or_the_stray_quote_is_named() -> None:
    assert read('"text"\t"label"\n"a"\t"1"\n', "x.tsv") == [["a", "1"]]
    found = problem('"text"\t"label"\n"a"\t"1"\n5" b\t"1"\n', "x.tsv")
    assert "no column named 'text'" in found
    assert "line 3" in found
    # Nor is the advice to quote, which cannot work there.
    found = problem('text\tlabel\n"a\tb"\t1\n5" b\t1\n', "x.tsv")
    assert "x.tsv:2: 3 fields instead of 2" in found
    assert "line 3" in found


# --- long fields, line ends, separators


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_fields_may_be_longer_than_the_csv_modules_limit(name: str) -> None:
    before = csv.field_size_limit()
    long = 'a "long" text, ' * 20_000
    content = as_pandas_writes([(long, "1")])
    if name == "x.csv":
        content = content.replace("\t", ",")
    assert read(content, name) == [[long, "1"]]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["x.tsv", "x.csv", "x.jsonl", "x.json"])
def test_lines_may_end_in_three_ways(name: str, end: str) -> None:
    separator = "," if name == "x.csv" else "\t"
    lines = [f"text{separator}label", f"a{separator}1", f"b{separator}0"]
    if name == "x.jsonl":
        lines = ['{"text": "a", "label": "1"}', '{"text": "b", "label": "0"}']
    if name == "x.json":
        lines = ["[", '{"text": "a", "label": "1"},', '{"text": "b", "label": "0"}', "]"]
    content = end.join([*lines, ""])
    assert read(content, name) == [["a", "1"], ["b", "0"]]


def test_old_line_ends_around_new_ones_are_named_in_a_short_message() -> None:
    content = "text,label\r" + "a,1\r" * 50_000 + '"b\nc",1\r'
    found = problem(content, "x.csv")
    assert "carriage return" in found
    assert len(found) < 300


def test_a_header_of_many_columns_is_shortened() -> None:
    found = problem("\t".join(f"column{i}" * 30 for i in range(500)) + "\n", "x.tsv")
    assert "'column0column0" in found
    assert len(found) < 1000


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("text;label\na;1\n", "x.csv", ("semicolons", "';'")),
        ('"text";"label"\n"a";1\n', "x.csv", ("semicolons", "';'")),
        ("text\tlabel\na\t1\n", "x.csv", ("tabs", ".tsv")),
        ("text,label\na,1\n", "x.tsv", ("commas", ".csv")),
        ("text,label\na,1\n", "x.txt", ("commas", "csv")),
        ("text|label\na|1\n", "x.csv", ("bars", "'|'")),
        ("id, or so;text;label\n", "x.csv", ("semicolons", "';'")),
    ],
)
def test_another_separator_is_named(content: str, name: str, words: tuple[str, ...]) -> None:
    found = problem(content, name)
    assert all(word in found for word in words), found


# --- encodings


FRENCH, RUSSIAN, CHINESE = "déjà vu, l’été", "очень хороший фильм", "这部电影非常好看"


@pytest.mark.skipif(shutil.which("iconv") is None, reason="iconv is not installed")
@pytest.mark.parametrize(
    ("text", "encoding", "named"),
    [
        (FRENCH, "cp1252", "WINDOWS-1252"),
        (RUSSIAN, "cp1251", "WINDOWS-1251"),
        (CHINESE, "gb18030", "GB18030"),
        (FRENCH, "utf-16", "UTF-16"),
        (FRENCH, "utf-32", "UTF-32"),
        (FRENCH, "utf-16-le", "UTF-16LE"),
        (FRENCH, "utf-16-be", "UTF-16BE"),
        ("n\x81a\xefve", "latin-1", "ISO-8859-1"),
    ],
)
@pytest.mark.parametrize("name", ["my file.csv", "my file.csv.gz"])
def test_the_advised_command_converts_the_file(
    tmp_path: Path, text: str, encoding: str, named: str, name: str
) -> None:
    path = tmp_path / name
    raw = f'text,label\n"{text}",1\n'.encode(encoding)
    path.write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
    with pytest.raises(UsageError) as caught:
        rows_from_source(DataConfig(str(path)))
    message = str(caught.value)
    assert f"iconv -f {named} -t UTF-8 " in message
    command = message.split("`")[1]
    subprocess.run(["bash", "-ec", f"set -o pipefail; {command}"], check=True)
    assert rows_from_source(DataConfig(str(tmp_path / "my file.utf8.csv"))).texts == (text,)


def test_one_damaged_character_is_not_another_encoding() -> None:
    content = f"text,label\n{RUSSIAN},1\n".encode() + b"caf\xe9,1\n"
    found = problem(content, "x.csv")
    assert "x.csv:3: byte 0xe9 at position 3" in found
    assert "iconv -c -f UTF-8" in found or "WINDOWS-1252" in found


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"PK\x03\x04 and so on", "spreadsheet"),
        (gzip.compress(b"text,label\na,1\n", mtime=0), ".gz"),
        (b"PAR1 and so on", "parquet"),
    ],
)
def test_other_files_are_named_for_what_they_are(content: bytes, word: str) -> None:
    assert word in problem(content, "x.csv")


# --- endings, formats, compression


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("UP.TSV", "tsv"),
        ("a.b.Csv", "csv"),
        ("x.txt", "tsv"),
        ("x.tab.gz", "tsv"),
        ("x.ndjson", "jsonl"),
        ("x.json", "json"),
        ("X.JSONL.GZ", "jsonl"),
        ("x.pq", "parquet"),
        ("x.xlsx", None),
        ("x", None),
        ("x.gz", None),
        ("nyu-mll/glue", None),
    ],
)
def test_the_ending_tells_the_format(name: str, expected: str | None) -> None:
    assert format_of_name(name) == expected


def test_a_given_format_wins_over_the_ending(tmp_path: Path) -> None:
    assert read("text,label\na,1\n", "x.tsv", file_format="csv") == [["a", "1"]]
    path = tmp_path / "rows"
    path.write_text('[{"text": "a", "label": 1}]')
    rows = rows_from_source(DataConfig(str(path), format="json"))
    assert (rows.texts, rows.labels) == (("a",), (1,))
    assert list(rows_from_file(io.BytesIO(b"text\na\n"), "rows", "text", None, "tsv")) == ["a"]
    assert "give one of tsv, csv" in problem("", "x.csv", file_format="xml")


def test_a_list_of_json_objects_keeps_its_types() -> None:
    content = '[\n {"text": "a", "label": 1},\n {"label": "pos", "text": "é"}\n]\n'
    assert read(content, "x.json") == [["a", 1], ["é", "pos"]]
    assert read("[]", "x.json") == []
    # Many data sets have this ending and one object on each line.
    lines = '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n'
    assert read(lines, "x.json") == [["a", 1], ["b", 0]]
    assert read('{"text": "a", "label": 1}\n', "x.json") == [["a", 1]]


@pytest.mark.parametrize(
    ("content", "name", "word"),
    [
        ('{"text": {"0": "a"}, "label": {"0": 1}}', "x.json", "orient='records'"),  # to_json()
        ('[{"text": "a", "label": 1},\n {"text": ]', "x.json", "x.json:2: not JSON"),
        ('[{"text": "a", "label": 1}, 3]', "x.json", "x.json:2: int, not an object"),
        ('[{"text": "a", "labels": 1}]', "x.json", "did you mean 'labels'?"),
        ("", "x.json", "not JSON"),
        ('"text"', "x.json", "str, not a list"),
        ("[" * 100_000, "x.json", "nested too deeply"),
        ("[" * 100_000, "x.jsonl", "nested too deeply"),
        ('[\n{"text": "a"}\n]\n', "x.jsonl", "json"),
    ],
)
def test_damaged_json_is_named(content: str, name: str, word: str) -> None:
    assert word in problem(content, name)


@pytest.mark.parametrize("name", ["x.tsv.gz", "x.csv.gz", "x.jsonl.gz", "x.json.gz"])
def test_files_may_be_compressed(name: str) -> None:
    records = [{"text": 'a "b"', "label": "1"}]
    content = {
        "x.tsv.gz": 'text\tlabel\n"a ""b"""\t1\n',
        "x.csv.gz": 'text,label\n"a ""b""",1\n',
        "x.jsonl.gz": json.dumps(records[0]),
        "x.json.gz": json.dumps(records),
    }[name]
    packed = gzip.compress(content.encode(), mtime=0)
    assert read(packed, name) == [['a "b"', "1"]]
    assert "damaged or cut off" in problem(packed[:-4], name)
    assert "not compressed by gzip" in problem(content, name)


def test_parquet_is_read_with_its_types(tmp_path: Path) -> None:
    pa: Any = pytest.importorskip("pyarrow")
    pq: Any = pytest.importorskip("pyarrow.parquet")
    n = 2500  # several batches
    table = pa.table(
        {
            "text": pa.array(["a\tb"] * n).dictionary_encode(),
            "label": list(range(n)),
            "more": [1.5] * n,
        }
    )
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=700)
    rows = rows_from_source(DataConfig(str(path)))
    assert rows.texts == ("a\tb",) * n
    assert rows.labels == tuple(range(n))
    content = path.read_bytes()
    assert len(read(gzip.compress(content, mtime=0), "x.parquet.gz")) == n
    assert "did you mean 'text'?" in problem(content, "x.parquet", "txt")
    assert "not Parquet" in problem(content[:-9], "x.parquet")
    assert "not Parquet" in problem("text,label\n", "x.parquet")
    assert "damaged" in problem(content.replace(b"a\tb", b"a\xefb", 1), "x.parquet", "text")
    with pytest.raises(UsageError, match=r"x\.parquet:1: 'more' is 1\.5"):
        rows_from_source(DataConfig(str(path), label="more"))


def test_parquet_without_pyarrow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "extra 'parquet'" in problem(b"PAR1", "x.parquet")


# --- any damage


WHOLE = {
    "x.tsv": b'text\tlabel\n"say ""a"""\t1\nplain\t0\n"two\nlines"\t1\n',
    "x.csv": b'text,label\n"a, b",1\nc,0\n',
    "x.jsonl": b'{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n',
    "x.json": b'[{"text": "a", "label": 1},{"text": "b", "label": 0}]',
}
BYTES = st.one_of(st.sampled_from([b'"', b"\r", b"\n", b"\t", b"\0", b"\xff\xfe"]), st.binary())


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 60), st.integers(0, 9), BYTES, st.booleans())
def test_a_damaged_file_is_read_or_refused_in_a_short_message(
    name: str, start: int, cut: int, inserted: bytes, compressed: bool
) -> None:
    content = WHOLE[name]
    if compressed:
        name, content = f"{name}.gz", gzip.compress(content, mtime=0)
    damaged = content[:start] + inserted + content[start + cut :]
    try:
        rows = read(damaged, name)
    except InvalidRequest as exc:
        assert str(exc).startswith(name)
        assert len(str(exc)) < 1000
    else:
        assert all(len(values) == 2 for values in rows)


# --- misspelt names


def test_a_missing_file_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("")
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(UsageError) as caught:
        rows_from_source(DataConfig(str(tmp_path / "row.csv")))
    assert "did you mean 'rows.csv'?" in str(caught.value)
    assert "notes.md" not in str(caught.value)
    with pytest.raises(UsageError, match="nor does"):
        rows_from_source(DataConfig(str(tmp_path / "nowhere" / "row.csv")))


def test_a_missing_file_beside_cascade_toml_is_named_with_its_folder(tmp_path: Path) -> None:
    member = MemberConfig("a", "b")
    config = CascadeConfig(tmp_path, (member,), data=DataConfig("rows.csv"))
    assert config.data_source().path == str(tmp_path / "rows.csv")
    hub = CascadeConfig(tmp_path, (member,), data=DataConfig("nyu-mll/glue"))
    assert hub.data_source().path == "nyu-mll/glue"


def test_a_misspelt_column_is_guessed() -> None:
    assert "did you mean 'sentence'?" in problem("sentence\tlabel\n", "x.tsv", "sentense")
    assert "did you mean 'Text'?" in problem("Text,label\n", "x.csv")
    assert did_you_mean("text", ["premise", "hypothesis"]) == ""
    assert did_you_mean("label ", ["label"]) == "did you mean 'label'? "


def test_rows_without_a_text_are_counted(tmp_path: Path):
    path = tmp_path / "rows.tsv"
    path.write_text("text\tlabel\na\t1\n\t0\nb\t1\n  \t0\n\t1\n")
    with pytest.raises(UsageError) as caught:
        rows_from_source(DataConfig(str(path), "text", None, "label"))
    message = str(caught.value)
    assert message.startswith(f"{path}:3: 'text' is empty: leave the row out. 3 rows")
    assert "(3, 5, 6)" in message
    code = message.rpartition("drops them: ")[2]
    frame = pd.read_csv(path, sep="\t")
    kept: dict[str, Any] = {"df": frame}
    exec(code, kept)
    assert list(kept["df"]["text"]) == ["a", "b"]
