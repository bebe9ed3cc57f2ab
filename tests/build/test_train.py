"""Fine-tuning of one member: it learns, keeps its best epoch, and refuses unusable input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source, tokenizer_from_source
from cascadebert_build.cli import main
from cascadebert_build.config.rows import Rows
from cascadebert_build.errors import UsageError
from cascadebert_build.training import member as train
from cascadebert_build.training import objectives
from cascadebert_build.training.config import TrainConfig
from cascadebert_build.training.items import encoded_items, truncation_of_items
from cascadebert_build.training.member import train_member
from cascadebert_build.training.parts import split_indices, split_rows
from tests.support.checkpoints import MOODS, TOPICS, save_checkpoint

GOOD = set(MOODS[::2])
ROWS = Rows(
    tuple(f"the {topic} was {mood}" for topic in TOPICS for mood in MOODS) * 4,
    tuple("good" if mood in GOOD else "bad" for _ in TOPICS for mood in MOODS) * 4,
    "test",
)


@pytest.mark.parametrize("pairs", [False, True])
def test_rows_that_a_training_cuts_are_counted(tmp_path: Path, *, pairs: bool) -> None:
    tokenizer = tokenizer_from_source(str(save_checkpoint(tmp_path / "base")))
    lengths = [1, 5, 6, 7, 20, 3000]
    texts = tuple(("good",) * pairs + (" ".join(["film"] * n),) for n in lengths)
    rows = Rows(tuple(t if pairs else t[0] for t in texts), ("x", "y") * 3, "test")  # pyright: ignore[reportArgumentType]
    special = 4 if pairs else 2  # with the first text of a pair
    items = encoded_items(rows, ("x", "y"), tokenizer, 6 + special)
    found = truncation_of_items(rows, items, tokenizer, 6 + special, "small")
    assert (found.rows, found.cut, found.longest) == (6, 3, 3000 + special)
    assert max(len(item["input_ids"]) for item in items) == 6 + special


def test_a_member_learns_and_its_best_epoch_is_kept(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", labels=["x", "y"])
    config = TrainConfig(epochs=4, learning_rate=3e-3, batch_size=32, max_length=16, seed=1)
    result = train_member(ROWS, str(base), tmp_path / "out", config)
    assert result.best_accuracy > 0.9
    assert result.best_accuracy == max(result.accuracies)
    assert (result.train_rows, result.validation_rows) == (360, 40)
    assert result.rows_per_s > 0
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
    # The teacher has another order of labels; its logits are reordered to that of the data.
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


def test_known_logits_of_the_teacher_are_taken_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[np.ndarray] = []
    add = train.add_targets
    monkeypatch.setattr(train, "add_targets", lambda *args: (given.append(args[2]), add(*args)))
    base = save_checkpoint(tmp_path / "base")
    known = np.arange(2 * len(ROWS.texts), dtype=np.float32).reshape(-1, 2) / 100
    config = TrainConfig(epochs=1, max_length=16, seed=3)
    train_member(ROWS, str(base), tmp_path / "out", config, teacher=str(base), teacher_logits=known)
    kept, _ = split_indices(ROWS, 0.1, 3)
    np.testing.assert_array_equal(given[0], known[kept])


def test_a_teacher_may_be_its_logits_alone(tmp_path: Path) -> None:
    base = str(save_checkpoint(tmp_path / "base"))
    config = TrainConfig(epochs=2, learning_rate=3e-3, max_length=16, seed=1)
    bad = np.tile(np.array([8.0, -8.0], np.float32), (len(ROWS.texts), 1))  # whatever the text
    means: list[float] = []
    for name, logits in (("plain", None), ("taught", bad)):
        train_member(ROWS, base, tmp_path / name, config, teacher_logits=logits)
        found = checkpoint_from_source(str(tmp_path / name))
        tokens = found.tokenizer([str(t) for t in ROWS.texts], padding=True, return_tensors="pt")
        with torch.no_grad():
            probabilities = found.model(**tokens).logits.softmax(-1)
        means.append(float(probabilities[:, found.labels.index("bad")].mean()))
    assert means[1] > means[0] + 0.1
    record = json.loads((tmp_path / "taught" / "training.json").read_text())
    assert "logits were given" in record["teacher"]
    assert "distilled from" in (tmp_path / "taught" / "README.md").read_text()


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
    with pytest.raises(UsageError, match="have the label 0"):
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


def _spoil(base: Path) -> None:
    path = base / "model.safetensors"
    weights = load_file(path)
    weights["bert.encoder.layer.1.output.dense.weight"][0, 0] = torch.nan
    save_file(weights, path, {"format": "pt"})


def write_data(path: Path, rows: Rows = ROWS) -> Path:
    lines = [f"{text}\t{label}" for text, label in zip(rows.texts, rows.labels or (), strict=True)]
    path.write_text("\n".join(["text\tlabel", *lines]) + "\n")
    return path


def test_a_loss_that_is_no_number_ends_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write_data(tmp_path / "rows.tsv"))
    base = save_checkpoint(tmp_path / "base")
    command = ["train", data, "--base", str(base), "--output", str(tmp_path / "out")]
    command += ["--max-length", "16", "--epochs", "1"]
    assert main([*command, "--learning-rate", "1e30", "--warmup-ratio", "0"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    found = re.fullmatch(
        r"cascadebert train: error: the loss became (nan|inf) at step (\d+) \(rows ([\d, ]+) of .*",
        message,
    )
    assert found is not None, message
    assert 1 < int(found[2]) <= 12
    rows = [int(row) for row in found[3].split(", ")]
    assert rows == sorted(set(rows))
    assert set(rows) <= set(range(1, 401))
    # With one step per epoch the validation meets the broken weights first.
    large = ["--batch-size", "400", "--learning-rate", "1e30", "--warmup-ratio", "0"]
    assert main([*command, *large]) == 2
    assert "the validation's logits are not all finite: give a lower" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(command) == 0  # the remains of a failed training are no obstacle

    _spoil(base)
    assert main([*command, "--output", str(tmp_path / "other")]) == 2
    assert "the loss became nan at step 1 (rows" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_mixed_precision_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model computes in bfloat16; the loss is of float32 logits, and so are the weights."""
    seen: set[tuple[torch.dtype, bool]] = set()
    made = objectives.objective_from_name

    def watched(*args: Any, **kwargs: Any) -> objectives.Objective:
        objective = made(*args, **kwargs)

        def loss(logits: torch.Tensor, targets: objectives.Targets) -> torch.Tensor:
            seen.add((logits.dtype, bool((logits == logits.bfloat16()).all())))
            return objective(logits, targets)

        return loss

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(train, "objective_from_name", watched)
    base = str(save_checkpoint(tmp_path / "base"))
    config = TrainConfig(epochs=4, learning_rate=3e-3, max_length=16, precision="bf16", seed=1)
    assert train_member(ROWS, base, tmp_path / "out", config).best_accuracy > 0.9
    assert seen == {(torch.float32, True)}
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert "| precision | bf16 |" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--precision", "fp16"], "the precision fp16 needs a GPU: give bf16 or fp32"),
        (["--precision", "int8"], "unknown precision 'int8': give one of auto, fp32, bf16, fp16"),
        (["--epochs", "0"], "epochs is 0.0: give a number above 0"),
        (["--batch-size", "0"], "batch_size is 0: give a number above 0"),
        (["--learning-rate", "nan"], "learning_rate is nan: give a number above 0"),
        (["--checkpoint-steps", "-1"], "checkpoint_steps is -1: give 0 or more"),
    ],
)
def test_settings_that_cannot_be(
    more: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    base = str(save_checkpoint(tmp_path / "base"))
    data = str(write_data(tmp_path / "rows.tsv"))
    assert main(["train", data, "--base", base, "--output", str(tmp_path / "out"), *more]) == 2
    assert capsys.readouterr().err == f"cascadebert train: error: {message}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "rows.tsv"]


_GOOD_ROWS = "\n".join(
    f"the film was {mood}\t{'good' if mood in GOOD else 'bad'}" for mood in MOODS
)
_LONG = "good " * 70


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        (
            f"words\tlabel\n{_GOOD_ROWS}",
            ["--text", "text", "--label", "label"],
            "DATA:1: no column named 'text', but 'words', 'label'",
        ),
        (
            f"text\tlabel\n{_GOOD_ROWS}\nso so\tmeh",
            ["--labels", "bad,good"],
            "DATA:12: the label 'meh'",
        ),
        (
            "text\tlabel\n" + "fine\tgood\n" * 20,
            [],
            "DATA: all 20 rows to train on have the label 'good'",
        ),
        (
            "text\tlabel\n" + "fine\tgood\n" * 20,
            ["--labels", "bad,good"],
            "DATA: all 18 rows to train on have the label 'good'",
        ),
        (
            f"text\tlabel\n{_GOOD_ROWS}\n\tgood",
            [],
            "DATA:12: 'text' is empty",
        ),
        (
            f"text\tlabel\n{_GOOD_ROWS}\nfine\t",
            [],
            "DATA:12: 'label' is ''",
        ),
        (
            "text\tlabel\nfine\t1\nflat\t0\nfar\t1000000000",
            [],
            "DATA:4: the label 1000000000 of 3 rows",
        ),
        (
            f"text\tlabel\n{_GOOD_ROWS}\n{_LONG}\tgood",
            [],
            "DATA:12: its 72 tokens are more than the 66 positions",
        ),
        (
            f"text\tlabel\n{_GOOD_ROWS}",
            ["--validation", "VALIDATION"],
            "VALIDATION:3: the label 'meh'",
        ),
    ],
)
def test_data_that_cannot_be_learnt(
    data: str,
    more: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One message with the row and a remedy; no file is written, and none is lost."""
    base = str(save_checkpoint(tmp_path / "base"))
    (tmp_path / "rows.tsv").write_text(data + "\n")
    (tmp_path / "dev.tsv").write_text("text\tlabel\nfine\tgood\nso so\tmeh\n")
    kept = tmp_path / "out.partial" / "checkpoint-1" / "trainer_state.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    (tmp_path / "out.partial" / "training.json").write_text('{"key": "of an earlier training"}')
    files = {"DATA": str(tmp_path / "rows.tsv"), "VALIDATION": str(tmp_path / "dev.tsv")}
    more = [files.get(argument, argument) for argument in more]
    output = tmp_path / "out"
    if "positions" in message:  # found after the base is loaded, behind the check of the folder
        output = tmp_path / "other"
    command = ["train", files["DATA"], "--base", base, "--output", str(output)]
    capsys.readouterr()  # transformers shows a bar when the base is saved
    assert main([*command, *more]) == 2
    for name, path in files.items():
        message = message.replace(name, path)
    problem = capsys.readouterr().err.removeprefix(f"cascadebert train: error: {message}")
    assert re.fullmatch(r".*: \w.*\n", problem), "one line that ends with a remedy"
    assert not output.exists()
    assert kept.read_text() == "{}"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["base", "dev.tsv", "out.partial", "rows.tsv"]


def test_a_label_whose_rows_are_all_held_out(tmp_path: Path) -> None:
    base = str(save_checkpoint(tmp_path / "base"))
    texts = tuple(f"the film was {i}" for i in range(30))
    rows = Rows(texts, ("good",) * 30, "test")
    _, held_out = split_indices(rows, 0.1, seed=0)
    labels = tuple("bad" if i in held_out else "good" for i in range(30))
    with pytest.raises(UsageError, match="test: all 27 rows to train on have the label 'good'"):
        train_member(Rows(texts, labels, "test"), base, tmp_path / "out", TrainConfig())
    assert not (tmp_path / "out.partial").exists()
