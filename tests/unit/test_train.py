"""Fine-tuning of one member: it learns, keeps its best epoch, and refuses what it cannot use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cascadebert_build import objectives, train
from cascadebert_build.checkpoint import checkpoint_from_source
from cascadebert_build.cli import main
from cascadebert_build.data import Rows
from cascadebert_build.errors import UsageError
from cascadebert_build.train import TrainConfig, split_rows, train_member
from tests.support.checkpoints import MOODS, TOPICS, save_checkpoint

GOOD = set(MOODS[::2])
ROWS = Rows(
    tuple(f"the {topic} was {mood}" for topic in TOPICS for mood in MOODS) * 4,
    tuple("good" if mood in GOOD else "bad" for _ in TOPICS for mood in MOODS) * 4,
    "test",
)


def test_a_member_learns_and_its_best_epoch_is_kept(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", labels=["x", "y"])
    config = TrainConfig(epochs=4, learning_rate=3e-3, batch_size=32, max_length=16, seed=1)
    result = train_member(ROWS, str(base), tmp_path / "out", config)
    assert result.best_accuracy > 0.9
    assert result.best_accuracy == max(result.accuracies)
    assert (result.train_rows, result.validation_rows) == (360, 40)
    checkpoint = checkpoint_from_source(str(tmp_path / "out"))
    assert checkpoint.labels == ("bad", "good")
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["data_sha256"]
    assert record["config"]["learning_rate"] == 3e-3
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| objective | plain |" in card
    assert f"accuracy {result.best_accuracy:.4f}, 40 rows, which chose the weights" in card
    tokens = checkpoint.tokenizer("the film was superb", return_tensors="pt")
    with torch.no_grad():
        logits = checkpoint.model(**tokens).logits[0]
    assert checkpoint.labels[int(logits.argmax())] == ("good" if "superb" in GOOD else "bad")


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_the_objective_gets_what_it_needs_in_every_batch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[objectives.Targets] = []
    made = objectives.objective_from_name

    def watched(*args: Any, **kwargs: Any) -> objectives.Objective:
        objective = made(*args, **kwargs)

        def loss(logits: torch.Tensor, targets: objectives.Targets) -> torch.Tensor:
            assert logits.shape == (len(targets.labels), 2)
            seen.append(targets)
            return objective(logits, targets)

        return loss

    monkeypatch.setattr(train, "objective_from_name", watched)
    base = save_checkpoint(tmp_path / "base")
    # The teacher's labels stand in another order, and its logits are brought into the data's.
    teacher = save_checkpoint(tmp_path / "teacher", labels=("good", "bad"), seed=1)
    config = TrainConfig(epochs=1, max_length=16, objective=name)
    hard = np.arange(len(ROWS.texts)) % 8 == 0
    train_member(ROWS, str(base), tmp_path / "out", config, hard=hard, teacher=str(teacher))
    assert {len(targets.labels) for targets in seen} == {32, 360 % 32}
    for targets in seen[:-1]:
        assert targets.hard is not None
        assert 1 <= int(targets.hard.sum()) <= 8
    assert sum(int(t.hard.sum()) for t in seen if t.hard is not None) == pytest.approx(45, abs=12)
    model = checkpoint_from_source(str(teacher))
    texts = [str(text) for text in ROWS.texts]
    tokens = model.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        in_order_of_data = model.model(**tokens).logits[:, [1, 0]]
    expected = {tuple(row) for row in in_order_of_data.round(decimals=3).tolist()}
    for targets in seen:
        assert targets.teacher_logits is not None
        got = {tuple(row) for row in targets.teacher_logits.round(decimals=3).tolist()}
        assert len(got & expected) >= 0.9 * len(got)


def test_dar_without_difficulty_is_refused(tmp_path: Path) -> None:
    base = str(save_checkpoint(tmp_path / "base"))
    with pytest.raises(UsageError, match="run `cascadebert difficulty`"):
        train_member(ROWS, base, tmp_path / "o", TrainConfig(objective="dar"))
    other = str(save_checkpoint(tmp_path / "other", labels=("x", "y")))
    with pytest.raises(UsageError, match="they must agree as a set"):
        train_member(ROWS, base, tmp_path / "o", TrainConfig(max_length=16), teacher=other)


def test_splits_are_disjoint_seeded_and_complete() -> None:
    rows = Rows(tuple(f"t{i}" for i in range(50)), tuple(range(50)), "test")
    first, second = split_rows(rows, 0.2, seed=3)
    assert (len(first.texts), len(second.texts)) == (40, 10)
    assert set(first.texts) | set(second.texts) == set(rows.texts)
    assert split_rows(rows, 0.2, seed=3) == (first, second)
    assert split_rows(rows, 0.2, seed=4) != (first, second)
    assert all(
        text == f"t{label}" for text, label in zip(second.texts, second.labels or (), strict=True)
    )


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    base = str(save_checkpoint(tmp_path / "base"))
    full = tmp_path / "full"
    full.mkdir()
    (full / "kept.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        train_member(ROWS, base, full, TrainConfig())
    assert (full / "kept.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="unknown objective 'magic'"):
        train_member(ROWS, base, tmp_path / "o", TrainConfig(objective="magic"))
    with pytest.raises(UsageError, match="has no labels"):
        train_member(Rows(("a",), None, "test"), base, tmp_path / "o", TrainConfig())
    with pytest.raises(UsageError, match="nothing to learn"):
        train_member(Rows(("a",) * 20, (0,) * 20, "t"), base, tmp_path / "o", TrainConfig())
    with pytest.raises(UsageError, match="too few to hold some out"):
        train_member(Rows(("a", "b"), ("x", "y"), "t"), base, tmp_path / "o", TrainConfig())
    with pytest.raises(UsageError, match="does not exist"):
        train_member(ROWS, str(tmp_path / "none"), tmp_path / "o", TrainConfig())


def test_the_command_ends_with_2_for_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(tmp_path / "no.tsv"), "--base", "x", "--output", "y"]) == 2
    assert "no.tsv does not exist" in capsys.readouterr().err
