"""`classify --output`: no answer is lost, and no file is replaced without a word."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cascadebert_client.cli import main
from tests.unit.fake_triton import FakeTriton, expected

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


def objects(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return [json.loads(line) for line in content.splitlines()]


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def classify(server: FakeTriton, *arguments: object) -> int:
    return main(["classify", "--url", server.url, *map(str, arguments)])


def rows_file(folder: Path, texts: list[str], name: str = "in.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_two_runs_never_write_one_output(server: FakeTriton, capsys: Capture, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    first = [
        *(sys.executable, "-m", "cascadebert_client.cli", "classify", "--url", server.url),
        *("a", "hang", "--output", str(out)),
    ]
    with subprocess.Popen(first, stderr=subprocess.PIPE, text=True) as process:
        assert server.hanging.acquire(timeout=30)
        for options in ([], ["--overwrite"], ["--resume"]):
            assert classify(server, "b", "--output", out, *options) == 2
            assert f"another run writes {out}" in capsys.readouterr().err
        server.release.set()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert [each["text"] for each in objects(out)] == ["a", "hang"]
    assert names(tmp_path) == {"out.jsonl"}


@pytest.mark.parametrize("name", ["in.jsonl", "x/../in.jsonl", "link.jsonl", "hard.jsonl"])
def test_an_output_that_is_its_input_is_refused(
    server: FakeTriton, capsys: Capture, tmp_path: Path, name: str
):
    path = rows_file(tmp_path, ["a"])
    (tmp_path / "x").mkdir()
    (tmp_path / "link.jsonl").symlink_to(path)
    (tmp_path / "hard.jsonl").hardlink_to(path)
    before = path.read_bytes()
    assert classify(server, "--file", path, "--output", tmp_path / name, "--overwrite") == 2
    assert "would replace its input" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert server.requests == []


def test_an_input_that_is_the_unfinished_output_is_refused(server: FakeTriton, tmp_path: Path):
    path = rows_file(tmp_path, ["a"], "out.jsonl.partial")
    arguments = ("--file", path, "--format", "jsonl", "--output", tmp_path / "out.jsonl")
    assert classify(server, *arguments, "--overwrite") == 2
    assert objects(path) == [{"text": "a"}]


def test_a_file_is_replaced_only_with_overwrite(
    server: FakeTriton, capsys: Capture, tmp_path: Path
):
    out = tmp_path / "out.jsonl"
    out.write_text("mine\n")
    assert classify(server, "a", "--output", out) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert (names(tmp_path), out.read_text()) == ({"out.jsonl"}, "mine\n")
    assert classify(server, "a", "explode", "--output", out, "--overwrite") == 1
    assert out.read_text() == "mine\n"
    assert classify(server, "a", "--output", out, "--overwrite") == 0
    assert [each["text"] for each in objects(out)] == ["a"]


def test_a_run_without_answers_leaves_nothing(server: FakeTriton, tmp_path: Path):
    out = tmp_path / "out.csv"
    assert classify(server, "a", "--output", out, "--model", "nope") == 2
    assert classify(server, "a", "--output", out, "--threshold", "2") == 2
    assert names(tmp_path) == set()


TEXTS = ["one", 'two, "2"\nlines', "three", "four", "hang", "six", "seven"]
COMMON = ("--rows-per-request", "1", "--concurrency", "1")


@pytest.mark.parametrize("name", ["out.jsonl", "out.tsv", "out.csv", "out.jsonl.gz", "out.csv.gz"])
def test_resume_continues_where_a_run_ended(server: FakeTriton, tmp_path: Path, name: str):
    source = rows_file(tmp_path, TEXTS)
    out = tmp_path / name
    whole = tmp_path / f"whole-{name}"
    arguments = ("--file", source, "--output", out, *COMMON)
    assert classify(server, *arguments, "--timeout-s", "0.2") == 1
    asked = len(server.requests)
    server.release.set()
    assert classify(server, *arguments) == 2  # the answers so far are not thrown away
    assert classify(server, *arguments, "--resume") == 0
    again = [text for request in server.requests[asked:] for text in request.texts]
    assert again == ["hang", "six", "seven"]
    assert classify(server, "--file", source, "--output", whole) == 0
    if name.endswith(".gz"):
        assert gzip.decompress(out.read_bytes()) == gzip.decompress(whole.read_bytes())
    else:
        assert out.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == {"in.jsonl", name, whole.name}


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_resume_drops_a_line_that_a_killed_run_cut_off(
    server: FakeTriton, tmp_path: Path, name: str
):
    source = rows_file(tmp_path, TEXTS)
    out = tmp_path / name
    partial = tmp_path / f"{name}.partial"
    arguments = ("--file", source, "--output", out, *COMMON)
    assert classify(server, *arguments, "--timeout-s", "0.2") == 1
    server.release.set()
    content = partial.read_bytes()
    # Inside the quoted text of the second answer, and inside the header.
    for end in (content.index(b"2") + 1, content.index(b"lines") + 2, 5):
        partial.write_bytes(content[:end])
        record = partial.with_name(f"{partial.name}.json").read_bytes()
        assert classify(server, *arguments, "--resume") == 0
        texts = (
            [each["text"] for each in objects(out)]
            if name == "out.jsonl"
            else [each["text"] for each in csv.DictReader(io.StringIO(out.read_text()))]
        )
        assert texts == TEXTS
        out.unlink()
        partial.write_bytes(content)
        partial.with_name(f"{partial.name}.json").write_bytes(record)


def test_resume_needs_the_same_input_and_settings(
    server: FakeTriton, capsys: Capture, tmp_path: Path
):
    source = rows_file(tmp_path, TEXTS)
    out = tmp_path / "out.jsonl"
    arguments = ("--file", source, "--output", out, *COMMON)
    assert classify(server, *arguments, "--timeout-s", "0.2") == 1
    server.release.set()
    capsys.readouterr()
    for options, named in (
        (["--threshold", "0.9,0.8"], "threshold None, not [0.9, 0.8]"),
        (["--stage", "1"], "stage None, not 1"),
    ):
        assert classify(server, *arguments, "--resume", *options) == 2
        assert named in capsys.readouterr().err
    source.write_text(source.read_text() + '{"text": "more"}\n')
    assert classify(server, *arguments, "--resume") == 2
    assert "another input" in capsys.readouterr().err
    assert len(objects(tmp_path / "out.jsonl.partial")) == 4
    assert classify(server, *arguments, "--overwrite") == 0
    assert len(objects(out)) == len(TEXTS) + 1


def test_after_a_bad_row_resume_goes_on_without_it(
    server: FakeTriton, capsys: Capture, tmp_path: Path
):
    source = rows_file(tmp_path, ["a", "b", "", "d"])
    out = tmp_path / "out.jsonl"
    arguments = ("--file", source, "--output", out, *COMMON)
    for options in ([], ["--resume"]):
        assert classify(server, *arguments, *options) == 2
        err = capsys.readouterr().err
        assert "with --resume --on-invalid skip continues" in err
        assert "leave the row out, or give --on-invalid skip" in err
    assert classify(server, *arguments, "--resume", "--on-invalid", "skip") == 0
    assert [(each["row"], each["text"]) for each in objects(out)] == [(0, "a"), (1, "b"), (3, "d")]
    assert [each["row"] for each in objects(tmp_path / "out.jsonl.rejects.jsonl")] == [2]


def test_resume_without_a_rest_is_a_first_run(server: FakeTriton, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    assert classify(server, "a", "b", "--output", out, "--resume") == 0
    assert [each["text"] for each in objects(out)] == ["a", "b"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_stop_leave_the_same_files(server: FakeTriton, tmp_path: Path, number: int):
    source = rows_file(tmp_path, TEXTS)
    out = tmp_path / "out.jsonl"
    command = [
        *("env", "--default-signal=INT,TERM,HUP"),
        *(sys.executable, "-m", "cascadebert_client.cli", "classify", "--url", server.url),
        *("--file", str(source), "--output", str(out), *COMMON),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert server.hanging.acquire(timeout=30)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines() == [
        f"cascadebert classify: the answers so far are in {out}.partial: the same command "
        "with --resume continues",
        "cascadebert classify: interrupted",
    ]
    assert [each["text"] for each in objects(Path(f"{out}.partial"))] == TEXTS[:4]
    server.release.set()
    assert classify(server, "--file", source, "--output", out, *COMMON, "--resume") == 0
    assert [each["row"] for each in objects(out)] == list(range(len(TEXTS)))


MIXED = [
    '{"text": "a"}',
    '{"text": ""}',
    '{"text": 3}',
    "",
    '{"text": "\\ud800"}',
    '{"words": "x"}',
    "{",
    '{"text": "b\\u0000"}',
]


def test_rows_that_are_wrong_are_left_out(server: FakeTriton, capsys: Capture, tmp_path: Path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(MIXED) + "\n")
    out = tmp_path / "out.jsonl"
    assert classify(server, "--file", source, "--output", out) == 2
    capsys.readouterr()
    arguments = ("--file", source, "--output", out, "--overwrite", "--on-invalid", "skip")
    assert classify(server, *arguments) == 0
    assert [(each["row"], each["text"]) for each in objects(out)] == [(0, "a"), (7, "b\0")]
    rejects = tmp_path / "out.jsonl.rejects.jsonl"
    assert str(rejects) in capsys.readouterr().err
    found = objects(rejects)
    assert [(each["row"], each["line"]) for each in found] == [(i, i + 1) for i in range(1, 7)]
    assert all(each["problem"].startswith(f"{source}:{each['line']}: ") for each in found)
    assert "is empty" in found[0]["problem"]
    # The next run has none, and the list is not left behind.
    source.write_text('{"text": "a"}\n')
    assert classify(server, *arguments) == 0
    assert names(tmp_path) == {"in.jsonl", "out.jsonl"}


def test_a_row_that_no_server_takes_is_left_out(server: FakeTriton, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    texts = rows_file(tmp_path, ["a", "x" * (2 << 20), "b"])
    assert classify(server, "--file", texts, "--output", out, "--on-invalid", "skip") == 0
    assert [each["row"] for each in objects(out)] == [0, 2]
    (reject,) = objects(tmp_path / "out.jsonl.rejects.jsonl")
    assert (reject["row"], str(2 << 20) in reject["problem"]) == (1, True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tsv", "text\tn\na\t1\n\t2\nb\nc\t3\n"),
        ("x.csv", "text,n\na,1\n  ,2\nb\nc,3\n"),
        ("x.json", '[{"text": "a"}, {"text": null}, 3, {"text": "c"}]'),
    ],
)
def test_rows_are_left_out_of_every_format(
    server: FakeTriton, capsys: Capture, tmp_path: Path, name: str, content: str
):
    path = tmp_path / name
    path.write_text(content)
    assert classify(server, "--file", path, "--json", "--on-invalid", "skip") == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [(each["row"], each["text"]) for each in rows] == [(0, "a"), (3, "c")]
    assert captured.err.count("cascadebert classify: skipped: ") == 2


def test_a_file_without_a_valid_row_is_no_success(
    server: FakeTriton, capsys: Capture, tmp_path: Path
):
    source = rows_file(tmp_path, ["a", "b"])
    arguments = ("--file", source, "--text", "txet", "--on-invalid", "skip")
    assert classify(server, *arguments, "--output", tmp_path / "out.jsonl") == 2
    err = capsys.readouterr().err
    assert "no row is valid; the first of 2" in err
    assert "no key named 'txet'" in err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("text", ['a "quoted", \t\nline é', "a\nb", "a\rb", "a\r\nb"])
def test_csv_keeps_texts_as_they_are(server: FakeTriton, tmp_path: Path, text: str):
    out = tmp_path / "out.csv"
    assert classify(server, text, "--output", out) == 0
    (row,) = csv.DictReader(io.StringIO(out.read_bytes().decode(), newline=""))
    rule = expected(text)
    assert (row["text"], row["label"], row["text_pair"]) == (text, rule.label, "")
    assert float(row["confidence"]) == rule.confidence


def test_the_table_has_its_header_if_the_first_row_was_skipped(server: FakeTriton, capsys: Capture):
    assert classify(server, "", "a", "--on-invalid", "skip") == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["label", "confidence", "stage", "text"]
    assert row.endswith("a")


@pytest.mark.parametrize("name", ["OUT.JSONL.GZ", "out.ndjson", "out.dat"])
def test_names_and_formats_of_outputs(server: FakeTriton, tmp_path: Path, name: str):
    out = tmp_path / name
    options = ("--output-format", "jsonl") if name == "out.dat" else ()
    assert classify(server, "a", "--output", out, *options) == 0
    content = out.read_bytes()
    if name.endswith("GZ"):
        content = gzip.decompress(content)
    assert json.loads(content)["text"] == "a"


@pytest.mark.parametrize("path", ["-", "/dev/stdout"])
def test_an_output_may_be_stdout(server: FakeTriton, capsys: Capture, path: str):
    assert classify(server, "a", "--output", path, "--output-format", "csv") == 0
    header, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert dict(zip(header, row, strict=True))["text"] == "a"
    assert classify(server, "a", "--output", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["text"] == "a"
    assert classify(server, "a", "--output", path, "--resume") == 2


def test_an_output_may_be_a_named_pipe(server: FakeTriton, tmp_path: Path):
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        assert classify(server, "a", "--output", pipe) == 0
        out, _ = reader.communicate(timeout=30)
    assert json.loads(out)["text"] == "a"
    assert names(tmp_path) == {"pipe.jsonl"}


def test_a_full_disk_loses_nothing_that_was_written(server: FakeTriton, tmp_path: Path):
    texts = [f"text {number}" for number in range(1000)]
    source = rows_file(tmp_path, texts)
    out = tmp_path / "out.jsonl"
    arguments = ["--file", str(source), "--output", str(out)]
    command = [sys.executable, "-m", "cascadebert_client.cli", "classify", "--url", server.url]
    # Files may have 32 blocks of 1 KiB.
    limited = ["bash", "-c", 'ulimit -f 32; exec "$@"', "bash", *command, *arguments]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--resume continues" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert 0 < len(Path(f"{out}.partial").read_bytes()) <= 32 * 1024
    assert classify(server, *arguments, "--resume") == 0
    assert [each["text"] for each in objects(out)] == texts


def test_a_misspelt_file_is_told_the_one_beside_it(
    server: FakeTriton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows_file(tmp_path, TEXTS)
    assert classify(server, "--file", tmp_path / "inn.jsonl", "--output", tmp_path / "o.jsonl") == 2
    assert "did you mean 'in.jsonl'? check the path after --file" in capsys.readouterr().err
