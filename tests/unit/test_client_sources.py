import io
from collections.abc import Iterator

import pytest

from cascadebert_client import InvalidRequest
from cascadebert_client.sources import rows_from_file, rows_from_lines


def lines(content: bytes, *, pairs: bool = False) -> Iterator[object]:
    return rows_from_lines(io.BytesIO(content), "stdin", pairs=pairs)


def table(content: str | bytes, name: str, text: str = "text", pair: str | None = None):
    raw = content if isinstance(content, bytes) else content.encode()
    return rows_from_file(io.BytesIO(raw), name, text, pair)


def test_lines_are_texts_tabs_and_all():
    assert list(lines(b"a\nb\tc\r\n\xc3\xa9")) == ["a", "b\tc", "é"]
    assert list(lines(b"")) == []


def test_with_pairs_one_tab_separates():
    assert list(lines(b"a\tb\nc\td\n", pairs=True)) == [("a", "b"), ("c", "d")]
    for content, found in ((b"a\n", "1 field"), (b"a\tb\tc\n", "3 fields")):
        with pytest.raises(InvalidRequest, match=f"stdin:1: {found} instead of 2: separate"):
            list(lines(content, pairs=True))


def test_a_byte_order_mark_is_no_text():
    assert list(lines(b"\xef\xbb\xbfa\n")) == ["a"]
    assert list(table(b"\xef\xbb\xbftext\na\n", "x.tsv")) == ["a"]
    assert list(table(b"\xef\xbb\xbftext\na\n", "x.csv")) == ["a"]
    assert list(table(b'\xef\xbb\xbf{"text": "a"}\n', "x.jsonl")) == ["a"]


def test_blank_lines_are_allowed_at_the_end_only():
    assert list(lines(b"a\n\n \n")) == ["a"]
    assert list(table("text\na\n\n", "x.tsv")) == ["a"]
    assert list(table("text\na\n\n", "x.csv")) == ["a"]
    assert list(table('{"text": "a"}\n\n', "x.jsonl")) == ["a"]
    rows = lines(b"a\n\nb\n")
    assert next(rows) == "a"
    with pytest.raises(InvalidRequest, match="stdin:2: the line is blank"):
        next(rows)
    with pytest.raises(InvalidRequest, match=r"x\.csv:3: the line is blank"):
        list(table("text\na\n\nb\n", "x.csv"))


def test_tsv_quotes_mean_nothing():
    content = 'sentence\tlabel\n"quoted\t1\n it \'s " odd \t0\n'
    assert list(table(content, "dev.tsv", "sentence")) == ['"quoted', " it 's \" odd "]


def test_columns_are_found_by_name():
    content = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\tfirst\tsecond\n"
    assert list(table(content, "dev.tsv", "#1 String", "#2 String")) == [("first", "second")]


def test_csv_quotes_hold_separators_and_line_breaks():
    content = 'id,text\n1,"a, b"\n2,"c\n\nd ""e"""\n3,f\n'
    assert list(table(content, "x.csv")) == ["a, b", 'c\n\nd "e"', "f"]


def test_jsonl_keys_are_found_by_name():
    content = '{"text": "a", "b": "c", "n": 1}\n{"b": "e", "text": "d\\u00e9"}\n'
    assert list(table(content, "x.jsonl", "text", "b")) == [("a", "c"), ("dé", "e")]


def test_rows_are_read_one_by_one():
    rows = table("text\tn\na\t1\n\t\n", "x.tsv")
    assert next(rows) == "a"
    with pytest.raises(InvalidRequest):
        next(rows)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("text\na\n", "x.xyz", r"x\.xyz ends in none of \.tsv, "),
        ("PK", "x.XLSX", r"x\.XLSX is a spreadsheet: save the sheet as CSV"),
        ("", "x.tsv", r"x\.tsv:1: there is no header"),
        ("\na\n", "x.csv", r"x\.csv:1: there is no header"),
        (
            "sentence\tlabel\n",
            "x.tsv",
            r"x\.tsv:1: no column named 'text', but 'sentence', 'label'",
        ),
        ("text,text\n", "x.csv", "several columns named 'text'"),
        ("text\tlabel\na\t1\nb\n", "x.tsv", r"x\.tsv:3: 1 field instead of 2"),
        ("text\tlabel\na\tb\t1\n", "x.tsv", r"x\.tsv:2: 3 fields instead of 2"),
        ("text,n\n\n", "x.csv", None),
        ('text,n\n"a\nb",1\nc\n', "x.csv", r"x\.csv:4: 1 field instead of 2"),
        ('text\n"a\nb\n', "x.csv", r"x\.csv:2: not CSV: unexpected end of data"),
        ('text\n"a"b\n', "x.csv", r"x\.csv:2: not CSV"),
        ("text\tn\na\t1\n\t2\n", "x.tsv", r"x\.tsv:3: 'text' is empty"),
        ("text\tn\n  \t2\n", "x.tsv", r"x\.tsv:2: 'text' is only white space"),
        (b"text\na\n\xe9t\xe9\n", "x.tsv", r"x\.tsv:3: byte 0xe9 at position 0 is not UTF-8"),
        (b"text\na\xff\n", "x.csv", r"x\.csv:2: byte 0xff at position 1 is not UTF-8"),
        ("{text}\n", "x.jsonl", r"x\.jsonl:1: not JSON"),
        ('{"text": "a"}\n["b"]\n', "x.jsonl", r"x\.jsonl:2: list, not an object"),
        (
            '{"Text": "a"}\n',
            "x.jsonl",
            r"x\.jsonl:1: no key named 'text', but 'Text': did you mean 'Text'",
        ),
        ('{"text": 3}\n', "x.jsonl", r"x\.jsonl:1: 'text' is int, not a string"),
        ('{"text": "\\ud800"}\n', "x.jsonl", r"x\.jsonl:1: 'text' has a lone surrogate"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(content: str | bytes, name: str, message: str | None):
    if message is None:
        assert list(table(content, name)) == []
        return
    with pytest.raises(InvalidRequest, match=message):
        list(table(content, name))


def test_a_missing_column_is_found_before_the_first_row_is_wanted():
    with pytest.raises(InvalidRequest, match="no column named 'pair'"):
        table("text\na\n", "x.tsv", "text", "pair")
