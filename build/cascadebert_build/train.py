"""Fine-tuning of one member, on transformers' Trainer."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_engine.files import read_json, write_json, write_text

from .checkpoint import (
    config_from_source,
    hide_weight_bars,
    sha256_of_checkpoint,
    tokenizer_from_source,
)
from .checkpoint_logits import logits_of_checkpoint
from .data import Rows
from .errors import UsageError
from .extras import require
from .layers import take_layers
from .objectives import OBJECTIVES, ObjectiveConfig, objective_from_name
from .progress import say
from .tasks import METRICS
from .trainer import HARD, ROW, TEACHER_LOGITS, make_trainer
from .workspace import sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a member is fine-tuned; the defaults suit a BERT-family base checkpoint.

    Attributes:
        epochs: at most.
        learning_rate: its peak; it rises over `warmup_ratio` of the steps, then falls linearly.
        batch_size: rows in a step of one process.
        patience: stop after so many validations without a better metric; 0: never.
        max_length: tokens, special ones included.
        precision: of the arithmetic, one of `PRECISIONS`; weights stay float32. "auto" is bf16 on
            GPUs that have it, fp16 on other GPUs and fp32 on a CPU.
        checkpoint_steps: validate and save a checkpoint after so many steps; an interrupted
            training loses no more. 0: after every epoch.
        objective: a name of `objectives.OBJECTIVES`.
        constants: of the objective.
        metric: a name of `tasks.METRICS`; chooses the epoch that is kept.
    """

    epochs: float = 3.0
    learning_rate: float = 2e-5
    batch_size: int = 32
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    patience: int = 2
    max_length: int = 128
    precision: str = "auto"
    checkpoint_steps: int = 0
    seed: int = 0
    objective: str = "plain"
    constants: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    metric: str = "accuracy"


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

    if config.objective not in OBJECTIVES:
        raise UsageError(
            f"unknown objective {config.objective!r}: give one of {', '.join(OBJECTIVES)}"
        )
    if config.metric not in METRICS:
        raise UsageError(f"unknown metric {config.metric!r}: give one of {', '.join(METRICS)}")
    if config.precision not in PRECISIONS:
        raise UsageError(
            f"unknown precision {config.precision!r}: give one of {', '.join(PRECISIONS)}"
        )
    if config.objective == "dar" and hard is None:
        raise UsageError(
            "the objective 'dar' needs to know which rows are hard: run `cascadebert difficulty`"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists and is not an empty folder: give another one")
    names = label_names(rows, base, labels)
    all_rows = np.arange(len(rows.texts))
    if validation is None:
        kept, held_out = split_indices(rows, 0.1, config.seed)
        all_rows = all_rows[kept]
        hard = None if hard is None else hard[kept]
        rows, validation = subset_of_rows(rows, kept), subset_of_rows(rows, held_out)
    tokenizer = tokenizer_from_source(base)
    train = encoded_items(rows, names, tokenizer, config.max_length)
    held_out_items = encoded_items(validation, names, tokenizer, config.max_length)
    for item, row in zip(train, all_rows.tolist(), strict=True):
        item[ROW] = row
    for item, is_hard in zip(train, [] if hard is None else hard.tolist(), strict=False):
        item[HARD] = is_hard
    scratch = output.with_name(f"{output.name}.partial")
    key = sha256_of(
        rows.sha256(), validation.sha256(), list(names), sha256_of_checkpoint(base),
        None if teacher is None else sha256_of_checkpoint(teacher),
        None if hard is None else hard.tolist(), None if layers is None else list(layers),
        asdict(config), torch.__version__, transformers.__version__,
    )  # fmt: skip
    resumed_from = _interrupted(scratch, key)
    if teacher is not None:
        for item, logits in zip(
            train,
            logits_of_checkpoint(teacher, rows.texts, names, config.max_length, "teacher"),
            strict=True,
        ):
            item[TEACHER_LOGITS] = logits.tolist()
    hide_weight_bars()
    transformers.set_seed(config.seed)
    model = _model_from_base(base, names)
    if layers is not None:
        take_layers(model, layers)
    made = make_trainer(
        model,
        tokenizer,
        objective_from_name(config.objective, config.constants, distilled=teacher is not None),
        train=train,
        validation=held_out_items,
        config=config,
        scratch=str(scratch),
    )
    made.trainer.train(resume_from_checkpoint=resumed_from)
    history = [entry for entry in made.trainer.state.log_history if "eval_accuracy" in entry]
    best = max(history, key=lambda entry: entry[f"eval_{config.metric}"])
    result = TrainResult(
        accuracies=tuple(float(entry["eval_accuracy"]) for entry in history),
        best_accuracy=float(best["eval_accuracy"]),
        metric=config.metric,
        best=float(best[f"eval_{config.metric}"]),
        train_rows=len(rows.texts),
        validation_rows=len(validation.texts),
        rows_per_s=round(made.clock.steps * config.batch_size / max(made.clock.seconds, 1e-9), 1),
    )
    record = {
        "base": base,
        "layers": None if layers is None else list(layers),
        "teacher": teacher,
        "data": rows.source,
        "data_sha256": rows.sha256(),
        "hard_rows": None if hard is None else int(hard.sum()),
        "config": asdict(config),
        "result": asdict(result),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    if made.trainer.is_world_process_zero():
        _save(made.trainer, tokenizer, output, record, names)
        shutil.rmtree(scratch, ignore_errors=True)
    return result


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


def _interrupted(scratch: Path, key: str) -> str | None:
    """The last checkpoint of an interrupted training; makes the folder where there is none.

    Raises:
        UsageError: the folder has another training's checkpoints.
    """
    from transformers.trainer_utils import get_last_checkpoint

    mark = scratch / "training.json"
    if scratch.is_dir() and any(scratch.iterdir()):
        if (read_json(mark) or {}).get("key") != key:
            raise UsageError(
                f"{scratch} holds an interrupted training with other settings, data or versions: "
                "delete it, or give another output folder"
            )
        last = get_last_checkpoint(str(scratch))
        if last is not None:
            say("resume", Path(last).name, "from an interrupted training")
        return last
    scratch.mkdir(parents=True, exist_ok=True)
    write_json(mark, {"key": key})
    return None


def model_card(record: dict[str, Any], labels: Sequence[str]) -> str:
    """The card that comes with a checkpoint, from the record of its training."""
    config, result = record["config"], record["result"]
    constants = {
        "dar": ("margin", "weight"),
        "gatekeeper": ("alpha",),
    }.get(config["objective"], ())
    if record["teacher"]:
        constants = (*constants, "distill_weight", "distill_temperature")
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "---",
        "",
        "# A member of a cascade",
        "",
        f"Fine-tuned from `{record['base']}` by CascadeBERT on Triton.",
        f"Labels: {', '.join(labels)}.",
        "",
        "| | |",
        "|---|---|",
        *(
            [f"| layers of the base | {', '.join(map(str, record['layers']))} |"]
            if record["layers"] is not None
            else []
        ),
        f"| objective | {config['objective']} |",
        *(f"| {name.replace('_', ' ')} | {config['constants'][name]:g} |" for name in constants),
        *([f"| distilled from | `{record['teacher']}` |"] if record["teacher"] else []),
        *(
            [f"| hard rows | {record['hard_rows']} |"]
            if record["hard_rows"] is not None and config["objective"] == "dar"
            else []
        ),
        f"| data | {Path(record['data']).name}, {result['train_rows']} rows (sha256 of texts and "
        f"labels {record['data_sha256'][:16]}…) |",
        f"| validation | {result['metric']} {result['best']:.4f}, accuracy "
        f"{result['best_accuracy']:.4f}, {result['validation_rows']} rows, "
        "which chose the weights |",
        f"| epochs | at most {config['epochs']:g} |",
        f"| precision | {config['precision']} |",
        f"| learning rate, batch | {config['learning_rate']:g}, {config['batch_size']} |",
        f"| tokens | at most {config['max_length']} |",
        f"| seed | {config['seed']} |",
        f"| versions | torch {record['versions']['torch']}, transformers "
        f"{record['versions']['transformers']} |",
        "",
        "`training.json` has all of it for programs.",
    ]
    return "\n".join(lines) + "\n"


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
    return Rows(tuple(rows.texts[i] for i in indices), labels, rows.source)


def label_names(rows: Rows, base: str, given: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names for the labels in the data: the given ones, its own strings, or the base's.

    Raises:
        UsageError: there are no labels, or all rows have the same one.
    """
    if given:
        return tuple(given)
    of_base = tuple(dict(config_from_source(base).id2label or {}).values())
    if rows.labels is None:
        raise UsageError(f"{rows.source} has no labels: name their column with --label")
    distinct = sorted(set(rows.labels), key=str)
    if len(distinct) < 2:
        raise UsageError(f"{rows.source} has the one label {distinct[0]!r}: nothing to learn")
    if any(not str(label).isdecimal() for label in distinct):
        return tuple(str(label) for label in distinct)
    n = max(int(label) for label in distinct) + 1
    return of_base if len(of_base) == n else tuple(f"LABEL_{i}" for i in range(n))


def _model_from_base(base: str, names: tuple[str, ...]) -> PreTrainedModel:
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
