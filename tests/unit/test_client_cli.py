"""`classify` and `status`, against the fake server."""

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cascadebert_build.config.rows import rows_from_source
from cascadebert_build.config.schema import DataConfig
from cascadebert_client import CascadeClient
from cascadebert_client.cli import main
from tests.unit.fake_triton import POLICY, FakeTriton, expected


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


def type_in(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def check(answer: dict[str, Any], row: int, text: str, pair: str | None = None) -> None:
    rule = expected(text, pair)
    assert answer["row"] == row
    assert answer["text"] == text
    assert answer.get("text_pair") == pair
    assert answer["label"] == rule.label
    assert answer["confidence"] == rule.confidence
    assert max(answer["probabilities"]) == rule.confidence
    assert answer["exit_stage"] == rule.exit_stage
    assert answer["degraded"] is False
    assert answer["policy"] == POLICY


Capture = pytest.CaptureFixture[str]


def test_texts_as_arguments(server: FakeTriton, capsys: Capture):
    assert main(["classify", "--url", server.url, "a good film", "a dull one"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["label", "confidence", "stage", "text"]
    for text, row in zip(["a good film", "a dull one"], rows, strict=True):
        rule = expected(text)
        label, confidence, stage, words = row.split(maxsplit=3)
        assert (label, stage, words) == (rule.label, str(rule.exit_stage), text)
        assert float(confidence) == pytest.approx(rule.confidence, abs=1e-4)
        # Aligned: every text begins below the word "text".
        assert row.index(text) == header.index("text")


def test_json_is_one_object_per_line(server: FakeTriton, capsys: Capture):
    assert main(["classify", "--url", server.url, "--json", "é good", "b"]) == 0
    first, second = objects(capsys.readouterr().out)
    check(first, 0, "é good")
    check(second, 1, "b")


def test_pairs_as_arguments(server: FakeTriton, capsys: Capture):
    assert main(["classify", "a", "b", "--pair", "c", "d", "--url", server.url, "--json"]) == 0
    first, second = objects(capsys.readouterr().out)
    check(first, 0, "a", "c")
    check(second, 1, "b", "d")
    assert main(["classify", "a", "--pair", "c", "--url", server.url]) == 0
    assert "a | c" in capsys.readouterr().out


def test_texts_on_stdin(server: FakeTriton, capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    type_in(monkeypatch, "a\tb\né\n".encode())
    assert main(["classify", "--url", server.url, "--json"]) == 0
    first, second = objects(capsys.readouterr().out)
    check(first, 0, "a\tb")
    check(second, 1, "é")


def test_pairs_on_stdin(server: FakeTriton, capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    type_in(monkeypatch, b"a\tb\n")
    assert main(["classify", "--url", server.url, "--json", "--pairs"]) == 0
    check(objects(capsys.readouterr().out)[0], 0, "a", "b")


def test_a_file_in_its_order(server: FakeTriton, capsys: Capture, tmp_path: Path):
    texts = [f"text {number}" for number in range(100)]
    path = tmp_path / "dev.tsv"
    path.write_text("label\tsentence\n" + "".join(f"0\t{text}\n" for text in texts))
    arguments = ["--file", str(path), "--text", "sentence", "--rows-per-request", "3"]
    assert main(["classify", "--url", server.url, "--json", "--concurrency", "4", *arguments]) == 0
    captured = capsys.readouterr()
    for index, (text, answer) in enumerate(zip(texts, objects(captured.out), strict=True)):
        check(answer, index, text)
    assert server.peak_in_flight <= 4
    assert max(len(request.texts) for request in server.requests) == 3
    # No terminal, no progress bar.
    assert captured.err == ""


@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("UP.TSV", b'text\tlabel\n"say ""a"""\t1\n', ()),
        ("rows.json.gz", gzip.compress(b'[{"text": "say \\"a\\""}]', mtime=0), ()),
        ("rows.dat", b'text,label\n"say ""a""",1\n', ("--format", "csv")),
    ],
)
def test_files_are_read_as_the_build_reads_them(
    server: FakeTriton,
    capsys: Capture,
    tmp_path: Path,
    name: str,
    content: bytes,
    arguments: tuple[str, ...],
):
    path = tmp_path / name
    path.write_bytes(content)
    command = ["classify", "--url", server.url, "--json", "--file", str(path), *arguments]
    assert main(command) == 0
    (answer,) = objects(capsys.readouterr().out)
    check(answer, 0, 'say "a"')
    rows = rows_from_source(DataConfig(str(path), label=None, format=(*arguments, None, None)[1]))
    assert rows.texts == ('say "a"',)


def test_a_file_of_pairs(server: FakeTriton, capsys: Capture, tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"q": "a", "s": "b"}\n')
    arguments = ["--file", str(path), "--text", "q", "--text-pair", "s", "--json"]
    assert main(["classify", "--url", server.url, *arguments]) == 0
    check(objects(capsys.readouterr().out)[0], 0, "a", "b")


def test_output_to_jsonl(server: FakeTriton, capsys: Capture, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    assert main(["classify", "--url", server.url, "a", "é", "--output", str(out)]) == 0
    first, second = objects(out.read_text(encoding="utf-8"))
    check(first, 0, "a")
    check(second, 1, "é")
    assert "é" in out.read_text(encoding="utf-8")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"2 rows to {out}: exits " in captured.err
    assert os.listdir(tmp_path) == ["out.jsonl"]  # noqa: PTH208


def test_output_to_tsv(server: FakeTriton, tmp_path: Path):
    out = tmp_path / "out.tsv"
    assert main(["classify", "--url", server.url, "a\tb \nc", "--output", str(out)]) == 0
    header, row = (line.split("\t") for line in out.read_text().splitlines())
    fields = dict(zip(header, row, strict=True))
    rule = expected("a\tb \nc")
    assert fields["text"] == "a b c"
    assert fields["label"] == rule.label
    # All digits: the confidence sent back as a threshold is the same float32.
    assert float(fields["confidence"]) == rule.confidence
    assert (fields["row"], fields["exit_stage"]) == ("0", str(rule.exit_stage))
    assert (fields["degraded"], fields["policy"], fields["text_pair"]) == ("false", POLICY, "")


def test_a_failed_run_leaves_no_complete_output(
    server: FakeTriton, capsys: Capture, tmp_path: Path
):
    out = tmp_path / "out.jsonl"
    arguments = ["a", "explode", "--rows-per-request", "1", "--output", str(out)]
    assert main(["classify", "--url", server.url, *arguments]) == 1
    assert not out.exists()
    check(objects((tmp_path / "out.jsonl.partial").read_text())[0], 0, "a")
    assert "the answers so far are in" in capsys.readouterr().err


def test_an_empty_input_is_no_error(
    server: FakeTriton, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    type_in(monkeypatch, b"")
    assert main(["classify", "--url", server.url]) == 0
    assert capsys.readouterr().out == ""
    type_in(monkeypatch, b"")
    out = tmp_path / "out.tsv"
    assert main(["classify", "--url", server.url, "--output", str(out)]) == 0
    assert out.read_text().startswith("row\tlabel\t")
    assert "0 rows to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (["--operating-point", "fast"], {"operating_point": "fast"}),
        (["--threshold", "0.123456789012"], {"threshold": "0.123456789012"}),
        (["--threshold", "0.9,0.8"], {"threshold": "0.9,0.8"}),
        (["--stage", "0"], {"stage": 0}),
        ([], {}),
    ],
)
def test_options_become_parameters(
    server: FakeTriton, options: list[str], parameters: dict[str, Any]
):
    assert main(["classify", "--url", server.url, "a", *options]) == 0
    (request,) = server.requests
    sent = dict(request.parameters)
    assert 0 < int(sent.pop("timeout")) <= 30_000_000
    assert sent == parameters


def test_model_version_and_timeout(server: FakeTriton):
    options = ["--model", "cascade", "--model-version", "1", "--timeout-s", "5"]
    assert main(["classify", "--url", server.url, "a", *options, "--request-id", "r1"]) == 0
    (request,) = server.requests
    assert request.id == "r1"
    assert request.version == "1"
    assert 0 < (request.timeout_us or 0) <= 5_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--file", "x.tsv"], "both TEXT and --file"),
        (["a", "--text", "x"], "give --file too"),
        (["a", "--format", "csv"], "give --file too"),
        (["a", "--pairs"], "--pairs is for stdin"),
        (["a", "b", "--pair", "c"], "2 TEXT, but 1 after --pair"),
        (["--pair", "c"], "0 TEXT, but 1 after --pair"),
        (["--file", "/nowhere/x.tsv"], "/nowhere/x.tsv does not exist"),
        (["--file", "/"], "Is a directory"),
        (["a", "--output", "x.xls"], "x.xls ends in none of .jsonl"),
        (["a", "--output", "x.tsv", "--json"], "--json and --output x.tsv"),
        (["a", "--output", "/nowhere/x.tsv"], "No such file or directory"),
        (["a", "--threshold", "2"], "threshold is 2.0: give a number from 0 to 1"),
        (["a", "--threshold", "nan"], "threshold is nan"),
        (["a", "--stage", "-1"], "stage is -1"),
        (["a", "--timeout-s", "0"], "timeout_s is 0.0"),
        (["a", "--concurrency", "0"], "max_concurrency is 0"),
        (["a", "--rows-per-request", "0"], "rows_per_request is 0"),
        (["a", "--url", "http://x:1"], "has a scheme"),
        (["a", " "], "row 1: the text is only white space"),
        (["a", "b\udcff"], "row 1: the text has a lone surrogate"),
        (["a", "--model", "nope"], "Request for unknown model: 'nope' is not found"),
        (["a", "--model-version", "7"], "version 7"),
    ],
)
def test_wrong_use_is_exit_code_2(
    server: FakeTriton, capsys: Capture, arguments: list[str], message: str
):
    url = [] if "--url" in arguments else ["--url", server.url]
    assert main(["classify", *url, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(("cascadebert classify: ", '{"error": '))
    assert message in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threshold", "x"],
        ["--threshold", "0.5,"],
        ["--threshold", "0.5", "--stage", "1"],
        ["--nonsense"],
    ],
)
def test_wrong_options_are_exit_code_2_too(capsys: Capture, arguments: list[str]):
    with pytest.raises(SystemExit) as stop:
        main(["classify", "a", *arguments])
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_bad_line_is_named_after_the_answers_before_it(
    server: FakeTriton, capsys: Capture, tmp_path: Path
):
    path = tmp_path / "x.tsv"
    path.write_bytes(b"text\na\nb\n\xff\n")
    assert main(["classify", "--url", server.url, "--file", str(path), "--json"]) == 2
    captured = capsys.readouterr()
    assert [answer["text"] for answer in objects(captured.out)] == ["a", "b"]
    assert f"{path}:4: byte 0xff" in captured.err


@pytest.mark.parametrize(
    ("code", "message", "exit_code"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", 1),
        (grpc.StatusCode.UNAVAILABLE, "Request timeout expired", 1),
        (grpc.StatusCode.INTERNAL, "boom", 1),
        (grpc.StatusCode.INVALID_ARGUMENT, "unknown operating point 'x'", 2),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' is not found", 2),
    ],
)
def test_what_the_server_says_decides_the_exit_code(
    server: FakeTriton, capsys: Capture, code: grpc.StatusCode, message: str, exit_code: int
):
    server.fail(code, message, times=10_000)
    assert main(["classify", "--url", server.url, "a", "--timeout-s", "0.3"]) == exit_code
    assert "cascadebert classify: error: " in capsys.readouterr().err


PAIR_MISSING = (
    "[request id: <id_unknown>] expected 2 inputs but got 1 inputs for model 'cascade'. Got "
    "input(s) ['TEXT'], but missing required input(s) ['TEXT_PAIR']. Please provide all required "
    "input(s)."
)
PAIR_UNKNOWN = "[request id: <id_unknown>] unexpected inference input 'TEXT_PAIR' for model 'x'"


@pytest.mark.parametrize(
    ("message", "arguments", "option"),
    [
        (PAIR_MISSING, ["a"], "give --pair TEXT for each TEXT"),
        (PAIR_MISSING, ["--file", "in.jsonl"], "give --text-pair COLUMN"),
        (PAIR_MISSING, [], "give --pairs"),
        (PAIR_UNKNOWN, ["a", "--pair", "b"], "leave --pair out"),
    ],
)
def test_a_cascade_of_pairs_names_the_options_of_the_command(
    server: FakeTriton,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    message: str,
    arguments: list[str],
    option: str,
):
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text('{"text": "a"}\n')
    type_in(monkeypatch, b"a\n")
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, message)
    assert main(["classify", "--url", server.url, *arguments]) == 2
    err = capsys.readouterr().err
    assert option in err
    assert "request id" not in err
    assert "tuples" not in err


def test_no_server_is_exit_code_1(capsys: Capture):
    with FakeTriton() as gone:
        url = gone.url
    assert main(["classify", "--url", url, "a", "--timeout-s", "0.3"]) == 1
    assert url in capsys.readouterr().err


def test_no_answer_in_time_is_exit_code_1(server: FakeTriton, capsys: Capture):
    assert main(["classify", "--url", server.url, "hang", "--timeout-s", "0.2"]) == 1
    assert "within 0.2 s" in capsys.readouterr().err


def test_text_cannot_steer_the_terminal(server: FakeTriton, capsys: Capture):
    assert main(["classify", "--url", server.url, "a\x1b[2Jb\nc"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("a [2Jb c")


def test_a_terminal_gets_lines_of_its_width_and_a_bar_only_beside_a_file(
    server: FakeTriton,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["classify", "--url", server.url, "word " * 50]) == 0
    captured = capsys.readouterr()
    row = captured.out.splitlines()[1]
    assert len(row) == 50
    assert row.endswith("…")
    assert captured.err == ""
    arguments = ["a", "b", "--output", str(tmp_path / "out.tsv")]
    assert main(["classify", "--url", server.url, *arguments]) == 0
    assert "row/s" in capsys.readouterr().err


def test_an_interrupt_is_exit_code_130(
    server: FakeTriton, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CascadeClient, "classify_stream", interrupt)
    assert main(["classify", "--url", server.url, "a"]) == 130
    assert capsys.readouterr().err == "cascadebert classify: interrupted\n"


def command(server: FakeTriton, *arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "cascadebert_client.cli",
        "classify",
        "--url",
        server.url,
        *arguments,
    ]


def test_a_real_interrupt_stops_requests_in_flight(server: FakeTriton):
    arguments = ["hang", "hang", "--rows-per-request", "1"]
    with subprocess.Popen(
        # A shell's background jobs ignore interrupts, and child processes inherit that.
        ["env", "--default-signal=INT", *command(server, *arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for _ in range(2):
            assert server.hanging.acquire(timeout=30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "cascadebert classify: interrupted\n"
    assert server.wait_until_given_up(2)


def test_a_closed_pipe_is_quiet(server: FakeTriton, tmp_path: Path):
    path = tmp_path / "x.tsv"
    path.write_text("text\n" + "".join(f"text {number} {'x' * 500}\n" for number in range(2000)))
    with subprocess.Popen(
        command(server, "--file", str(path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert err == ""


def test_a_pipe_closed_before_the_first_answer_is_quiet(server: FakeTriton):
    with subprocess.Popen(
        command(server, "hang"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Buffered, as by default: the answer is written when the buffer is flushed.
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert server.hanging.acquire(timeout=30)
        process.stdout.close()
        server.release.set()
        err = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert err == ""


def test_an_output_that_is_not_utf8(server: FakeTriton):
    for options in ([], ["--json"]):
        done = subprocess.run(
            command(server, "é ☃", *options),
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()


def test_status_of_a_cascade_that_serves(server: FakeTriton, capsys: Capture):
    assert main(["status", "--url", server.url]) == 0
    out = capsys.readouterr().out
    assert f"triton 2.51.0 at {server.url}: live, ready" in out
    assert "cascade: ready; version 1; up to 8 rows per request" in out
    assert re.search(r"^cascade +1 +6 +4 +1 +2\.50$", out, re.MULTILINE)
    assert re.search(r"^cascade_small +1 +6 +4 +0 +-$", out, re.MULTILINE)


def test_status_tells_how_many_instances_a_cascade_has(server: FakeTriton, capsys: Capture):
    server.instances = 3
    assert main(["status", "--url", server.url]) == 0
    assert "up to 8 rows per request; 3 instances\n" in capsys.readouterr().out
    assert main(["status", "--url", server.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["instances"] == 3


def test_status_as_json(server: FakeTriton, capsys: Capture):
    assert main(["status", "--url", server.url, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["serving"] is True
    assert status["version"] == "2.51.0"
    assert status["model"]["max_batch_size"] == 8
    assert [each["name"] for each in status["statistics"]] == ["cascade", "cascade_small"]


def test_status_that_is_not_ready_is_exit_code_1(server: FakeTriton, capsys: Capture):
    assert main(["status", "--url", server.url, "--model", "nope"]) == 1
    assert "nope: NOT READY" in capsys.readouterr().out
    server.server_ready = False
    assert main(["status", "--url", server.url]) == 1
    assert "live, NOT READY" in capsys.readouterr().out
    with FakeTriton() as gone:
        url = gone.url
    assert main(["status", "--url", url, "--json"]) == 1
    status = json.loads(capsys.readouterr().out)
    assert status["live"] is False
    assert "Connection refused" in status["problem"]


def test_status_of_a_wrong_address_is_exit_code_2(capsys: Capture):
    assert main(["status", "--url", "localhost"]) == 2
    assert "cascadebert status: error: url 'localhost' lacks a port" in capsys.readouterr().err


def test_the_client_needs_neither_torch_nor_transformers():
    code = (
        "import sys, cascadebert_client, cascadebert_client.cli\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'tokenizers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert all(hasattr(cascadebert_client, n) for n in cascadebert_client.__all__)\n"
        "print(cascadebert_client.__version__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.match(r"\d+\.\d+", done.stdout)


def test_explain_shows_the_stages_below_each_answer(server: FakeTriton, capsys: Capture):
    texts = [
        next(f"text {i}" for i in range(99) if expected(f"text {i}").exit_stage == stage)
        for stage in (0, 1)
    ]
    assert main(["classify", "--url", server.url, "--explain", *texts]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + (1 + 1 + 1) + (1 + 2 + 1)
    assert lines[2].split(": ")[0].strip() == "stage 0 (cascade_small)"
    assert "deferred" in lines[5]
    assert "waited 3.00 ms, ran 36.00 ms alone" in lines[6]
    assert lines[7].strip() == "answered after 46.00 ms, operating point balanced"


def test_explain_as_json(server: FakeTriton, capsys: Capture, tmp_path: Path):
    assert main(["classify", "--url", server.url, "--json", "--explain", "a"]) == 0
    (found,) = objects(capsys.readouterr().out)
    assert len(found["timeline"]["stages"]) == found["exit_stage"] + 1
    out = tmp_path / "answers.csv"
    assert main(["classify", "--url", server.url, "--explain", "--output", str(out), "a"]) == 2
    assert "--explain" in capsys.readouterr().err
