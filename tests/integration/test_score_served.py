"""`score` against a server gives the answers that it gives with the members in process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the extra `score` is not installed")
pytest.importorskip("fsspec", reason="the extra `score` is not installed")

from cascadebert_build.cli import main
from cascadebert_build.evaluation.evaluate import NEAR
from cascadebert_build.evaluation.simulate import simulate
from tests.support.scoring import assert_every_row_once, write_corpus
from tests.support.serving import Built


def test_the_same_answers_from_a_server_and_from_members(
    built: Built, served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [text for text in built.texts if isinstance(text, str)]
    corpus = write_corpus(tmp_path / "rows.jsonl", texts, 250)
    command = ["score", str(corpus), "--workers", "0", "--block-rows", "60", "--json"]
    command += ["--model", built.name, "--output"]
    repository = ["--model-repository", str(built.repository)]
    assert main([*command, str(tmp_path / "here"), *repository]) == 0
    assert main([*command, str(tmp_path / "asked"), "--url", served]) == 0
    totals = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["rows"] for each in totals] == [250, 250]
    here = assert_every_row_once(tmp_path / "here", "rows.jsonl", 250)
    asked = assert_every_row_once(tmp_path / "asked", "rows.jsonl", 250)
    outcome = simulate(built.policy, built.logits())
    near = outcome.near_threshold(built.policy.thresholds, NEAR)
    for i, (one, other) in enumerate(zip(here, asked, strict=True)):
        if not near[i % len(texts)]:
            assert (one["label"], one["exit_stage"]) == (other["label"], other["exit_stage"])
            np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-4)
        assert one["policy"] == other["policy"] == built.policy.id
    # What was made by members is not gone on with by a server.
    assert main([*command, str(tmp_path / "here"), "--url", served, "--resume"]) == 2
    assert "answered by members in process, not a server" in capsys.readouterr().err


def test_a_wrong_choice_is_refused_before_anything_is_read(
    built: Built, served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "rows.jsonl", ["good"], 3)
    command = ["score", str(corpus), "--workers", "0", "--output", str(tmp_path / "out")]
    command += ["--url", served, "--model", built.name]
    assert main([*command, "--operating-point", "ballanced"]) == 2
    assert "ballanced" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    for choice in (["--threshold", "0.9"], ["--stage", "1"]):
        assert main([*command, *choice, "--overwrite"]) == 0


def test_a_server_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(tmp_path / "rows.jsonl", ["good"], 3)
    command = ["score", str(corpus), "--workers", "0", "--output", str(tmp_path / "out")]
    assert main([*command, "--url", "127.0.0.1:1", "--model", "tiny", "--timeout-s", "5"]) == 1
    message = capsys.readouterr().err
    assert "127.0.0.1:1" in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()
