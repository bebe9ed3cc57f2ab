"""`classify` of stdin: `-`, pipes whose rows come slowly, and compressed input."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from cascadebert_client.cli import main
from cascadebert_client.cli.live import answers_to_slow_rows
from tests.unit.fake_triton import FakeTriton

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


def stream(process: subprocess.Popen[str], name: str) -> IO[str]:
    found: IO[str] | None = getattr(process, name)
    assert found is not None
    return found


@contextmanager
def piped(server: FakeTriton, *arguments: str) -> Generator[subprocess.Popen[str], None, None]:
    command = [
        *("env", "--default-signal=INT,TERM"),
        *(sys.executable, "-m", "cascadebert_client.cli", "classify", "--url", server.url),
        *("--json", *arguments),
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        yield process


@pytest.mark.parametrize("arguments", [(), ("-",), ("--file", "-", "--format", "jsonl")])
def test_a_row_of_a_slow_pipe_is_answered_at_once(server: FakeTriton, arguments: tuple[str, ...]):
    with piped(server, *arguments) as process:
        # Each answer comes before the next row is written, and before the end of the input.
        for text in ("one", "two", "three"):
            line = json.dumps({"text": text}) if len(arguments) > 1 else text
            stream(process, "stdin").write(f"{line}\n")
            stream(process, "stdin").flush()
            assert json.loads(stream(process, "stdout").readline())["text"] == text
        stream(process, "stdin").close()
        assert process.wait(timeout=30) == 0
        assert stream(process, "stderr").read() == ""


def test_a_fast_pipe_fills_its_requests_and_keeps_its_order(server: FakeTriton):
    texts = [f"text {number}" for number in range(3000)]
    with piped(server, "--rows-per-request", "8") as process:
        out, err = process.communicate("\n".join(texts), timeout=60)
    assert (process.returncode, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(each["row"], each["text"]) for each in rows] == list(enumerate(texts))
    assert len(server.requests) < 1500
    assert server.peak_in_flight <= 8


def test_an_error_comes_after_the_answers_before_it(server: FakeTriton):
    with piped(server) as process:
        out, err = process.communicate("a\nb\n\nc\n", timeout=30)
    assert process.returncode == 2
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["a", "b"]
    assert "stdin:3: the line is blank" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_for_the_next_row_can_be_interrupted(server: FakeTriton, number: int):
    with piped(server) as process:
        stream(process, "stdin").write("a\n")
        stream(process, "stdin").flush()
        assert stream(process, "stdout").readline()
        process.send_signal(number)
        # The pipe is still open.
        assert process.wait(timeout=30) == 130
        error = json.loads(stream(process, "stderr").read())["error"]
        assert (error["message"], error["exit_code"]) == ("interrupted", 130)


def test_a_request_in_flight_can_be_interrupted(server: FakeTriton):
    with piped(server) as process:
        stream(process, "stdin").write("hang\n")
        stream(process, "stdin").flush()
        assert server.hanging.acquire(timeout=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130
    assert server.wait_until_given_up(1)


def test_a_failing_server_ends_the_wait_for_rows(server: FakeTriton):
    with piped(server) as process:
        stream(process, "stdin").write("explode\n")
        stream(process, "stdin").flush()
        assert process.wait(timeout=30) == 1  # the pipe is still open


def test_compressed_stdin_is_decompressed(server: FakeTriton):
    command = [sys.executable, "-m", "cascadebert_client.cli", "classify", "--url", server.url]
    done = subprocess.run(
        [*command, "--json"], input=gzip.compress(b"a\nb\n"), capture_output=True, check=True
    )
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a", "b"]


def test_no_input_at_all(server: FakeTriton):
    command = [sys.executable, "-m", "cascadebert_client.cli", "classify", "--url", server.url]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_named_pipe_is_read_as_a_file(server: FakeTriton, tmp_path: Path):
    pipe = tmp_path / "rows.jsonl"
    os.mkfifo(pipe)
    out = tmp_path / "out.jsonl"
    with subprocess.Popen(["sh", "-c", f'echo \'{{"text": "a"}}\' > {pipe}']):
        arguments = ["--file", str(pipe), "--output", str(out)]
        assert main(["classify", "--url", server.url, *arguments]) == 0
    assert json.loads(out.read_text())["text"] == "a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file", "-"], "give --format"),
        (["-", "--pair", "b"], "use --pairs with stdin"),
        (["-", "--file", "x.tsv"], "both TEXT and --file"),
        (["--resume", "--output", "o.jsonl"], "--resume reads the input again"),
    ],
)
def test_wrong_use_of_stdin(
    server: FakeTriton,
    capsys: Capture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert main(["classify", "--url", server.url, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_slow_rows_are_read_ahead_only_so_far():
    read: list[int] = []

    def rows() -> Iterator[str]:
        for number in range(10_000):
            read.append(number)
            yield str(number)

    answers = answers_to_slow_rows(
        rows(),
        lambda batch: [],
        rows_per_request=2,
        max_concurrency=2,
        stop=lambda: None,
    )
    next(answers)
    # Two requests of two rows in flight, four rows that wait, and one in the reader's hand.
    assert len(read) <= 2 * 2 + 2 * 2 + 2 + 1
    answers.close()
    assert len(read) < 100
