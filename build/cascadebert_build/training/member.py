"""Fine-tuning of one member, on transformers' Trainer."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_engine.files import sha256_of, write_json, write_text

from ..checkpoints.checkpoint import (
    Checkpoint,
    hide_weight_bars,
    sha256_of_checkpoint,
    tokenizer_from_source,
)
from ..checkpoints.logits import logits_of_checkpoint
from ..config.rows import Rows
from ..errors import UsageError
from ..extras import require
from ..progress import say
from . import processes
from .config import TrainConfig, check_config, label_names, one_label
from .layers import take_layers
from .model_card import model_card
from .objectives import objective_from_name
from .resume import begin_partial, interrupted_checkpoint, partial_folder
from .trainer import HARD, ROW, TEACHER_LOGITS, MadeTrainer, make_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What the training came to on the validation rows.

    Attributes:
        accuracies: of all validations, in order.
        best_accuracy: of the weights that were kept.
        metric, best: name and value of what chose them.
        rows_per_s: of the training steps since the last resume, validations left out; of one
            process.
    """

    accuracies: tuple[float, ...]
    best_accuracy: float
    metric: str
    best: float
    train_rows: int
    validation_rows: int
    rows_per_s: float


def train_member(
    rows: Rows,
    base: str,
    output: Path,
    config: TrainConfig,
    *,
    labels: Sequence[str] | None = None,
    validation: Rows | None = None,
    hard: NDArray[np.bool_] | None = None,
    teacher: str | None = None,
    layers: Sequence[int] | None = None,
) -> TrainResult:
    """Fine-tune `base` on `rows` and save the checkpoint of the best validation to `output`.

    Checkpoints are kept in `OUTPUT.partial` while it runs. Called again with the same arguments
    after an interruption, it goes on from the last of them.

    Args:
        rows: with labels.
        base: folder or hub id of any encoder that transformers can give a classification head.
        output: a folder that is new or empty.
        config: hyperparameters.
        labels: names, in the order of integer labels; None: those of the data or of the base.
        validation: chooses the epoch; None: a tenth of `rows`, drawn with the seed.
        hard: which rows are hard, shape (n,); the objective "dar" needs it.
        teacher: folder or hub id of a larger member to distil from; None: no distillation.
        layers: of the base that the member keeps, from 0; None: all.

    Raises:
        UsageError: the base, the labels or the output folder cannot be used, or the loss is no
            longer finite.
    """
    require("build", "torch", "transformers", "accelerate")
    import torch
    import transformers

    check_config(config)
    if config.objective == "dar" and hard is None:
        raise UsageError(
            "the objective 'dar' needs to know which rows are hard: run `cascadebert difficulty`"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists and is not an empty folder: give another one")
    names = label_names(rows, base, labels)
    parts = _parts_of(rows, names, config, validation, hard)
    tokenizer = tokenizer_from_source(base)
    train = encoded_items(parts.train, names, tokenizer, config.max_length)
    held_out = encoded_items(parts.validation, names, tokenizer, config.max_length)
    scratch = partial_folder(output)
    key = sha256_of(
        parts.train.sha256(), parts.validation.sha256(), list(names), sha256_of_checkpoint(base),
        None if teacher is None else sha256_of_checkpoint(teacher),
        None if parts.hard is None else parts.hard.tolist(),
        None if layers is None else list(layers),
        asdict(config), torch.__version__, transformers.__version__, processes.count(),
    )  # fmt: skip
    checkpoint = interrupted_checkpoint(scratch, key)
    hide_weight_bars()
    transformers.set_seed(config.seed)
    model = model_from_base(base, names)
    if layers is not None:
        take_layers(model, layers)
    for part, items in ((parts.train, train), (parts.validation, held_out)):
        _check_positions(part, items, Checkpoint(base, model, tokenizer, names, ()))
    _add_targets(train, parts, teacher, names, config)
    made = make_trainer(
        model,
        tokenizer,
        objective_from_name(config.objective, config.constants, distilled=teacher is not None),
        train=train,
        validation=held_out,
        config=config,
        scratch=str(scratch),
    )
    processes.wait_for_all()  # nobody looks into the folder any more
    if processes.is_first():
        begin_partial(scratch, key)
        if checkpoint is not None:
            say("resume", checkpoint.name, "of an interrupted training")
    processes.wait_for_all()
    made.train(checkpoint)
    processes.wait_for_all()  # all have the best weights, and need the checkpoints no more
    result = _result_of(made, parts)
    record = {
        "base": base,
        "layers": None if layers is None else list(layers),
        "teacher": teacher,
        "data": rows.source,
        "data_sha256": parts.train.sha256(),
        "hard_rows": None if parts.hard is None else int(parts.hard.sum()),
        "config": asdict(config),
        "processes": processes.count(),
        "result": asdict(result),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    if processes.is_first():
        _save(made.trainer, tokenizer, scratch / "done", record, names)
        _move_folder(scratch / "done", output)
        shutil.rmtree(scratch, ignore_errors=True)
    processes.wait_for_all()
    return result


@dataclass(frozen=True, slots=True)
class _Parts:
    """The rows of a training.

    Attributes:
        train, validation: without a row in common, unless they were given so.
        indices: of `train` in the data, shape (n,).
        hard: of `train`, shape (n,); None where nobody said.
    """

    train: Rows
    validation: Rows
    indices: NDArray[np.int64]
    hard: NDArray[np.bool_] | None


def _parts_of(
    rows: Rows,
    names: tuple[str, ...],
    config: TrainConfig,
    validation: Rows | None,
    hard: NDArray[np.bool_] | None,
) -> _Parts:
    rows.label_indices(names)  # all of them are looked at before some are held out
    kept = list(range(len(rows.texts)))
    if validation is None:
        kept, held_out = split_indices(rows, 0.1, config.seed)
        validation = subset_of_rows(rows, held_out)
    train = subset_of_rows(rows, kept)
    labels = set(train.label_indices(names).tolist())
    if len(labels) < 2:
        raise UsageError(one_label(train, names[labels.pop()]))
    indices = np.array(kept, dtype=np.int64)
    return _Parts(train, validation, indices, None if hard is None else hard[indices])


def _add_targets(
    items: Sequence[dict[str, Any]],
    parts: _Parts,
    teacher: str | None,
    names: Sequence[str],
    config: TrainConfig,
) -> None:
    """What the objective takes beside the labels."""
    for item, row in zip(items, parts.indices.tolist(), strict=True):
        item[ROW] = row
    if parts.hard is not None:
        for item, is_hard in zip(items, parts.hard.tolist(), strict=True):
            item[HARD] = is_hard
    if teacher is not None:
        texts = parts.train.texts
        logits = logits_of_checkpoint(teacher, texts, names, config.max_length, "teacher")
        for item, of_row in zip(items, logits.tolist(), strict=True):
            item[TEACHER_LOGITS] = of_row


def _result_of(made: MadeTrainer, parts: _Parts) -> TrainResult:
    metric = made.config.metric
    history = [entry for entry in made.trainer.state.log_history if "eval_accuracy" in entry]
    best = max(history, key=lambda entry: entry[f"eval_{metric}"])
    return TrainResult(
        accuracies=tuple(float(entry["eval_accuracy"]) for entry in history),
        best_accuracy=float(best["eval_accuracy"]),
        metric=metric,
        best=float(best[f"eval_{metric}"]),
        train_rows=len(parts.train.texts),
        validation_rows=len(parts.validation.texts),
        rows_per_s=round(
            made.clock.steps * made.config.batch_size / max(made.clock.seconds, 1e-9), 1
        ),
    )


def _check_positions(rows: Rows, items: Sequence[dict[str, Any]], checkpoint: Checkpoint) -> None:
    limit = checkpoint.max_positions()
    for row, item in enumerate(items):
        if limit is not None and len(item["input_ids"]) > limit:
            raise UsageError(
                f"{rows.where(row)}: its {len(item['input_ids'])} tokens are more than the {limit} "
                f"positions of the base: give --max-length {limit}"
            )


def _save(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerFast,
    output: Path,
    record: dict[str, Any],
    names: Sequence[str],
) -> None:
    """The checkpoint as it will be used; the best weights are loaded by now."""
    output.mkdir(parents=True, exist_ok=True)
    trainer.save_model(str(output))
    (output / "training_args.bin").unlink(missing_ok=True)  # a pickle; training.json says it
    tokenizer.save_pretrained(str(output))
    write_json(output / "training.json", record)
    write_text(output / "README.md", model_card(record, names))


def _move_folder(source: Path, target: Path) -> None:
    """Give the folder its name, at once where that can be: not onto a mounted folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)  # which may be there, if it is empty
    except OSError:
        shutil.copytree(source, target, dirs_exist_ok=True)


def split_rows(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Two disjoint parts, the second with `share` of the rows, drawn with `seed`.

    Raises:
        UsageError: there are too few rows to split.
    """
    first, second = split_indices(rows, share, seed)
    return subset_of_rows(rows, first), subset_of_rows(rows, second)


def split_indices(rows: Rows, share: float, seed: int) -> tuple[list[int], list[int]]:
    """The rows of `split_rows`, by their indices, ascending."""
    n_second = round(len(rows.texts) * share)
    if not 0 < n_second < len(rows.texts):
        raise UsageError(f"{rows.source} has {len(rows.texts)} rows: too few to hold some out")
    order = list(range(len(rows.texts)))
    random.Random(seed).shuffle(order)
    return sorted(order[n_second:]), sorted(order[:n_second])


def subset_of_rows(rows: Rows, indices: Sequence[int]) -> Rows:
    """Some of the rows, in the given order."""
    labels = None if rows.labels is None else tuple(rows.labels[i] for i in indices)
    numbers = None if rows.numbers is None else tuple(rows.numbers[i] for i in indices)
    return Rows(tuple(rows.texts[i] for i in indices), labels, rows.source, numbers)


def model_from_base(base: str, names: tuple[str, ...]) -> PreTrainedModel:
    """The base with a classification head for these labels, in float32.

    Raises:
        UsageError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        return AutoModelForSequenceClassification.from_pretrained(
            base,
            dtype=torch.float32,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            # A base may have a head for another number of labels: it is replaced.
            ignore_mismatched_sizes=True,
        )
    except Exception as exc:
        raise UsageError(f"the base checkpoint {base!r} cannot be loaded: {exc}") from exc


def encoded_items(
    rows: Rows, names: tuple[str, ...], tokenizer: PreTrainedTokenizerFast, max_length: int
) -> list[dict[str, Any]]:
    """Token ids and label of every row, tokenised once."""
    targets = rows.label_indices(names)
    texts = [text if isinstance(text, str) else text[0] for text in rows.texts]
    pairs = [text[1] for text in rows.texts if not isinstance(text, str)] or None
    encoded = tokenizer(texts, pairs, truncation=True, max_length=max_length)
    return [
        {**{key: values[i] for key, values in encoded.items()}, "labels": int(target)}
        for i, target in enumerate(targets)
    ]
