"""Our training's pace beside the Trainer's: same rows and steps for all, ratios pair by pair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.tools import training
from benchmarks.tools.training import GROUPED, OURS, RANDOM, Timing, summary_of
from tests.support.checkpoints import save_checkpoint, write_rows


def test_ratios_are_taken_within_a_repeat() -> None:
    rates = {OURS: (10.0, 30.0), RANDOM: (10.0, 20.0), GROUPED: (20.0, 10.0)}
    timings = [
        Timing(name, repeat, 100 / rate, rate, 50 / rate, 500, 0.1 * repeat)
        for name, of_name in rates.items()
        for repeat, rate in reversed(list(enumerate(of_name)))
    ]
    summary = summary_of(timings)
    assert summary["rows_per_s"] == {OURS: 20.0, RANDOM: 15.0, GROUPED: 15.0}
    assert summary["ratios"][RANDOM] == {"median": 1.25, "lowest": 1.0, "highest": 1.5}
    assert summary["ratios"][GROUPED] == {"median": 1.75, "lowest": 0.5, "highest": 3.0}
    assert summary["ratios_by_cpu_time"] == summary["ratios"]
    assert summary["tokens_per_row"][OURS] == 5.0
    assert summary["others_cores"] == 0.1


def test_all_train_the_same_rows_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = save_checkpoint(tmp_path / "base")
    data = write_rows(tmp_path / "rows.tsv")
    command = ["--data", str(data), "--text", "sentence", "--base", str(base), "--rows", "90"]
    command += ["--repeats", "2", "--max-length", "32", "--batch-size", "8"]
    assert training.main([*command, "--out", str(tmp_path / "results")]) == 0
    told = capsys.readouterr()
    assert "rows.tsv, 90 rows, batches of 8" in told.out
    assert "ours over it" in told.out
    result = json.loads((tmp_path / "results" / "training.json").read_text())
    begun = [(row["repeat"], row["contender"]) for row in result["rows"]]
    assert begun == [
        *((0, OURS), (0, RANDOM), (0, GROUPED)),
        *((1, RANDOM), (1, GROUPED), (1, OURS)),
    ]
    for row in result["rows"]:
        assert row["rows_per_s"] == pytest.approx(90 / row["seconds"])
        assert row["data"]["rows"] == 90
        assert row["base"]["sha256"]
        assert row["machine"]["versions"]["transformers"]
    assert result["summary"]["tokens_per_row"][OURS] < result["summary"]["tokens_per_row"][RANDOM]
    assert training.main([*command, "--rows", "101"]) == 2
    assert "--rows 101: give 1 to 100" in capsys.readouterr().err
