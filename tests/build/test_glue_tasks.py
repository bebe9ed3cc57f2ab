"""GLUE's tasks: metrics against their definitions, and rows from files in GLUE's format."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from cascadebert_build.cli import main, parser
from cascadebert_build.commands.train import labels_of, rows_of
from cascadebert_build.errors import UsageError
from cascadebert_build.training.glue import METRICS, TASKS, accuracy, f1, matthews
from tests.support.checkpoints import MOODS, TOPICS, save_checkpoint

PREDICTED = np.array([1, 1, 0, 0, 1, 0, 1])
LABELS = np.array([1, 0, 0, 1, 1, 0, 1])


def test_metrics() -> None:
    tp, fp, fn, tn = 3, 1, 1, 2
    assert accuracy(PREDICTED, LABELS) == pytest.approx((tp + tn) / 7)
    assert f1(PREDICTED, LABELS) == pytest.approx(2 * tp / (2 * tp + fp + fn))
    root = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert matthews(PREDICTED, LABELS) == pytest.approx((tp * tn - fp * fn) / root)
    assert matthews(LABELS, LABELS) == pytest.approx(1)
    zeros = np.zeros(4, dtype=int)
    assert (f1(zeros, zeros), matthews(zeros, np.array([0, 1, 0, 1]))) == (0, 0)


def test_there_are_eight_tasks() -> None:
    assert len(TASKS) == 8
    assert {task.metric for task in TASKS.values()} <= set(METRICS)
    assert TASKS["mrpc"].metric == TASKS["qqp"].metric == "f1"
    assert TASKS["cola"].metric == "matthews"


def arguments(*words: str) -> argparse.Namespace:
    return parser().parse_args(["train", *words, "--base", "b", "--output", "o"])


def test_a_file_of_glue_is_read_by_its_own_columns(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text(
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t5\t6\ta b\tc d\n0\t7\t8\te\tf\n"
    )
    args = arguments(str(path), "--task", "mrpc")
    rows = rows_of(args, str(path), "train")
    assert rows.texts == (("a b", "c d"), ("e", "f"))
    names = labels_of(args)
    assert names == ["not_equivalent", "equivalent"]
    assert rows.label_indices(names or []).tolist() == [1, 0]
    other = arguments(str(path), "--task", "mrpc", "--text", "#1 ID")
    assert rows_of(other, str(path), "train").texts[0] == ("5", "c d")


def test_colas_file_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("gj04\t1\t\tthey drank the pub .\n")
    with pytest.raises(UsageError, match=r"GLUE's file of cola has no header: .*nyu-mll/glue"):
        rows_of(arguments(str(path), "--task", "cola"), str(path), "train")


def test_a_task_trains_by_its_own_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(save_checkpoint(tmp_path / "base"))
    path = tmp_path / "train.tsv"
    lines = ["id\tquestion1\tquestion2\tis_duplicate"]
    lines += [f"{i}\t{t}\t{m}\t{i % 2}" for t in TOPICS for i, m in enumerate(MOODS)]
    path.write_text("\n".join(lines) + "\n")
    out = str(tmp_path / "out")
    command = ["train", str(path), "--task", "qqp", "--base", base, "--output", out]
    assert main([*command, "--epochs", "1", "--max-length", "16"]) == 0
    assert f"{out}: validation f1 " in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Labels: not_duplicate, duplicate." in card
    assert "| validation | f1 " in card
