"""The path for the RoBERTa family: a pair trained from random weights, tokenizer and all.

It shows that the pieces fit a family with byte-level tokens, positions that begin behind the
padding id and no token types. Its accuracies are those of small models that never saw other text.

python -m benchmarks.studies.accuracy.roberta --glue GLUE --work WORK
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascadebert_build.checkpoints.checkpoint import hide_weight_bars
from cascadebert_build.checkpoints.logits import logits_of_checkpoint
from cascadebert_build.config.rows import Rows
from cascadebert_build.training.config import TrainConfig
from cascadebert_build.training.difficulty import difficulty_from_file, label_difficulty
from cascadebert_build.training.glue import TASKS as GLUE
from cascadebert_build.training.member import train_member

from .plan import DIFFICULTY, FOLDS, LARGE, ROBERTA, SEEDS, TASKS, Run
from .training import MAX_LENGTH, Place, dev_rows, train_rows, use_one_thread, write_run

TASK = TASKS["sst2"]
NAME = ROBERTA  # of the result files, where others have the task's name
LABELS = GLUE[TASK.name].labels
VOCABULARY = 8000
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # with RoBERTa's ids, 0 to 4
_DIFFICULTY_SEEDS = (1,)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's size, and what suits its training from random weights.

    Attributes:
        width: of the hidden states.
        learning_rate: peak.
        epochs: at most.
    """

    layers: int
    width: int
    learning_rate: float
    epochs: int


SHAPES = {"large": Shape(4, 256, 3e-4, 6), "small": Shape(1, 128, 5e-4, 8)}
SMALL_LAYERS = SHAPES["small"].layers


def main() -> int:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--glue", type=Path, required=True, help="folder of GLUE's tsv files")
    parser.add_argument("--work", type=Path, required=True, help="results and checkpoints")
    parser.add_argument("--rows", type=int, metavar="N", help="training rows (default: the sample)")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="default: %(default)s")
    parser.add_argument("--precision", default="auto", help="bf16 halves the time where it can")
    args = parser.parse_args()
    use_one_thread()
    hide_weight_bars()
    work = args.work.resolve()
    place = Place(args.glue.resolve(), work / "bases", work, args.precision)
    rows = train_rows(place, TASK)
    if args.rows is not None:
        rows = rows.subset(range(min(args.rows, len(rows.texts))))
    started = time.monotonic()
    for run in runs_of([int(seed) for seed in args.seeds.split(",")]):
        done = place.result(run).is_file()
        if not done:
            perform(run, rows, place)
        minutes = (time.monotonic() - started) / 60
        print(f"{minutes:6.1f} min  {run.name}  {'kept' if done else 'done'}", flush=True)
    return 0


def runs_of(seeds: list[int]) -> list[Run]:
    """All runs, each behind those that it needs."""
    runs = [Run(NAME, 0, DIFFICULTY, SMALL_LAYERS)]
    for seed in seeds:
        runs.append(Run(NAME, seed, LARGE))
        runs.append(Run(NAME, seed, "plain", SMALL_LAYERS))
        runs.append(Run(NAME, seed, "dar", SMALL_LAYERS))
        runs.append(Run(NAME, seed, "dar", SMALL_LAYERS, distilled=True))
    return runs


def perform(run: Run, rows: Rows, place: Place) -> None:
    """Train, predict, write the result. What is interrupted goes on from its last checkpoint."""
    started = time.monotonic()
    size = "large" if run.kind == LARGE else "small"
    base = base_checkpoint(size, run.seed, rows, place)
    if run.kind == DIFFICULTY:
        path = place.difficulty(run)
        difficulty = label_difficulty(
            rows,
            str(base),
            path.with_name(f"{path.name}.parts"),
            config_of(run, place),
            folds=FOLDS,
            seeds=_DIFFICULTY_SEEDS,
            labels=LABELS,
        )
        difficulty.write(path)
        record = {"hard": float(difficulty.hard.mean()), "protocol": difficulty.protocol}
        write_run(place.result(run), started, record, wrong=difficulty.wrong)
        return
    output = place.checkpoint(run)
    if not (output / "training.json").is_file():
        train_member(
            rows,
            str(base),
            output,
            config_of(run, place),
            labels=LABELS,
            hard=difficulty_from_file(place.difficulty(run), rows).hard
            if run.kind == "dar"
            else None,
            teacher=str(place.checkpoint(Run(NAME, run.seed, LARGE))) if run.distilled else None,
        )
    dev = dev_rows(place, TASK)
    logits = logits_of_checkpoint(str(output), dev.texts, LABELS, MAX_LENGTH, run.name)
    record = json.loads((output / "training.json").read_text()) | {
        "family": "roberta",
        "from": "random weights",
        "shape": asdict(SHAPES[size]),
        "vocabulary": VOCABULARY,
    }
    if run.kind == "dar":
        record["difficulty"] = {"folds": FOLDS, "seeds": list(_DIFFICULTY_SEEDS)}
    truth = dev.label_indices(LABELS)
    write_run(place.result(run), started, record, logits=logits.astype(np.float32), labels=truth)


def config_of(run: Run, place: Place) -> TrainConfig:
    """Hyperparameters of a run; the models of the cross-fitting have no validation to stop them."""
    shape = SHAPES["large" if run.kind == LARGE else "small"]
    crossed = run.kind == DIFFICULTY
    return TrainConfig(
        epochs=shape.epochs // 2 if crossed else shape.epochs,
        learning_rate=shape.learning_rate,
        patience=0 if crossed else 2,
        max_length=MAX_LENGTH,
        precision=place.precision,
        seed=run.seed,
        objective="dar" if run.kind == "dar" else "plain",
        metric=GLUE[TASK.name].metric,
    )


def base_checkpoint(size: str, seed: int, rows: Rows, place: Place) -> Path:
    """A checkpoint of random weights, drawn with the seed, and the tokenizer; made once."""
    import transformers

    folder = place.base / f"{size}-seed{seed}"
    if (folder / "model.safetensors").is_file():
        return folder
    tokenizer = _tokenizer(rows, place.base / "tokenizer")
    shape = SHAPES[size]
    transformers.set_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_config(
        _config(shape, len(tokenizer))
    )
    tokenizer.save_pretrained(str(folder))
    model.save_pretrained(str(folder))
    return folder


def _config(shape: Shape, vocabulary: int) -> Any:
    import transformers

    return transformers.RobertaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // 64,
        intermediate_size=4 * shape.width,
        max_position_embeddings=MAX_LENGTH + 2,  # they are counted from the padding id on
        type_vocab_size=1,
        pad_token_id=_SPECIAL.index("<pad>"),
        bos_token_id=_SPECIAL.index("<s>"),
        eos_token_id=_SPECIAL.index("</s>"),
    )


def _tokenizer(rows: Rows, folder: Path) -> Any:
    """Byte-level BPE of the training texts, as transformers' tokenizer of the family."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer

    if not (folder / "config.json").is_file():
        rust = Tokenizer(models.BPE())
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            min_frequency=2,
            show_progress=False,
            special_tokens=_SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        rust.train_from_iterator([str(text) for text in rows.texts], trainer)
        folder.mkdir(parents=True, exist_ok=True)
        rust.model.save(str(folder))
        # It tells AutoTokenizer the family, and is written last.
        _config(SHAPES["large"], rust.get_vocab_size()).save_pretrained(str(folder))
    return AutoTokenizer.from_pretrained(str(folder), model_max_length=MAX_LENGTH)


if __name__ == "__main__":
    sys.exit(main())
