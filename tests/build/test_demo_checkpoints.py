"""The demo's untrained members are checkpoints with a tokenizer."""

from __future__ import annotations

from pathlib import Path

from cascadebert_build.checkpoints.checkpoint import checkpoint_from_source
from cascadebert_build.demo.corpus import LABELS, corpus_from_seed
from cascadebert_build.demo.members import RECIPES, save_base_checkpoint

CORPUS = corpus_from_seed(3, train_rows=4000, validation_rows=200, test_rows=200)


def test_base_checkpoints_load_with_their_tokenizer(tmp_path: Path) -> None:
    for recipe in RECIPES:
        save_base_checkpoint(tmp_path / recipe.name, recipe, CORPUS.train)
        checkpoint = checkpoint_from_source(str(tmp_path / recipe.name))
        assert checkpoint.labels == LABELS
        assert checkpoint.max_positions() == recipe.max_length
    small, large = (
        sum(p.numel() for p in checkpoint_from_source(str(tmp_path / r.name)).model.parameters())
        for r in RECIPES
    )
    assert large > 4 * small
