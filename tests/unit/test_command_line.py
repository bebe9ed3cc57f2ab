"""What all commands share: names that were meant, JSON errors, the environment, imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascadebert_build import cli as build_cli
from cascadebert_client import cli as client_cli
from tests.unit.fake_triton import FakeTriton, expected

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    with FakeTriton(model="reviews") as running:
        yield running


def ended(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        build_cli.main(arguments)
    return stop.value.code


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["clasify", "a"], "'classify'"),
        (["classify", "a", "--modle", "x"], "'--model'"),
        (["classify", "a", "--operating-pont=x"], "'--operating-point'"),
        (["serve", "--jsn"], "'--json'"),
        (["classify", "--file", "x", "--format", "jsnl"], "'jsonl'"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_one_that_was_meant(
    capsys: Capture, arguments: list[str], meant: str
):
    assert ended(*arguments) == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_a_name_that_is_like_none_is_not_guessed(capsys: Capture):
    assert ended("classify", "a", "--qqqq") == 2
    err = capsys.readouterr().err
    assert "unrecognized arguments: --qqqq" in err
    assert "did you mean" not in err


def error_in(err: str) -> dict[str, object]:
    return json.loads(err.splitlines()[-1])["error"]


@pytest.mark.parametrize(
    ("arguments", "command", "kind"),
    [
        (["classify", "a", "--model", "nope"], "classify", "ModelNotFound"),
        (["classify", " "], "classify", "InvalidRequest"),
        (["classify", "--file", "/nowhere/x.tsv"], "classify", "InvalidRequest"),
        (["status", "--url", "localhost"], "status", "InvalidRequest"),
        (["build", "/nowhere/cascade.toml"], "build", "UsageError"),
    ],
)
def test_errors_are_json_beside_json(
    server: FakeTriton, capsys: Capture, arguments: list[str], command: str, kind: str
):
    url = ["--url", server.url] if arguments[0] == "classify" else []
    assert build_cli.main([*arguments, *url, "--json"]) == 2
    captured = capsys.readouterr()
    error = error_in(captured.err)
    assert captured.out == ""
    assert (error["command"], error["type"], error["exit_code"]) == (command, kind, 2)
    assert isinstance(error["message"], str)


def test_errors_of_wrong_use_are_json_too(capsys: Capture):
    assert ended("classify", "a", "--json", "--modle", "x") == 2
    error = error_in(capsys.readouterr().err)
    assert (error["command"], error["type"], error["exit_code"]) == ("classify", "UsageError", 2)


def test_the_environment_names_server_model_and_key(
    server: FakeTriton, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CASCADEBERT_URL", server.url)
    monkeypatch.setenv("CASCADEBERT_MODEL", "reviews")
    monkeypatch.setenv("CASCADEBERT_API_KEY", "secret\n")
    assert build_cli.main(["classify", "a"]) == 0
    assert server.requests[0].metadata["authorization"] == "Bearer secret"
    # What is given on the command line counts more.
    assert build_cli.main(["classify", "a", "--header", "Authorization=mine"]) == 0
    assert server.requests[1].metadata["authorization"] == "mine"
    assert build_cli.main(["classify", "a", "--model", "nope"]) == 2


def test_a_key_that_cannot_be_sent_is_not_shown(
    server: FakeTriton, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CASCADEBERT_API_KEY", "sécret")
    assert build_cli.main(["classify", "a", "--url", server.url]) == 2
    err = capsys.readouterr().err
    assert "CASCADEBERT_API_KEY" in err
    assert "cret" not in err.replace("secret", "")


def test_a_server_with_one_cascade_needs_no_model(server: FakeTriton, capsys: Capture):
    assert client_cli.main(["classify", "a", "--url", server.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == expected("a").label
    assert client_cli.main(["status", "--url", server.url]) == 0
    assert "reviews: ready" in capsys.readouterr().out


def test_of_several_cascades_one_must_be_chosen(server: FakeTriton, capsys: Capture):
    server.other_cascades = ("toxicity", "news")
    for command in (["classify", "a"], ["status"]):
        assert client_cli.main([*command, "--url", server.url]) == 2
        assert "'news', 'reviews', 'toxicity': choose one" in capsys.readouterr().err
    # The usual name is the default, as before.
    server.model, server.other_cascades = "cascade", ("news",)
    assert client_cli.main(["classify", "a", "--url", server.url]) == 0


def test_an_unknown_model_is_answered_with_those_there_are(server: FakeTriton, capsys: Capture):
    server.other_cascades = ("news",)
    assert client_cli.main(["classify", "a", "--url", server.url, "--model", "revews"]) == 2
    err = capsys.readouterr().err
    assert "the server has 'news', 'reviews'" in err
    assert "did you mean 'reviews'?" in err


def test_a_server_that_lists_no_models_is_asked_for_the_usual_name(capsys: Capture):
    with FakeTriton(restricted=True) as hardened:
        assert client_cli.main(["classify", "a", "--url", hardened.url]) == 0
        assert client_cli.main(["classify", "a", "--url", hardened.url, "--model", "x"]) == 2
    assert "the server has" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["build", "tune", "evaluate", "serve", "load", "classify", "completion"]
)
def test_help_ends_with_examples_that_parse(capsys: Capture, command: str):
    assert ended(command, "--help") == 0
    text = capsys.readouterr().out
    lines = [line.strip() for line in text.partition("examples:\n")[2].splitlines()]
    assert len(lines) >= 2
    for line in lines:
        words = [word.strip('"') for word in line.partition("cascadebert ")[2].split()]
        words = words[: words.index(">")] if ">" in words else words
        assert build_cli.parser().parse_args(words).command == command


def test_all_commands_are_in_the_help(capsys: Capture):
    assert ended("--help") == 0
    out = capsys.readouterr().out
    for command in ("build", "serve", "classify", "status", "audit", "demo", "difficulty"):
        assert re.search(rf"^    {command}\b", out, re.MULTILINE)


def test_the_version_needs_no_large_package():
    code = (
        "import sys\n"
        "from cascadebert_build.cli import main\n"
        "try:\n"
        "    main(['--version'])\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "heavy = {'numpy', 'grpc', 'tritonclient', 'tqdm', 'pydantic', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


# What bash calls when the Tab key is pressed after these words.
COMPLETED = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={last}
_shtab_cascadebert
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def test_bash_completes_commands_options_and_values(capsys: Capture, tmp_path: Path):
    assert build_cli.main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    for words, found in (
        (["cl"], "classify"),
        (["classify", "--on-in"], "--on-invalid"),
        (["classify", "--output-format", "cs"], "csv"),
    ):
        line = " ".join(["cascadebert", *words])
        code = COMPLETED.format(script=script, words=line, last=len(words))
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.split() == [found], done.stderr


@pytest.mark.parametrize("shell", ["zsh", "tcsh", "fish"])
def test_other_shells_have_scripts_too(capsys: Capture, shell: str):
    assert build_cli.main(["completion", shell]) == 0
    assert "on-invalid" in capsys.readouterr().out


def test_without_the_package_the_message_names_the_extra(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert build_cli.main(["completion", "bash"]) == 2
    assert "completion" in capsys.readouterr().err
