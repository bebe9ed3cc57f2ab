"""The ceiling bench: stages that cost nothing, behind the real server, under the real load."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ceiling import placements, timeline_cost
from benchmarks.ceiling.__main__ import main
from benchmarks.ceiling.null_session import Session
from benchmarks.ceiling.targets import verdicts_of_run
from benchmarks.suite.targets import MET, NOT_MET, UNMEASURED
from cascadebert_core.answer import AnswerWriter
from cascadebert_core.job import Job


@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
def test_null_stages_defer_the_share_that_a_threshold_asks_for(share: float) -> None:
    ids = np.random.default_rng(0).integers(5, 30_000, (4000, 12), dtype=np.int32)
    logits = Session().logits({"input_ids": ids})
    confidence = 1 / (1 + np.exp(-np.abs(logits[:, 0] - logits[:, 1])))
    assert (confidence <= 0.5 + share / 2).mean() == pytest.approx(share, abs=0.02)
    alone = [Session().logits({"input_ids": ids[i : i + 1]}) for i in range(100)]
    assert np.array_equal(np.concatenate(alone), logits[:100])


@pytest.mark.timeout(300)
def test_every_contender_is_measured(tmp_path: Path) -> None:
    options = ["--quick", "--no-peers", "--stages", "gpu", "--instances", "2"]
    options += ["--window-s", "1", "--rest-s", "1"]
    assert main([*options, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "ceiling.json").read_text())
    cascades = [row for row in found["rows"] if row["contender"] == "cascade"]
    assert [row["instances"] for row in cascades] == [2]
    for row in cascades:
        assert row["requests/s a core of BLS"] == pytest.approx(1000 / row["CPU ms model"])
        assert row["rows a call of stage 0"] >= 1
        assert row["rows a call of stage 1"] >= 1
    contenders = {row["contender"]: row for row in found["rows"][::-1]}
    assert set(contenders) == {"cascade", "cascade, inline", "blocking BLS", "least model"}
    for row in contenders.values():
        assert row["requests/s"] > 0
        assert row["CPU ms"] == pytest.approx(
            sum(value for key, value in row.items() if key.startswith("CPU ms ") and value)
        )
    assert contenders["least model"]["CPU ms"] < contenders["cascade"]["CPU ms"]
    assert all(cost["ratio"] > 1 for cost in found["core"])
    assert [cost["rows"] for cost in found["timeline"]] == [1, 64]
    page = (tmp_path / "RESULTS.md").read_text()
    assert "with a timeline" in page
    assert "| least model" in page
    assert "a model, not a measurement" in page
    assert (tmp_path / "plots" / "ceiling-cpu-gpu.svg").read_text().startswith("<svg")
    assert 0 <= found["at_rest"]["serve"] < 1
    (tmp_path / "RESULTS.md").unlink()
    assert main(["--report-only", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "RESULTS.md").read_text() == page
    assert {row["cores"] for row in found["predicted"]} == {2, 4, 8, 16}


def test_a_timeline_is_measured_beside_the_plain_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That both kinds are answered, and only one has a timeline; figures are for quiet machines."""
    made: list[tuple[int, bool]] = []
    outputs_from_job = AnswerWriter.outputs_from_job

    def noting(self: AnswerWriter, job: Job, requested: Iterable[str]) -> dict[str, Any]:
        outputs = outputs_from_job(self, job, requested)
        made.append((len(job.texts), "TIMELINE" in outputs))
        return outputs

    monkeypatch.setattr(AnswerWriter, "outputs_from_job", noting)
    assert timeline_cost.main(["--texts", "64"]) == 0
    turns = {kind: made.count(kind) for kind in set(made)}
    # Six turns: of 64 requests with one row, and of one with 64.
    assert turns == {(1, False): 384, (1, True): 384, (64, False): 6, (64, True): 6}
    out = capsys.readouterr().out
    assert out.count("\n") == 4
    assert "with / plain" in out
    assert timeline_cost.main(["--texts", "3"]) == 2


def run_of(**changed: object) -> dict[str, object]:
    """A run whose figures are all at their bounds."""
    row = {"contender": "cascade", "clients": 64, "rows": 1, "deferred": 0.25}
    null = {**row, "stages": "null", "CPU ms model": 0.34, "CPU ms": 1.5}
    rows = [
        {**null, "CPU ms model": 9.0, "deferred": 1.0},
        null,
        {**null, "contender": "least model", "deferred": 0.0, "CPU ms": 1.0},
        {**null, "clients": 8, "rows": 16, "CPU ms model": 2.0},
        {**row, "stages": "gpu", "requests/s a core of BLS": 3 * 1176.0},
    ]
    core = [{"shape": "1", "ratio": 3.0}, {"shape": "64", "ratio": 1.4}]
    return {"rows": rows, "core": core, "at_rest": {"serve": 0.005, "servers": 0.1}, **changed}


def test_targets_are_met_at_their_bounds_and_not_beyond() -> None:
    verdicts = verdicts_of_run(run_of())
    assert len(verdicts) == 7
    assert {verdict.word for verdict in verdicts} == {MET}
    beyond: list[dict[str, object]] = [
        {"at_rest": {"serve": 0.006}},
        {"core": [{"shape": "1", "ratio": 3.1}, {"shape": "64", "ratio": 1.4}]},
    ]
    for changed in beyond:
        words = [verdict.word for verdict in verdicts_of_run(run_of(**changed))]
        assert words.count(NOT_MET) == 1
    nothing = verdicts_of_run({"rows": [], "core": [], "at_rest": None})
    assert {verdict.word for verdict in nothing} == {UNMEASURED}


def test_a_folder_without_a_run_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--report-only", "--out", str(tmp_path)]) == 2
    assert "has no ceiling.json" in capsys.readouterr().err


def test_a_missing_tokenizer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokenizer.json"
    assert main(["--quick", "--tokenizer", str(path), "--out", str(tmp_path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_instances_below_one_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quick", "--instances", "0", "--out", str(tmp_path)]) == 2
    assert "--instances 0: give 1 or more" in capsys.readouterr().err


def test_placements_need_a_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert placements.main([str(tmp_path / "cascade.toml"), "--turns", "0"]) == 2
    assert "--turns 0" in capsys.readouterr().err
