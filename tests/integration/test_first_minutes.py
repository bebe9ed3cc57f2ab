"""From checkpoints and a csv of four classes to answers, as a new user goes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from cascadebert_build.cli import main
from cascadebert_build.pipeline import quick
from tests.support.checkpoints import TEXTS, save_checkpoint
from tests.support.exports import export_config
from tests.support.serving import serving

TOPICS = ("bank", "film", "food", "sport")
Capture = pytest.CaptureFixture[str]


def result_of(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.timeout(900)  # two builds and a server
def test_from_checkpoints_and_a_csv_to_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "one", labels=TOPICS, num_hidden_layers=1)
    save_checkpoint(tmp_path / "two", labels=TOPICS[::-1], seed=1)
    with Path("rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["message", "topic"])
        writer.writerows([f"{text}, quoted", TOPICS[i % 4]] for i, text in enumerate(TEXTS * 2))

    made = result_of(capsys, "init", "one", "two", "--data", "rows.csv")
    assert made["rows"] == 2 * len(TEXTS)
    export_config(tmp_path / "cascade.toml")

    # No time at all for checks: they take the least that they can, and say what is missing.
    for share in ("EXPORTS_S", "ARTEFACTS_S", "COSTS_S", "DECISIONS_S"):
        monkeypatch.setattr(quick, share, 0.0)
    monkeypatch.setattr("cascadebert_build.pipeline.verify.EXPORTS_S", 0.0)
    monkeypatch.setattr("cascadebert_build.pipeline.tune.COSTS_S", 0.0)
    built = result_of(capsys, "build", "cascade.toml", "--quick", "--model-repository", "models")
    assert built["verdicts"][0]["kind"] == quick.CHECKED_QUICKLY
    assert "shapes of calls" in built["verdicts"][0]["text"]
    assert "times of small" in built["verdicts"][0]["text"]

    # `publish` does not take a short check for a whole one, and `evaluate` says what it is.
    assert main(["publish", "cascade.toml", "--model-repository", "models"]) == 2
    assert "has not passed verification" in capsys.readouterr().err
    evaluated = result_of(capsys, "evaluate", "cascade.toml")
    assert quick.CHECKED_QUICKLY in {each["kind"] for each in evaluated["verdicts"]}

    with serving(tmp_path / "models") as server:
        answers = result_of_lines(capsys, "classify", "--url", server.url, TEXTS[0], TEXTS[1])
        assert {answer["label"] for answer in answers} <= set(TOPICS)
        assert main(["status", "--url", server.url]) == 0
        assert "built with --quick" in capsys.readouterr().out

    # The same cascade without its file: the whole check, and nothing is said any more.
    columns = ["--data", "rows.csv", "--model-repository", "models"]
    members = [f"--member={m['name']}={m['checkpoint']}" for m in made["members"]]
    built = result_of(capsys, "build", *members, *columns)
    assert quick.CHECKED_QUICKLY not in {each["kind"] for each in built["verdicts"]}
    evaluated = result_of(capsys, "evaluate", *members, *columns[:2])
    assert quick.CHECKED_QUICKLY not in {each["kind"] for each in evaluated["verdicts"]}


def result_of_lines(capsys: Capture, *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
