"""Early exits and cascades that run for real answer as the walk over all logits says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.studies.accuracy.budgets import cascade_curve
from benchmarks.studies.early_exit.deebert import train_deebert, train_logits
from benchmarks.studies.early_exit.exit_curves import entropies, exits_by_entropy, exits_by_patience
from benchmarks.studies.early_exit.pabee import pabee_model, train_pabee
from benchmarks.studies.early_exit.run_exits import (
    Batch,
    EntropyRule,
    PatienceRule,
    run_cascade,
    run_member,
    run_with_exits,
)
from cascadebert_build.config.rows import Rows
from cascadebert_build.training.config import TrainConfig
from tests.support.checkpoints import MOODS, TOPICS, save_checkpoint

GOOD = set(MOODS[::2])
TEXTS = tuple(
    f"the {topic} was {mood}" + " indeed" * (i % 4)
    for i, (topic, mood) in enumerate((t, m) for t in TOPICS for m in MOODS)
)
ROWS = Rows(TEXTS, tuple("good" if any(m in t for m in GOOD) else "bad" for t in TEXTS), "test")
LABELS = ("bad", "good")


def batches_of(base: Path, indices: list[int], size: int = 7) -> list[Batch]:
    tokenizer = AutoTokenizer.from_pretrained(base)
    return [
        (part, dict(tokenizer([TEXTS[i] for i in part], padding=True, return_tensors="pt")))
        for part in (indices[i : i + size] for i in range(0, len(indices), size))
    ]


@pytest.fixture(scope="module")
def exits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[Any], np.ndarray]:
    """A PABEE with three layers, its exits, and all their logits."""
    folder = tmp_path_factory.mktemp("pabee")
    base = save_checkpoint(folder / "base", num_hidden_layers=3)
    config = TrainConfig(epochs=2, learning_rate=3e-3, max_length=24, seed=1)
    logits, record = train_pabee(base, ROWS, ROWS, LABELS, output=folder / "out", config=config)
    assert len(record["accuracies"]) == 2
    model = pabee_model(base, 2)
    model.load_state_dict(torch.load(folder / "out" / "model.pt", weights_only=True))
    model.eval()
    heads = [lambda h, head=head: head(h[:, 0]) for head in model.heads]
    return base, model.bert, heads, logits


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_patience(exits: tuple[Path, Any, list[Any], np.ndarray], patience: int) -> None:
    base, bert, heads, logits = exits
    assert logits.shape == (len(TEXTS), 3, 2)
    with torch.inference_mode():
        found = run_with_exits(
            bert, heads, PatienceRule(patience), batches_of(base, list(range(len(TEXTS)))),
            len(TEXTS),
        )  # fmt: skip
    left = exits_by_patience(logits, patience)
    expected = logits.argmax(-1)[np.arange(len(TEXTS)), left]
    assert (found == expected).mean() > 0.98


def test_entropy(exits: tuple[Path, Any, list[Any], np.ndarray]) -> None:
    base, bert, heads, logits = exits
    threshold = float(np.median(entropies(logits)[:, 0]))
    left = exits_by_entropy(logits, threshold)
    assert 0.4 < (left == 0).mean() < 0.6
    with torch.inference_mode():
        found = run_with_exits(
            bert, heads, EntropyRule(threshold), batches_of(base, list(range(len(TEXTS)))),
            len(TEXTS),
        )  # fmt: skip
    assert (found == logits.argmax(-1)[np.arange(len(TEXTS)), left]).mean() > 0.98


def test_layers_below_an_exit_are_not_run(
    exits: tuple[Path, Any, list[Any], np.ndarray],
) -> None:
    base, bert, heads, _ = exits
    rows_of_layer = [0, 0, 0]

    def counted(i: int) -> Any:
        def exit_(hidden: torch.Tensor) -> torch.Tensor:
            rows_of_layer[i] += len(hidden)
            return heads[i](hidden)

        return exit_

    with torch.inference_mode():
        run_with_exits(
            bert, [counted(i) for i in range(3)], EntropyRule(np.inf),
            batches_of(base, list(range(20))), len(TEXTS),
        )  # fmt: skip
    assert rows_of_layer == [20, 0, 0]


@pytest.mark.parametrize("family", ["bert", "roberta"])  # the pooler is elsewhere in the second
def test_deebert_learns_its_exits_and_keeps_the_backbone(family: str, tmp_path: Path) -> None:
    large = save_checkpoint(tmp_path / "large", family, num_hidden_layers=3, labels=["good", "bad"])
    logits = train_deebert(large, ROWS, ROWS, LABELS, tmp_path / "exits", seed=1, max_length=24)
    assert logits.shape == (len(TEXTS), 3, 2)
    model = AutoModelForSequenceClassification.from_pretrained(large).eval()
    with torch.inference_mode():
        own = run_member(model, batches_of(large, list(range(len(TEXTS)))), len(TEXTS))
    # The last exit is the large member itself, its columns in the order that was asked for.
    np.testing.assert_allclose(logits[:, -1], own[:, [1, 0]], atol=1e-5)
    np.testing.assert_allclose(train_logits(tmp_path / "exits"), own[:, [1, 0]], atol=1e-5)
    truth = np.array([LABELS.index(str(label)) for label in ROWS.labels or ()])
    assert (logits[:, 0].argmax(1) == truth).mean() > 0.65  # of a random backbone; half is chance


def test_the_cascade(tmp_path: Path) -> None:
    small = save_checkpoint(tmp_path / "small", num_hidden_layers=1, seed=1)
    large = save_checkpoint(tmp_path / "large", num_hidden_layers=3, seed=2)
    models = [
        AutoModelForSequenceClassification.from_pretrained(path).eval() for path in (small, large)
    ]
    everything = batches_of(small, list(range(len(TEXTS))))
    with torch.inference_mode():
        of_small, of_large = (run_member(m, everything, len(TEXTS)) for m in models)
        curve = cascade_curve(of_small, of_large, 1, 3)
        at = len(curve.settings) // 2
        asked: list[int] = []

        def batch_of(indices: list[int]) -> list[Batch]:
            asked.extend(indices)
            return batches_of(large, indices)

        found = run_cascade(
            models[0], models[1], float(curve.settings[at]),
            batches=everything, batch_of=batch_of, n=len(TEXTS),
        )  # fmt: skip
    np.testing.assert_array_equal(found, curve.predicted[at])
    assert sorted(asked) == np.flatnonzero(curve.layers_of_rows[at] > 1).tolist()
