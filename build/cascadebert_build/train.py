"""Fine-tuning of one member, on transformers' Trainer."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_engine.files import write_json, write_text

from .checkpoint import (
    config_from_source,
    hide_weight_bars,
    tokenizer_from_source,
)
from .checkpoint_logits import logits_of_checkpoint
from .data import Rows
from .errors import UsageError
from .extras import require
from .layers import take_layers
from .objectives import OBJECTIVES, ObjectiveConfig, objective_from_name
from .tasks import METRICS
from .trainer import HARD, TEACHER_LOGITS, make_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a member is fine-tuned; the defaults suit a BERT-family base checkpoint.

    Attributes:
        epochs: at most.
        learning_rate: its peak; it rises over `warmup_ratio` of the steps, then falls linearly.
        patience: stop after so many epochs without a better validation accuracy; 0: never.
        max_length: tokens, special ones included.
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
    seed: int = 0
    objective: str = "plain"
    constants: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    metric: str = "accuracy"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What the training came to on the validation rows.

    Attributes:
        accuracy_by_epoch: in order.
        best_accuracy: of the epoch that was kept.
        metric, best: name and value of what chose that epoch.
    """

    accuracy_by_epoch: tuple[float, ...]
    best_accuracy: float
    metric: str
    best: float
    train_rows: int
    validation_rows: int


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
    """Fine-tune `base` on `rows` and save the checkpoint of the best epoch to `output`.

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
        UsageError: the base, the labels or the output folder cannot be used.
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
    if config.objective == "dar" and hard is None:
        raise UsageError(
            "the objective 'dar' needs to know which rows are hard: run `cascadebert difficulty`"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists and is not an empty folder: give another one")
    names = label_names(rows, base, labels)
    if validation is None:
        kept, held_out = split_indices(rows, 0.1, config.seed)
        hard = None if hard is None else hard[kept]
        rows, validation = subset_of_rows(rows, kept), subset_of_rows(rows, held_out)
    tokenizer = tokenizer_from_source(base)
    hide_weight_bars()
    transformers.set_seed(config.seed)
    model = _model_from_base(base, names)
    if layers is not None:
        take_layers(model, layers)
    objective = objective_from_name(
        config.objective, config.constants, distilled=teacher is not None
    )
    train = _encoded(rows, names, tokenizer, config.max_length)
    for item, is_hard in zip(train, [] if hard is None else hard.tolist(), strict=False):
        item[HARD] = is_hard
    if teacher is not None:
        for item, row in zip(
            train,
            logits_of_checkpoint(teacher, rows.texts, names, config.max_length, "teacher"),
            strict=True,
        ):
            item[TEACHER_LOGITS] = row.tolist()
    with tempfile.TemporaryDirectory(prefix="cascadebert-train-") as scratch:
        trainer = make_trainer(
            model,
            tokenizer,
            objective,
            train=train,
            validation=_encoded(validation, names, tokenizer, config.max_length),
            config=config,
            scratch=scratch,
        )
        trainer.train()
        history = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
        output.mkdir(parents=True, exist_ok=True)
        trainer.save_model(str(output))  # the best epoch's weights are loaded by now
    tokenizer.save_pretrained(str(output))
    best = max(history, key=lambda entry: entry[f"eval_{config.metric}"])
    result = TrainResult(
        accuracy_by_epoch=tuple(float(entry["eval_accuracy"]) for entry in history),
        best_accuracy=float(best["eval_accuracy"]),
        metric=config.metric,
        best=float(best[f"eval_{config.metric}"]),
        train_rows=len(rows.texts),
        validation_rows=len(validation.texts),
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
    write_json(output / "training.json", record)
    write_text(output / "README.md", model_card(record, names))
    return result


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
        f"{result['best_accuracy']:.4f}, {result['validation_rows']} rows, which chose the epoch |",
        f"| epochs | at most {config['epochs']:g} |",
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


def _encoded(
    rows: Rows, names: tuple[str, ...], tokenizer: PreTrainedTokenizerFast, max_length: int
) -> list[dict[str, Any]]:
    targets = rows.label_indices(names)
    texts = [text if isinstance(text, str) else text[0] for text in rows.texts]
    pairs = [text[1] for text in rows.texts if not isinstance(text, str)] or None
    encoded = tokenizer(texts, pairs, truncation=True, max_length=max_length)
    return [
        {**{key: values[i] for key, values in encoded.items()}, "labels": int(target)}
        for i, target in enumerate(targets)
    ]
