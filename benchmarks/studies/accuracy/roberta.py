"""Train a pair of the RoBERTa family from random weights, tokenizer and all.

    python -m benchmarks.studies.accuracy.roberta --glue GLUE --work WORK

It shows that the code works for a family with byte-level tokens, positions that begin behind the
padding id, and no token types. Its accuracies are those of small models without pretraining.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tools.command import add_number, new_parser, run_command
from cascadebert_build.checkpoints.checkpoint import hide_weight_bars
from cascadebert_build.config.rows import Rows
from cascadebert_build.training.config import TrainConfig
from cascadebert_build.training.glue import TASKS as GLUE

from ..shared import TASKS, add_glue, dev_rows, train_rows
from .plan import DIFFICULTY, FOLDS, LARGE, ROBERTA, SEEDS, Run
from .training import MAX_LENGTH, Place, cross_fit, train_run, use_one_thread, write_run

_TASK = TASKS["sst2"]
_VOCABULARY = 8000
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # with RoBERTa's ids, 0 to 4
_DIFFICULTY_SEEDS = (1,)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's size, and its training from random weights.

    Attributes:
        layers: The number of layers.
        width: The width of the hidden states.
        learning_rate: The peak learning rate.
        epochs: The most epochs.
    """

    layers: int
    width: int
    learning_rate: float
    epochs: int


_SHAPES = {"large": Shape(4, 256, 3e-4, 6), "small": Shape(1, 128, 5e-4, 8)}
_SMALL_LAYERS = _SHAPES["small"].layers


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing."""
    parser = new_parser("studies.accuracy.roberta", __doc__)
    add_glue(parser)
    parser.add_argument("--work", type=Path, required=True, help="results and checkpoints")
    add_number(parser, "--rows", None, "training rows; without it, the sample")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="default: %(default)s")
    parser.add_argument("--precision", default="auto", help="bf16 halves the time if supported")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> None:
    use_one_thread()
    hide_weight_bars()
    work = args.work.resolve()
    place = Place(args.glue.resolve(), work / "bases", work, args.precision)
    rows = train_rows(place.glue, _TASK)
    if args.rows is not None:
        rows = rows.subset(range(min(args.rows, len(rows.texts))))
    started = time.monotonic()
    for run in runs_of([int(seed) for seed in args.seeds.split(",")]):
        done = place.result(run).is_file()
        if not done:
            perform(run, rows, place)
        minutes = (time.monotonic() - started) / 60
        print(f"{minutes:6.1f} min  {run.name}  {'kept' if done else 'done'}", flush=True)


def runs_of(seeds: list[int]) -> list[Run]:
    """Return all runs, each after those that it needs."""
    runs = [Run(ROBERTA, 0, DIFFICULTY, _SMALL_LAYERS)]
    for seed in seeds:
        runs.append(Run(ROBERTA, seed, LARGE))
        runs.append(Run(ROBERTA, seed, "plain", _SMALL_LAYERS))
        runs.append(Run(ROBERTA, seed, "dar", _SMALL_LAYERS))
        runs.append(Run(ROBERTA, seed, "dar", _SMALL_LAYERS, distilled=True))
    return runs


def perform(run: Run, rows: Rows, place: Place) -> None:
    """Train, predict, and write the result. An interrupted run continues from its checkpoint."""
    started = time.monotonic()
    size = "large" if run.kind == LARGE else "small"
    base = base_checkpoint(size, run.seed, rows, place)
    config = _config(run, place)
    if run.kind == DIFFICULTY:
        cross_fit(run, rows, place, started, base=base, config=config, seeds=_DIFFICULTY_SEEDS)
        return
    dev = dev_rows(place.glue, _TASK)
    logits, record = train_run(run, rows, dev, place, base=base, config=config)
    record |= {
        "family": "roberta",
        "from": "random weights",
        "shape": asdict(_SHAPES[size]),
        "vocabulary": _VOCABULARY,
    }
    if run.kind == "dar":
        record["difficulty"] = {"folds": FOLDS, "seeds": list(_DIFFICULTY_SEEDS)}
    truth = dev.label_indices(_TASK.labels)
    write_run(place.result(run), started, record, logits=logits.astype(np.float32), labels=truth)


def _config(run: Run, place: Place) -> TrainConfig:
    shape = _SHAPES["large" if run.kind == LARGE else "small"]
    crossed = run.kind == DIFFICULTY  # its models have no validation rows to stop them
    return TrainConfig(
        epochs=shape.epochs // 2 if crossed else shape.epochs,
        learning_rate=shape.learning_rate,
        patience=0 if crossed else 2,
        max_length=MAX_LENGTH,
        precision=place.precision,
        seed=run.seed,
        objective="dar" if run.kind == "dar" else "plain",
        metric=GLUE[_TASK.name].metric,
    )


def base_checkpoint(size: str, seed: int, rows: Rows, place: Place) -> Path:
    """Return a checkpoint with the tokenizer and with random weights drawn by the seed."""
    import transformers

    folder = place.base / f"{size}-seed{seed}"
    if (folder / "model.safetensors").is_file():
        return folder
    tokenizer = _tokenizer(rows, place.base / "tokenizer")
    transformers.set_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_config(
        _model_config(_SHAPES[size], len(tokenizer))
    )
    tokenizer.save_pretrained(str(folder))
    model.save_pretrained(str(folder))
    return folder


def _model_config(shape: Shape, vocabulary: int) -> Any:
    import transformers

    return transformers.RobertaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // 64,
        intermediate_size=4 * shape.width,
        max_position_embeddings=MAX_LENGTH + 2,  # positions begin after the padding id
        type_vocab_size=1,
        pad_token_id=_SPECIAL.index("<pad>"),
        bos_token_id=_SPECIAL.index("<s>"),
        eos_token_id=_SPECIAL.index("</s>"),
    )


def _tokenizer(rows: Rows, folder: Path) -> Any:
    """Train byte-level BPE on the training texts, and load it as the family's tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer

    if not (folder / "config.json").is_file():
        rust = Tokenizer(models.BPE())
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=_VOCABULARY,
            min_frequency=2,
            show_progress=False,
            special_tokens=_SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        rust.train_from_iterator([str(text) for text in rows.texts], trainer)
        folder.mkdir(parents=True, exist_ok=True)
        rust.model.save(str(folder))
        # AutoTokenizer reads the family from this file, which is written last.
        _model_config(_SHAPES["large"], rust.get_vocab_size()).save_pretrained(str(folder))
    return AutoTokenizer.from_pretrained(str(folder), model_max_length=MAX_LENGTH)


if __name__ == "__main__":
    sys.exit(main())
