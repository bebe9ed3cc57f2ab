"""A multi-label cascade through all steps: built, evaluated, served, called, audited."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cascadebert_build import load_config, tune
from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source
from cascadebert_build.cli import main
from cascadebert_build.errors import UsageError
from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.server.tritonserver import TritonServer
from cascadebert_client import CascadeClient
from cascadebert_core.signals import LEAST_SURE
from cascadebert_core.task import MULTI_LABEL
from tests.support.checkpoints import TEXTS, save_checkpoint, write_config
from tests.support.counters import MetricsPage
from tests.support.scoring import check_score
from tests.support.serving import Built, build, check_congruence, check_tie, labels_of, serving
from tests.support.waiting import settled, wait_until

LABELS = ("insult", "threat", "toxic")
# The first member's labels stand in another order in its logits.
ORDERS = (("toxic", "insult", "threat"), LABELS)


@dataclass(frozen=True)
class Case:
    """A served multi-label cascade, and the checkpoints that it was made from."""

    built: Built
    config: Path
    members: tuple[Path, ...]
    server: TritonServer


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp("multi-label")
    members = {
        f"m{i}": save_checkpoint(
            folder / f"m{i}", labels=labels, seed=i, num_hidden_layers=1 + i,
            problem_type="multi_label_classification",
        )
        for i, labels in enumerate(ORDERS)
    }  # fmt: skip
    config = write_config(
        folder, members, name="multi", rate=0.4, extra="[runtime]\naudit_rate = 1.0"
    )
    rows = [
        json.dumps({"sentence": text, "label": [LABELS[j] for j in range(3) if i % (j + 2) == 0]})
        for i, text in enumerate(TEXTS)
    ]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    config.write_text(config.read_text().replace("rows.tsv", "rows.jsonl"))
    built = build(config, folder / "repository")
    with serving(built.repository) as server:
        yield Case(built, config, tuple(members.values()), server)


def command(*arguments: str) -> str:
    """The output of a command of the client."""
    ended = subprocess.run(
        [sys.executable, "-m", "cascadebert_client.cli", *arguments],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return ended.stdout


async def test_every_row_gets_the_set_and_exit_stage_of_the_evaluation(case: Case) -> None:
    policy = case.built.policy
    assert policy.task == MULTI_LABEL
    assert {stage.signal for stage in policy.stages} == {LEAST_SURE}
    outcome = simulate(policy, case.built.logits())
    assert {len(json.loads(text)) for text in labels_of(policy, outcome)} >= {0, 1, 2}
    confidences = outcome.stage_confidence[:, 0]
    assert np.ptp(confidences) > 0.05, "the members are too unsure of everything to test a gate"
    thresholds = [None, float(np.quantile(confidences, 0.7)), 0.0]
    await check_congruence(case.server.url, case.built, thresholds)
    check_tie(case.server.url, case.built)


def test_score_gives_the_answers_of_the_evaluation(case: Case, tmp_path: Path) -> None:
    check_score(case.built, tmp_path)


def test_the_answers_are_those_of_the_checkpoint_in_pytorch(case: Case) -> None:
    policy = case.built.policy
    with CascadeClient(case.server.url, "multi") as client:
        answers = client.classify(TEXTS, stage=1)
    checkpoint = checkpoint_from_source(str(case.members[1]))
    model: Any = checkpoint.model
    tokens = checkpoint.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**{name: tokens[name] for name in checkpoint.inputs}).logits
    expected = torch.sigmoid(logits / policy.stages[1].temperature).numpy()
    columns = [policy.labels.index(label) for label in LABELS]
    served = np.array([answer.probabilities for answer in answers])[:, columns]
    np.testing.assert_allclose(served, expected, atol=1e-4)
    for answer, row in zip(answers, expected, strict=True):
        if np.abs(row - 0.5).min() > 1e-3:
            assert set(answer.labels) == set(np.array(LABELS)[row >= 0.5].tolist())
        assert answer.confidence == pytest.approx(np.maximum(row, 1 - row).min(), abs=1e-4)


def test_the_commands_show_sets(case: Case) -> None:
    target = ("--url", case.server.url, "--model", "multi")
    with CascadeClient(case.server.url, "multi") as client:
        answers = client.classify(TEXTS[:20])
        assert client.status().model.task == MULTI_LABEL
    printed = [
        json.loads(line)
        for line in command("classify", *target, "--json", *TEXTS[:20]).splitlines()
    ]
    assert [line["labels"] for line in printed] == [list(answer.labels) for answer in answers]
    shown = command("classify", *target, *TEXTS[:20]).splitlines()[1:]
    for line, answer in zip(shown, answers, strict=True):
        assert line.startswith(", ".join(answer.labels) or "(no label)")
    assert "multi-label" in command("status", *target)


def test_audits_compare_sets(case: Case) -> None:
    # Rows of the other tests may still be audited.
    agreed, disagreed = settled(lambda: counts_of_audit(case), unchanged_s=1.5)
    with CascadeClient(case.server.url, "multi") as client:
        cascade = client.classify(TEXTS)
        last = client.classify(TEXTS, stage=1)
    differing = sum(a.labels != b.labels for a, b in zip(cascade, last, strict=True))
    assert 0 < differing < len(TEXTS)
    expected = (agreed + len(TEXTS) - differing, disagreed + differing)
    wait_until(lambda: sum(counts_of_audit(case)) >= sum(expected))
    assert counts_of_audit(case) == expected


def counts_of_audit(case: Case) -> tuple[int, int]:
    """How many rows `cascadebert audit` counts as agreeing and as disagreeing."""
    page = MetricsPage(case.server.ports.metrics)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "cascadebert_client.cli", "audit", "--json"),
            *("--url", case.server.url, "--model", "multi", "--metrics-url", page.url),
            *("--max-disagreement", "0.9"),
        ],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    (point,) = json.loads(ended.stdout)["operating_points"]
    return point["counts"]["agreed"], point["counts"]["disagreed"]


def test_evaluate_and_its_report_score_labels(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "evaluate", str(case.config), "--work-dir", str(case.built.steps.workspace.folder),
        "--all-rows",
    ]  # fmt: skip
    report, predictions = tmp_path / "report.html", tmp_path / "rows.jsonl"
    assert main([*arguments, "--report", str(report), "--predictions", str(predictions)]) == 0
    assert "Hamming loss" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["task"] == MULTI_LABEL
    assert len(figures["label_scores"]) == 3
    page = report.read_text()
    assert "Macro F1" in page
    assert "An answer is a set of labels" in page
    assert "no label" in page
    lines = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert {label for line in lines for label in line["labels"]} == set(LABELS)


def test_a_signal_of_single_labels_is_refused(case: Case) -> None:
    config = load_config(case.config)
    wrong = replace(config, tune=replace(config.tune, signal="margin"))
    with pytest.raises(UsageError, match="give least_sure"):
        tune(wrong, work_dir=case.built.steps.workspace.folder)
