"""`init`, `advise`, and commands without a cascade.toml, on checkpoints as people have them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cascadebert_build.cli import main
from cascadebert_build.config.cascade_toml import config_from_file
from tests.support.checkpoints import TEXTS, save_checkpoint, write_rows

TOPICS = ("bank", "film", "food", "sport")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Members of two and of four labels."""
    folder = tmp_path_factory.mktemp("models")
    # Wide enough that the large member is slower on any machine.
    wide: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6}
    save_checkpoint(folder / "tiny", num_hidden_layers=1)
    save_checkpoint(folder / "wide", seed=1, **wide)
    save_checkpoint(folder / "topics-tiny", labels=TOPICS, num_hidden_layers=1)
    save_checkpoint(folder / "topics-wide", labels=TOPICS[::-1], seed=1, **wide)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def four_class_csv(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "message", "topic"])
        for i, text in enumerate(TEXTS):
            writer.writerow([i, f"{text}, quoted", TOPICS[i % 4]])
    return path


def test_init_writes_a_cascade_toml_that_is_read_back(models: Path, here: Path, capsys: Capture):
    rows = four_class_csv(here / "rows.csv")
    # The large member first: the order is found by time.
    given = [str(models / "topics-wide"), str(models / "topics-tiny")]
    assert main(["init", *given, "--data", str(rows), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    config = config_from_file(here / "cascade.toml")
    assert [member.name for member in config.members] == ["small", "large"]
    assert config.checkpoint(config.members[0]) == str(models / "topics-tiny")
    assert result["members"][0]["ms_per_row"] < result["members"][1]["ms_per_row"]
    assert result["members"][0]["macs_per_token"] < result["members"][1]["macs_per_token"]
    assert config.data is not None
    assert (config.data.path, config.data.text, config.data.label) == (
        "./rows.csv", "message", "topic",
    )  # fmt: skip
    assert sorted(result["labels"]) == list(TOPICS)
    assert config.members[0].max_length == 32
    text = (here / "cascade.toml").read_text()
    assert "ms a row in PyTorch" in text
    assert "must be held out" in text


def test_init_never_overwrites_unless_told(models: Path, here: Path, capsys: Capture):
    path = here / "cascade.toml"
    path.write_text("mine")
    given = ["init", str(models / "tiny"), str(models / "wide"), "--data", "rows.tsv"]
    write_rows(here / "rows.tsv")
    assert main(given) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main([*given, "--overwrite", "--name", "films"]) == 0
    assert config_from_file(path).name == "films"


def test_pairs_and_a_sub_folder(models: Path, here: Path, capsys: Capture):
    write_rows(here / "rows.tsv", pair=True)
    (here / "out").mkdir()
    given = ["first=" + str(models / "tiny"), str(models / "wide"), "--data", "rows.tsv"]
    columns = ["--text", "sentence", "--text-pair", "other"]
    assert main(["init", *given, *columns, "--output", "out/c.toml"]) == 0
    config = config_from_file(here / "out" / "c.toml")
    assert config.data is not None
    assert Path(config.data.path) == here / "rows.tsv"
    assert config.data.text_pair == "other"
    assert {member.name for member in config.members} >= {"first"}


@pytest.mark.parametrize(
    ("checkpoints", "rows", "more", "parts"),
    [
        (["tiny"], "rows.tsv", [], ["2 checkpoints or more", "tiny"]),
        (["tiny", "topics-wide"], "rows.tsv", [], ["members must agree on them as a set"]),
        (["tiny", "missing"], "rows.tsv", [], ["missing", "does not exist"]),
        (["tiny", "wide"], "none.tsv", [], ["none.tsv does not exist"]),
        (["tiny", "wide"], "empty.tsv", [], ["empty.tsv", "no rows"]),
        (["tiny", "wide"], "void.tsv", [], ["void.tsv", "no header"]),
        (
            ["tiny", "wide"],
            "unlabelled.tsv",
            [],
            ["no column holds the members' labels", "--label"],
        ),
        (["tiny", "wide"], "twice.tsv", [], ["is not clear", "'a', 'b'", "--label"]),
        (["tiny", "wide"], "rows.tsv", ["--text", "review"], ["'review'", "'sentence'"]),
        (["tiny", "wide"], "rows.tsv", ["--name", "No Name"], ["--name 'No Name'"]),
        (["tiny", "wide"], "rows.tsv", ["--output", "."], ["--output", "is a folder"]),
        (["tiny", "org/some-model"], "rows.tsv", [], ["'org/some-model'", "folder"]),
    ],
)
def test_bad_input_is_one_clear_sentence(
    models: Path,
    here: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    checkpoints: list[str],
    rows: str,
    more: list[str],
    parts: list[str],
):
    # No hub can be reached, whatever the machine has.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr("cascadebert_build.checkpoints.checkpoint.getproxies", dict)
    write_rows(here / "rows.tsv")
    (here / "empty.tsv").write_text("sentence\tlabel\n")
    (here / "void.tsv").write_text("")
    (here / "unlabelled.tsv").write_text("sentence\tscore\na good film\t0.5\na bad one\t0.7\n")
    (here / "twice.tsv").write_text("sentence\ta\tb\na good film\t0\t1\na bad one\t1\t1\n")
    given = [name if "/" in name else str(models / name) for name in checkpoints]
    assert main(["init", *given, "--data", rows, *more]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    for part in parts:
        assert part in message
    assert not (here / "cascade.toml").exists()


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "column"), [("2\n", "b"), ("9\nx\nb\n", "b"), ("\n", "a"), ("", None)]
)
def test_a_person_is_asked_on_a_terminal(
    models: Path, here: Path, monkeypatch: pytest.MonkeyPatch, typed: str, column: str | None
):
    (here / "rows.tsv").write_text("sentence\ta\tb\na good film\t0\t1\na bad one\t1\t1\n")
    shown = Keyboard()
    terminal = SimpleNamespace(stdin=Keyboard(typed), stderr=shown)
    monkeypatch.setattr("cascadebert_build.commands.arguments.sys", terminal)
    given = [str(models / "tiny"), str(models / "wide"), "--data", "rows.tsv"]
    assert main(["init", *given]) == (2 if column is None else 0)
    assert "which column is the label?" in shown.getvalue()
    if column is not None:
        data = config_from_file(here / "cascade.toml").data
        assert data is not None
        assert data.label == column


def test_advice_without_a_file(models: Path, here: Path, capsys: Capture):
    four_class_csv(here / "rows.csv")
    members = [
        f"--member=small={models / 'topics-tiny'}",
        f"--member=large={models / 'topics-wide'}",
    ]
    money = ["--rate", "200", "--price-per-hour", "0.8"]
    command = ["advise", *members, "--data", "rows.csv", "--seconds", "20", *money]
    assert main([*command, "--json", "--report", "advice.html"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["rows"] <= len(TEXTS)
    assert found["verdict"]["kind"]
    assert [member["name"] for member in found["members"]] == ["small", "large"]
    assert found["members"][0]["cost"]["computations"] < 0.5
    assert found["months"]["large alone"]["price"] > 0
    page = (here / "advice.html").read_text()
    assert found["verdict"]["text"][:20] in page
    assert "<svg" in page
    assert "<script" not in page
    assert not (here / "work").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["advise"], ["cascade.toml", "--member"]),
        (["advise", "--member", "small=tiny"], ["--data"]),
        (["build", "cascade.toml", "--member", "small=tiny"], ["--member", "both"]),
        (["advise", "cascade.toml", "--price-per-hour", "1"], ["--rate"]),
        (["advise", "cascade.toml", "--rate", "-1"], ["above 0"]),
        (["advise", "cascade.toml", "--rows", "0"], ["--rows 0"]),
    ],
)
def test_wrong_use(here: Path, capsys: Capture, arguments: list[str], parts: list[str]):
    (here / "cascade.toml").write_text("")
    assert main(arguments) == 2
    (message,) = capsys.readouterr().err.splitlines()
    for part in parts:
        assert part in message
