"""Difficulty by cross-fitting: out-of-fold only, resumable, and refused for other rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascadebert_build.cli import main
from cascadebert_build.config.rows import Rows
from cascadebert_build.errors import UsageError
from cascadebert_build.training import difficulty
from cascadebert_build.training.config import TrainConfig
from cascadebert_build.training.difficulty import (
    Difficulty,
    difficulty_from_file,
    folds_of_rows,
    label_difficulty,
)
from cascadebert_build.training.member import TrainResult
from tests.support.checkpoints import MOODS, TOPICS, save_checkpoint

GOOD = set(MOODS[::2])
TEXTS = tuple(f"the {topic} was {mood}" for topic in TOPICS for mood in MOODS)
TRUE = tuple("good" if mood in GOOD else "bad" for _ in TOPICS for mood in MOODS)
# One topic is labelled the other way: rows of it that no other row explains.
FLIPPED = [text.startswith("the hotel") for text in TEXTS]
LABELS = tuple(
    ("bad" if label == "good" else "good") if flipped else label
    for label, flipped in zip(TRUE, FLIPPED, strict=True)
)
ROWS = Rows(TEXTS, LABELS, "test")


def test_folds_part_the_rows_and_keep_equal_texts_together() -> None:
    texts = tuple(f"t{i % 60}" for i in range(100))
    rows = Rows(texts, tuple(int(t[1:]) % 2 for t in texts), "test")
    targets = np.array(rows.labels)
    for seed in range(5):
        folds = folds_of_rows(rows, targets, 4, seed)
        assert set(folds) == {0, 1, 2, 3}
        for text in set(texts):
            assert len({folds[i] for i, t in enumerate(texts) if t == text}) == 1
        for fold in range(4):
            assert set(targets[folds == fold]) == {0, 1}
    assert (folds_of_rows(rows, targets, 4, 0) != folds_of_rows(rows, targets, 4, 1)).any()


def test_rows_against_the_rule_are_hard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that counts labels by mood is wrong only on rows of the flipped topic."""
    votes: dict[str, Counter[str]] = {}

    def train(rows: Rows, _: str, output: Path, *__: Any, **___: Any) -> TrainResult:
        votes.clear()
        for text, label in zip(rows.texts, rows.labels or (), strict=True):
            votes.setdefault(str(text).split()[-1], Counter())[str(label)] += 1
        return TrainResult((1.0,), 1.0, "accuracy", 1.0, len(rows.texts), 1, 1.0)

    def predict(_: str, texts: list[str], names: tuple[str, ...], *__: Any) -> Any:
        chosen = [votes[text.split()[-1]].most_common(1)[0][0] for text in texts]
        return np.array([[name == label for name in names] for label in chosen], dtype=np.float32)

    monkeypatch.setattr(difficulty, "train_member", train)
    monkeypatch.setattr(difficulty, "logits_of_checkpoint", predict)
    base = str(save_checkpoint(tmp_path / "base"))
    found = label_difficulty(ROWS, base, tmp_path / "parts", TrainConfig(), folds=5)
    assert found.predictions == 3
    np.testing.assert_array_equal(found.hard, FLIPPED)
    found.write(tmp_path / "d.json")
    read = difficulty_from_file(tmp_path / "d.json", ROWS)
    np.testing.assert_array_equal(read.wrong, found.wrong)
    assert read.protocol["folds"] == 5


def test_no_training_sees_the_rows_that_it_judges_and_none_is_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    judged: list[set[str]] = []

    def train(rows: Rows, *_: Any, **__: Any) -> TrainResult:
        if len(seen) == 3:  # the machine goes away
            raise KeyboardInterrupt
        seen.append({str(text) for text in rows.texts})
        return TrainResult((1.0,), 1.0, "accuracy", 1.0, len(rows.texts), 1, 1.0)

    def predict(_: str, texts: list[str], *__: Any) -> Any:
        judged.append(set(texts))
        return np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (len(texts), 1))

    monkeypatch.setattr(difficulty, "train_member", train)
    monkeypatch.setattr(difficulty, "logits_of_checkpoint", predict)
    base = str(save_checkpoint(tmp_path / "base"))
    arguments: Any = (ROWS, base, tmp_path / "parts", TrainConfig())
    with pytest.raises(KeyboardInterrupt):
        label_difficulty(*arguments, folds=2, seeds=(1, 2))
    assert len(judged) == 3
    first = list(judged)
    seen.clear()
    found = label_difficulty(*arguments, folds=2, seeds=(1, 2))
    assert len(seen) == 1  # the fourth of four
    for trained, asked in zip(seen, judged[3:], strict=True):
        assert not trained & asked
        assert trained | asked == set(TEXTS)
    assert judged[:3] == first
    # All predictions are "bad", so rows of the other label are always wrong.
    np.testing.assert_array_equal(found.wrong == 2, np.array(LABELS) == "good")


def test_another_seed_trains_no_old_one_again_and_other_settings_use_no_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[Path, int, float]] = []
    stop = False

    def train(_: Rows, __: str, output: Path, config: TrainConfig, **___: Any) -> TrainResult:
        output.mkdir(parents=True)
        (output / "training.json").touch()
        trained.append((output, config.seed, config.epochs))
        return TrainResult((1.0,), 1.0, "accuracy", 1.0, 1, 1, 1.0)

    def predict(_: str, texts: list[str], *__: Any) -> Any:
        if stop:
            raise KeyboardInterrupt
        return np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (len(texts), 1))

    monkeypatch.setattr(difficulty, "train_member", train)
    monkeypatch.setattr(difficulty, "logits_of_checkpoint", predict)
    base = str(save_checkpoint(tmp_path / "base"))

    def label(epochs: int, *seeds: int) -> None:
        config = TrainConfig(epochs=epochs)
        label_difficulty(ROWS, base, tmp_path / "parts", config, folds=2, seeds=seeds)

    label(1, 1)
    label(1, 1, 2)
    assert [seed for _, seed, _ in trained] == [1, 1, 2, 2]
    stop = True  # the model is there, and its predictions are not
    with pytest.raises(KeyboardInterrupt):
        label(2, 1)
    stop = False
    trained.clear()
    label(3, 1)
    assert [epochs for _, _, epochs in trained] == [3, 3]
    trained.clear()
    label(2, 1)
    assert len(trained) == 1  # the model that was there predicts


def test_difficulty_of_other_rows_is_refused(tmp_path: Path) -> None:
    n = len(TEXTS)
    Difficulty(ROWS.sha256(), {}, np.zeros(n, np.int64), 3).write(tmp_path / "d.json")
    other = Rows(TEXTS[::-1], LABELS, "other.tsv")
    with pytest.raises(UsageError, match=r"belongs to other rows than other\.tsv"):
        difficulty_from_file(tmp_path / "d.json", other)
    with pytest.raises(UsageError, match="run `cascadebert difficulty`"):
        difficulty_from_file(tmp_path / "none.json", ROWS)


def test_too_few_rows_for_the_folds() -> None:
    rows = Rows(("a", "b", "c", "c"), (0, 1, 1, 1), "few.tsv")
    with pytest.raises(
        UsageError, match=r"few.tsv, row 1: its label 0 has 1 distinct text, too few"
    ):
        folds_of_rows(rows, np.array(rows.labels), 2, 0)
    with pytest.raises(UsageError, match="give 2 or more"):
        folds_of_rows(rows, np.array(rows.labels), 1, 0)


def test_the_commands_from_rows_to_a_member_trained_with_dar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(save_checkpoint(tmp_path / "base", labels=("bad", "good")))
    teacher = str(save_checkpoint(tmp_path / "teacher", labels=("bad", "good"), seed=1))
    data = tmp_path / "rows.tsv"
    lines = [f"{text}\t{label}" for text, label in zip(TEXTS, LABELS, strict=True)]
    data.write_text("\n".join(["text\tlabel", *lines]) + "\n")
    train = ["--base", base, "--max-length", "16", "--epochs", "1"]
    dar = ["--output", str(tmp_path / "no"), "--objective", "dar"]
    assert main(["train", str(data), *train, *dar]) == 2
    assert "run `cascadebert difficulty`" in capsys.readouterr().err
    command = ["difficulty", str(data), *train, "--folds", "2", "--seeds", "1,2"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "100 rows" in text
    assert "bad" in text
    # One epoch from random weights teaches nothing, and a label is on half of the rows.
    assert "WARNING: the fold models are too weak to judge" in text
    raw = json.loads((tmp_path / "rows.tsv.difficulty.json").read_text())
    assert len(raw["wrong"]) == 100
    assert raw["protocol"]["seeds"] == [1, 2]
    arguments = ["train", str(data), *train, "--output", str(tmp_path / "member"), "--objective"]
    assert main([*arguments, "dar", "--margin", "0.3", "--teacher", teacher]) == 0
    assert "too weak to judge" in capsys.readouterr().err
    assert main([*command, "--json"]) == 0  # all predictions are kept
    found = json.loads(capsys.readouterr().out)
    assert found["too_weak"] is True
    assert found["warning"]
    assert found["hard"] == sum(2 * count > 2 for count in raw["wrong"])
    record = json.loads((tmp_path / "member" / "training.json").read_text())
    assert record["config"]["objective"] == "dar"
    assert record["config"]["constants"]["margin"] == 0.3
    assert main([*command[:-1], "1,1"]) == 2
    assert "give distinct whole numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("odd", "more", "message"),
    [
        (
            "",
            [],
            "DATA:22: its label 'odd' has 1 distinct text, too few for 2 folds: give fewer folds, "
            "or more rows of the label",
        ),
        (
            "",
            ["--text", "words"],
            "DATA:1: no column named 'words', but 'text', 'label': name the ",
        ),
        ("", ["--labels", "bad,good"], "DATA:22: the label 'odd' is none of bad, good (or 0 to 1)"),
        ("\n \tgood", [], "DATA:23: 'text' is only white space: leave the row out"),
        ("\nodd too\todd", ["--layers", "0,7"], "layers [0, 7]: give distinct numbers from 0 to 1"),
        ("\nodd too\todd", ["--precision", "int8"], "unknown precision 'int8'"),
    ],
)
def test_what_cannot_be_cross_fitted(
    odd: str,
    more: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command fails before it trains, and writes nothing."""
    base = str(save_checkpoint(tmp_path / "base"))
    data = tmp_path / "rows.tsv"
    lines = [f"{text}\t{label}" for text, label in zip(TEXTS[:20], TRUE, strict=False)]
    data.write_text("\n".join(["text\tlabel", *lines, f"odd\todd{odd}"]) + "\n")
    command = ["difficulty", str(data), "--base", base, "--folds", "2", "--max-length", "16"]
    assert main([*command, *more]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cascade")]
    assert len(told) == 1
    assert told[0].startswith(
        f"cascadebert difficulty: error: {message.replace('DATA', str(data))}"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "rows.tsv"]


def test_some_layers_of_the_base_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depths: list[int] = []
    judged = difficulty.logits_of_checkpoint

    def predict(source: str, *args: Any) -> Any:
        depths.append(json.loads((Path(source) / "config.json").read_text())["num_hidden_layers"])
        return judged(source, *args)

    monkeypatch.setattr(difficulty, "logits_of_checkpoint", predict)
    base = str(save_checkpoint(tmp_path / "base", num_hidden_layers=3))
    data = tmp_path / "rows.tsv"
    lines = [f"{text}\t{label}" for text, label in zip(TEXTS, LABELS, strict=True)]
    data.write_text("\n".join(["text\tlabel", *lines]) + "\n")
    command = ["difficulty", str(data), "--base", base, "--folds", "2", "--seeds", "1"]
    command += ["--max-length", "16", "--epochs", "1", "--output", str(tmp_path / "d.json")]
    assert main([*command, "--layers", "2"]) == 0
    assert depths == [1, 1]
    assert json.loads((tmp_path / "d.json").read_text())["protocol"]["layers"] == [2]
    # Predictions of models with other layers are not used again.
    assert main([*command, "--layers", "0,1"]) == 0
    assert depths == [1, 1, 2, 2]
