"""Fine-tuning of one member."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_engine.files import sha256_of, write_json, write_text

from ..checkpoints.checkpoint import (
    hide_weight_bars,
    max_positions,
    sha256_of_checkpoint,
    tokenizer_from_source,
)
from ..checkpoints.logits import logits_of_checkpoint
from ..config.rows import Rows
from ..errors import UsageError
from ..extras import require
from ..progress import say
from . import processes
from .base import model_from_base
from .config import TrainConfig, check_config, label_names
from .items import add_targets, check_positions, encoded_items, truncation_of_items
from .layers import take_layers
from .learned import warning_of_accuracies
from .model_card import model_card
from .objectives import objective_from_name
from .parts import TrainingRows, training_rows
from .resume import begin_partial, interrupted_checkpoint, partial_folder
from .trainer import MemberTraining, make_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Trainer

# What a record names if the teacher itself was not there.
_GIVEN = "a teacher whose logits were given"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The result of a training on the validation rows.

    Attributes:
        accuracies: Of all validations, in order.
        best_accuracy: Of the weights that were kept.
        metric: The name of the metric that chose them.
        best: The value of that metric.
        train_rows: Number of rows to learn from.
        validation_rows: Number of rows that chose the epoch.
        rows_per_s: Of the training steps since the last resume, without validations, in one
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
    teacher_logits: NDArray[np.float32] | None = None,
    layers: Sequence[int] | None = None,
) -> TrainResult:
    """Fine-tune `base` on `rows` and save the checkpoint of the best validation to `output`.

    Checkpoints are kept in `OUTPUT.partial` during the training. If it is interrupted, a call with
    the same arguments resumes from the last of them.

    Args:
        rows: With labels.
        base: Folder or hub id of any encoder that transformers can give a classification head.
        output: A folder that is new or empty.
        config: Hyperparameters.
        labels: Names, in the order of integer labels; None: those of the data or of the base.
        validation: Rows that choose the epoch; None: a tenth of `rows`, drawn with the seed.
        hard: Whether a row is hard, shape (n,). The objective "dar" needs it.
        teacher: Folder or hub id of a larger member to distil from; None: no distillation, unless
            its logits are given.
        teacher_logits: The teacher's logits of `rows`, shape (n, n_labels), columns in the order
            of the labels; None: they are computed, which takes a pass of the teacher.
        layers: Layers of the base that the member keeps, from 0; None: all.

    Raises:
        UsageError: The base, the labels or the output folder cannot be used, or the loss is not
            finite.
    """
    require("build", "torch", "transformers", "accelerate")
    check_config(config)
    check_objective(config, hard)
    check_output(output)
    given = None if teacher_logits is None else sha256_of(teacher_logits.tolist())
    recipe = _Recipe(base, label_names(rows, base, labels), config, teacher, layers, given)
    parts = training_rows(rows, recipe.names, config.seed, validation, hard)
    tokenizer = tokenizer_from_source(base)
    train, held_out = (
        encoded_items(part, recipe.names, tokenizer, config.max_length)
        for part in (parts.train, parts.validation)
    )
    if processes.is_first():
        cut = truncation_of_items(parts.train, train, tokenizer, config.max_length, output.name)
        if cut.cut:
            say("rows", cut.member, str(cut))
    scratch = partial_folder(output)
    key = recipe.key(parts)
    checkpoint = interrupted_checkpoint(scratch, key)
    training = _prepared(
        recipe, parts, tokenizer, (train, held_out), scratch, teacher_logits=teacher_logits
    )
    _run(training, scratch, key, checkpoint)
    result = _result_of(training, parts)
    if processes.is_first():
        truth = parts.validation.label_indices(recipe.names)
        warning = warning_of_accuracies(result.accuracies, truth, config.learning_rate)
        if warning is not None:
            say("WARNING", output.name, warning)
        record = recipe.record(rows.source, parts, result)
        _save(training.trainer, tokenizer, scratch / "done", record, recipe.names)
        _move_folder(scratch / "done", output)
        shutil.rmtree(scratch, ignore_errors=True)
    processes.wait_for_all()
    return result


def check_objective(config: TrainConfig, hard: NDArray[np.bool_] | None) -> None:
    """Refuse an objective that needs to know which rows are hard, if that is not known.

    Raises:
        UsageError: The message names the command that finds them.
    """
    if config.objective == "dar" and hard is None:
        raise UsageError(
            "the objective 'dar' needs to know which rows are hard: run `cascadebert difficulty`"
        )


def check_output(output: Path) -> None:
    """Refuse a folder that has other files.

    Raises:
        UsageError: It exists and is not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists and is not an empty folder: give another one")


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What a training depends on, except for its rows. See `train_member`."""

    base: str
    names: tuple[str, ...]
    config: TrainConfig
    teacher: str | None
    layers: Sequence[int] | None
    teacher_logits: str | None  # their hash, if they were given

    @property
    def distilled(self) -> bool:
        """Whether there is a teacher."""
        return self.teacher is not None or self.teacher_logits is not None

    def key(self, parts: TrainingRows) -> str:
        """A hash of everything that the weights depend on."""
        return sha256_of(
            parts.train.sha256(), parts.validation.sha256(), list(self.names),
            sha256_of_checkpoint(self.base),
            None if self.teacher is None else sha256_of_checkpoint(self.teacher),
            None if parts.hard is None else parts.hard.tolist(),
            None if self.layers is None else list(self.layers),
            asdict(self.config), *_versions().values(), processes.count(), self.teacher_logits,
        )  # fmt: skip

    def record(self, source: str, parts: TrainingRows, result: TrainResult) -> dict[str, Any]:
        """The contents of training.json."""
        return {
            "base": self.base,
            "layers": None if self.layers is None else list(self.layers),
            "teacher": self.teacher or (_GIVEN if self.distilled else None),
            "data": source,
            "data_sha256": parts.train.sha256(),
            "hard_rows": None if parts.hard is None else int(parts.hard.sum()),
            "config": asdict(self.config),
            "processes": processes.count(),
            "result": asdict(result),
            "versions": _versions(),
        }


def _versions() -> dict[str, str]:
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__}


def _prepared(
    recipe: _Recipe,
    parts: TrainingRows,
    tokenizer: PreTrainedTokenizerFast,
    items: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    scratch: Path,
    *,
    teacher_logits: NDArray[np.float32] | None,
) -> MemberTraining:
    """The model with its Trainer.

    Args:
        recipe: Of the training.
        parts: The rows of the training.
        tokenizer: The base's.
        items: The tokenised rows of `parts.train`, which get their targets, and of the validation.
        scratch: Folder for checkpoints.
        teacher_logits: The teacher's logits of all rows, if they are known.
    """
    import transformers

    config = recipe.config
    hide_weight_bars()
    transformers.set_seed(config.seed)
    model = model_from_base(recipe.base, recipe.names)
    if recipe.layers is not None:
        take_layers(model, recipe.layers)
    train, validation = items
    check_positions(parts.train, train, max_positions(model))
    check_positions(parts.validation, validation, max_positions(model))
    if teacher_logits is not None:
        teacher_logits = teacher_logits[parts.indices]
    elif recipe.teacher is not None:
        teacher_logits = logits_of_checkpoint(
            recipe.teacher, parts.train.texts, recipe.names, config.max_length, "teacher"
        )
    add_targets(train, parts, teacher_logits)
    return make_trainer(
        model,
        tokenizer,
        objective_from_name(config.objective, config.constants, distilled=recipe.distilled),
        train=train,
        validation=validation,
        config=config,
        scratch=str(scratch),
    )


def _run(training: MemberTraining, scratch: Path, key: str, checkpoint: Path | None) -> None:
    processes.wait_for_all()  # all have read the folder before it changes
    if processes.is_first():
        begin_partial(scratch, key)
        if checkpoint is not None:
            say("resume", checkpoint.name, "of an interrupted training")
    processes.wait_for_all()
    training.train(checkpoint)
    processes.wait_for_all()  # all have loaded the best weights before the checkpoints go


def _result_of(training: MemberTraining, parts: TrainingRows) -> TrainResult:
    config, clock = training.config, training.clock
    best_key = f"eval_{config.metric}"
    history = [entry for entry in training.trainer.state.log_history if "eval_accuracy" in entry]
    best = max(history, key=lambda entry: entry[best_key])
    return TrainResult(
        accuracies=tuple(float(entry["eval_accuracy"]) for entry in history),
        best_accuracy=float(best["eval_accuracy"]),
        metric=config.metric,
        best=float(best[best_key]),
        train_rows=len(parts.train.texts),
        validation_rows=len(parts.validation.texts),
        rows_per_s=round(clock.steps * config.batch_size / max(clock.seconds, 1e-9), 1),
    )


def _save(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerFast,
    output: Path,
    record: dict[str, Any],
    names: Sequence[str],
) -> None:
    """Write the checkpoint; the Trainer has loaded the best weights by now."""
    output.mkdir(parents=True, exist_ok=True)
    trainer.save_model(str(output))
    (output / "training_args.bin").unlink(missing_ok=True)  # a pickle; training.json has it all
    tokenizer.save_pretrained(str(output))
    write_json(output / "training.json", record)
    write_text(output / "README.md", model_card(record, names))


def _move_folder(source: Path, target: Path) -> None:
    """Rename the folder, or copy it if it cannot be renamed (onto a mounted folder, say)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)  # which may exist, if it is empty
    except OSError:
        shutil.copytree(source, target, dirs_exist_ok=True)
