"""The demo's members read over topics, and its result is a table and a picture."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cascadebert_build.cli import parser
from cascadebert_build.demo import steps
from cascadebert_build.demo.corpus import corpus_from_seed
from cascadebert_build.demo.measurement import Measured
from cascadebert_build.demo.members import vocabulary_of_rows
from cascadebert_build.demo.next_steps import next_steps
from cascadebert_build.demo.picture import save_picture
from cascadebert_build.demo.run import DemoResult
from cascadebert_client.cli import progress

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
CORPUS = corpus_from_seed(3, train_rows=4000, validation_rows=200, test_rows=200)


def test_the_vocabulary_names_no_topic_of_any_split() -> None:
    words = set(vocabulary_of_rows(CORPUS.train))
    assert {"not", "the", "but", "good"} <= words
    for row in (*CORPUS.train, *CORPUS.test):
        for topic in row.topics:
            assert topic.lower() not in words


def test_the_result_reads_as_a_table_and_a_picture(tmp_path: Path) -> None:
    measured = (
        Measured("small", 0.8, (4, 0), 900.0, 100.0, ((1.0, 2.0), ())),
        Measured("large", 0.9, (0, 4), 100.0, 50.0, ((), (4.0, 6.0))),
        Measured("cascade", 0.9, (3, 1), 310.0, 75.0, ((1.0, 2.0, 3.0), (6.0,))),
    )
    save_picture(tmp_path / "demo.png", measured, [(0.0, 0.8), (1.0, 0.9)], data="t")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    text = str(DemoResult("rows", 4, (0.9,), measured, 0.975, tmp_path / "demo.png"))
    assert "25.0%" in text
    assert "97.5% of the rows" in text
    assert "3.1 times as many rows a second as large in requests of 16 rows" in text
    assert "1.5 times as many in requests of one" in text
    assert "take 2.0 ms (median), 0.40 times as long as large's. Deferred rows: 6.0 ms." in text
    assert "3 + 1" in text


def test_a_result_without_exits_has_no_latency_of_exits(tmp_path: Path) -> None:
    measured = (
        Measured("small", 0.8, (4, 0), 9.0, 9.0, ((1.0,), ())),
        Measured("large", 0.9, (0, 4), 9.0, 9.0, ((), (4.0,))),
        Measured("cascade", 0.9, (0, 4), 9.0, 9.0, ((), (6.0,))),
    )
    text = str(DemoResult("rows", 4, (1.0,), measured, 1.0, tmp_path / "demo.png"))
    assert "(median)" not in text
    save_picture(tmp_path / "demo.png", measured, [(0.0, 0.8), (1.0, 0.9)], data="t")


def test_a_step_without_a_terminal_tells_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.01)
    seen = threading.Event()
    say = sys.stderr.write

    def write(text: str) -> int:
        if "1 of 3 ways" in text:
            seen.set()
        return say(text)

    monkeypatch.setattr(sys.stderr, "write", write)
    monkeypatch.setattr(progress, "NEXT_LINE_S", 0.01)
    with steps.Steps(2).step("measure", "about a minute"):
        with progress.counted("way", 3, what="accuracy") as advance:
            advance()
            assert seen.wait(30)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[1/2] measure: about a minute"
    assert any(line.startswith("[1/2] accuracy: 1 of 3 ways") for line in lines[1:-1])
    assert "done in" in lines[-1]


def test_what_to_type_next_is_what_the_commands_take(tmp_path: Path) -> None:
    text = next_steps(tmp_path / "a folder", "demo")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("  ")]
    ours = [words for words in commands if Path(words[0]).name == "cascadebert"]
    assert [words[1] for words in ours] == ["serve", "classify", "status", "gateway", "demo"]
    for words in ours:
        parser(words[1:]).parse_args(words[1:])
    (curl,) = (words for words in commands if words[0] == "curl")
    assert json.loads(curl[-1])["TEXT"]
    (python,) = (words for words in commands if Path(words[0]).name == "python")
    compile(python[-1], "the line of Python", "exec")


def test_the_demo_installs_no_tools_for_development() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    assert extras["demo"] == ["cascadebert[build,serve,gateway]"]
    names = {
        re.split(r"[^\w-]", wish)[0]
        for wish in (*extras["build"], *extras["serve"], *extras["gateway"])
    }
    assert names.isdisjoint({"pytest", "ruff", "basedpyright", "pandas", "hypothesis"})
    made = subprocess.run(
        ["make", "--dry-run", f"VENV={ROOT / 'no-such-folder'}", "demo"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "'.[demo]'" in made
    assert "dev]" not in made
